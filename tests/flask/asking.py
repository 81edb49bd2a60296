"""How tests ask a Flask app: in words, through its own test client."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from apigate import Gateway
from apigate.flask import Apigate
from apigate.testing import FakeClock


def gateway(**settings: Any) -> Gateway:
    """A gateway whose time stands still."""
    return Gateway(**{"clock": FakeClock(), **settings})


def gated(app: Flask, gate: Gateway, **settings: Any) -> Flask:
    """The app, with its gate."""
    Apigate(app, gate, **settings)
    return app


def ask(app: Any, request: str, headers: Mapping[str, str] | None = None, **environ: Any) -> Any:
    """One request such as `GET /pets`; the path goes to the app as it is written, percent-decoded."""
    verb, target = request.split(" ", 1)
    client = app.test_client()
    return client.open(target, method=verb, headers=headers, environ_overrides=environ)


def statuses(app: Any, *requests: str, headers: Mapping[str, str] | None = None) -> list[int]:
    """The statuses of several requests, one after the other; each response is closed, as every server does."""
    found = []
    for request in requests:
        with ask(app, request, headers) as response:
            found.append(response.status_code)
    return found


def remaining(response: Any) -> dict[str, int]:
    """What a response's RateLimit field says is left, by limit."""
    left = {}
    for item in filter(None, response.headers.get("RateLimit", "").split(", ")):
        name, rest, *_ = item.split(";")
        left[name.strip('"')] = int(rest.removeprefix("r="))
    return left


def calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls it, and has nothing of its marks or routes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call
