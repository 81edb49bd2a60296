"""How tests ask a Flask app: in words, through its own test client."""

from collections.abc import Mapping
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
    """The statuses of several requests, one after the other."""
    return [ask(app, request, headers).status_code for request in requests]


def remaining(response: Any) -> dict[str, int]:
    """What a response's RateLimit field says is left, by limit."""
    items = response.headers.get("RateLimit", "").split(", ")
    return {name.strip('"'): int(rest[2:].partition(";")[0]) for name, _, rest in (i.partition(";") for i in items if i)}
