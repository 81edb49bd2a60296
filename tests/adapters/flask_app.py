"""The acts of `apps` as a Flask app does them, at home behind the extension `Apigate`."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, abort, request

from apigate import Gateway
from apigate.flask import Apigate, context
from apigate.wsgi import GatewayMiddleware
from tests.adapters import apps
from tests.adapters.cells import Home, wsgi_host_of


def flask_app(gateway: Gateway | None = None, *, stage: str | None = None, mark: apps.Mark = apps.unmarked) -> Flask:
    app = Flask("pets", static_folder=None)
    app.add_url_rule("/pets/<id>", view_func=mark(pet), methods=["GET", "POST"])
    app.add_url_rule("/login", view_func=login, methods=["POST"])
    app.add_url_rule("/", view_func=anything)
    app.add_url_rule("/<path:rest>", view_func=anything, methods=["GET", "POST"])
    if gateway is not None:
        Apigate(app, gateway, stage=stage)
    return app


def flask_host() -> Any:
    return wsgi_host_of(Home("wsgi", flask_app, GatewayMiddleware))


# ---- views


def pet(id: str) -> Response:  # noqa: A002 - as the route calls it
    return act()


def login() -> Response:
    return act()


def anything(rest: str = "") -> Response:
    return act()


def act() -> Response:
    request.environ["test.ledger"].add("calls")
    return ACTS[request.headers.get("x-do", "hello")]()


def hello() -> Response:
    fields = [*apps.OWN_FIELDS, ("content-type", "text/plain"), ("content-length", "5")]
    return Response("hello", headers=fields)  # without its body for HEAD: Werkzeug sees to that


def echo() -> Response:
    return Response(request.get_data())


def status() -> Response:
    return Response(status=int(request.headers["x-status"]))


def seen() -> Response:
    native = {"path": request.path, "mount": request.script_root, "query": request.query_string.decode()}
    return Response(apps.described(context, native))


def broken() -> Response:
    raise RuntimeError("the app is broken")


def throttled() -> Response:
    raise apps.throttled()


def half(error: Exception) -> Response:
    return Response(apps.half(error), headers={"content-length": "100"})


def stream() -> Response:
    return Response(apps.turnstile(request.environ), content_type=request.headers.get("x-type", "text/plain"))


def endless() -> Response:
    return Response(apps.pieces(request.environ["test.ledger"]))


ACTS: dict[str, Callable[[], Response]] = {
    "hello": hello,
    "echo": echo,
    "status": status,
    "missing": lambda: abort(404),
    "context": seen,
    "raise": broken,
    "raise-late": lambda: half(RuntimeError("the app broke down half-way")),
    "throttled": throttled,
    "throttled-late": lambda: half(apps.throttled()),
    "stream": stream,
    "endless": endless,
}
