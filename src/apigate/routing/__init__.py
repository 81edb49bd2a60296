"""How the routes of each framework are read, so that the gate knows the endpoint before the framework runs.

Each module here imports its framework, so it is imported only where that framework is loaded already.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from sys import modules
from typing import Any

from apigate.core.endpoints import Routing, Served

__all__ = ["answered_by_framework", "any_framework", "routing_of", "served_by_framework"]

_READERS = {
    "starlette.routing": "apigate.routing.starlette",
    "flask": "apigate.routing.flask",
    "django.urls": "apigate.routing.django",
}
"""What is loaded where a framework is in use, and the module that reads its routes."""


def routing_of(app: object) -> Routing | None:
    """The routes of an app, or None where it is of no framework that is known, or hides its router."""
    for reader in _readers():
        routing: Routing | None = reader.routing_of(app)
        if routing is not None:
            return routing
    return None


def served_by_framework(arguments: tuple[object, ...]) -> Served | None:
    """The request that a framework is serving right now by calling one of its views with these arguments."""
    for reader in _readers():
        served: Served | None = reader.served(arguments)
        if served is not None:
            return served
    return None


def answered_by_framework(error: Exception, status: int, headers: Mapping[str, str]) -> Exception:
    """The error, where a framework in use can answer it by itself as one that it does; also where no gate stands."""
    for reader in _readers():
        if hasattr(reader, "answered"):
            answered: Exception = reader.answered(error, status, headers)
            return answered
    return error


def any_framework() -> bool:
    """Whether a framework is loaded whose routes could be read."""
    return any(framework in modules for framework in _READERS)


def _readers() -> Iterator[Any]:  # Any: modules
    for framework, reader in _READERS.items():
        if framework in modules:
            yield import_module(reader)
