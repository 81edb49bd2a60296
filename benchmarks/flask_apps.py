"""Flask with one trivial endpoint: bare, behind apigate, behind the limiters made for it."""

from collections.abc import Sequence
from typing import Any

from apigate import Gateway, wsgi
from benchmarks import floors
from benchmarks.raw_apps import gateway
from benchmarks.subjects import NEVER, ONCE, Subject
from benchmarks.throttling import FAST, SLOW

__all__ = ["APIGATE", "BARE", "ENDPOINTS", "FLASK_LIMITER", "FLOOR", "GATES", "THROTTLED_PY"]


def flask() -> Any:
    """Flask with the trivial endpoint."""
    app = empty()
    app.get("/pets")(pets)
    return app


def empty() -> Any:
    """Flask without one, for limiters that decorate it first."""
    from flask import Flask

    return Flask("benchmark")


def pets() -> str:
    """The endpoint."""
    return "[]"


def flask_floor(*, refuse: bool = False) -> Any:
    """The floor's gate."""
    return floors.wsgi_gate(flask(), SLOW if refuse else FAST)


def flask_apigate(*, refuse: bool = False) -> Any:
    """The extension."""
    from apigate.flask import Apigate

    app = flask()
    Apigate(app, gateway(SLOW if refuse else FAST))
    return app


def flask_behind_apigate(*, refuse: bool = False) -> Any:
    """The middleware, as around any WSGI app."""
    app = flask()
    app.wsgi_app = wsgi.GatewayMiddleware(app.wsgi_app, gateway(SLOW if refuse else FAST))
    return app


def _flask_limiter(app: Any, storage: str = "memory://", **settings: Any) -> Any:
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    return Limiter(get_remote_address, app=app, storage_uri=storage, **settings)


def flask_limiter(*, refuse: bool = False, fields: bool = False, limits: Sequence[str] = (), **settings: Any) -> Any:
    """Flask-Limiter with one default limit, or with these."""
    app = flask()
    _flask_limiter(app, default_limits=limits or [ONCE if refuse else NEVER], headers_enabled=fields, **settings)
    return app


def flask_limiter_fields(*, refuse: bool = False) -> Any:
    """The same with header fields."""
    return flask_limiter(refuse=refuse, fields=True)


def endpoint_flask_limiter(*, refuse: bool = False) -> Any:
    """Flask-Limiter's decorator."""
    app = empty()
    limiter = _flask_limiter(app)
    app.get("/pets")(limiter.limit(ONCE if refuse else NEVER)(pets))
    return app


def endpoint_throttled_py(*, refuse: bool = False) -> Any:
    """Its decorator, on its leanest algorithm; `app` is not given, so it sends no fields."""
    from throttled import per_day, per_sec
    from throttled.contrib.flask import Limiter, get_remote_address

    app = empty()
    quota = per_day(1, burst=1) if refuse else per_sec(1_000_000, burst=1_000_000)
    limiter = Limiter(quota, using="gcra", key_func=get_remote_address)
    app.get("/pets")(limiter.limit()(pets))
    return app


def endpoint_floor(*, refuse: bool = False) -> Any:
    """One bucket a client."""
    from flask import Response, request

    limit = floors.throttle(
        SLOW if refuse else FAST,
        key=lambda: request.remote_addr or "",
        refuse=lambda: Response("Too Many Requests", 429),
    )
    app = empty()
    app.get("/pets")(limit(pets))
    return app


def endpoint_apigate(*, refuse: bool = False) -> Any:
    """A decorator on the endpoint, and the gateway it belongs to around the app."""
    from apigate.flask import Apigate

    app = empty()
    gateway = Gateway()
    app.get("/pets")(gateway.throttle(SLOW if refuse else FAST, per="client")(pets))
    Apigate(app, gateway)
    return app


BARE = Subject("Flask", flask, ("flask",), limits=False)
FLOOR = Subject("Flask + floor gate", flask_floor, ("flask",), field="ratelimit-limit")
APIGATE = Subject("Flask + apigate", flask_apigate, ("flask",), field="ratelimit")
BEHIND_APIGATE = Subject("Flask behind apigate", flask_behind_apigate, ("flask",), field="ratelimit")
FLASK_LIMITER = Subject("Flask + Flask-Limiter", flask_limiter, ("flask", "flask_limiter"))
THROTTLED_PY = Subject("Flask + throttled-py decorator", endpoint_throttled_py, ("flask", "throttled"))
GATES = (
    BARE,
    FLOOR,
    APIGATE,
    BEHIND_APIGATE,
    FLASK_LIMITER,
    Subject(
        "Flask + Flask-Limiter, with fields",
        flask_limiter_fields,
        ("flask", "flask_limiter"),
        field="x-ratelimit-limit",
    ),
)
"""Around the app."""

ENDPOINTS = (
    BARE,
    Subject("floor", endpoint_floor, ("flask",)),
    Subject("apigate", endpoint_apigate, ("flask",), field="ratelimit"),
    Subject("Flask + Flask-Limiter decorator", endpoint_flask_limiter, ("flask", "flask_limiter")),
    THROTTLED_PY,
)
"""On one endpoint."""
