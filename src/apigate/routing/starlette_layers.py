"""The middleware of a Starlette app: what stands in front of its router, and its CORS layers.

Rule: to learn what a CORS layer adds to a refusal, the layer itself is asked, as a copy in front of nothing else.
"""

from collections.abc import Iterator, MutableMapping
from copy import copy
from functools import cache
from logging import getLogger
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router

from apigate.core.message import Field, Request, Response

__all__ = ["App", "Scope", "has_cors_layer", "root_path_of", "router_of", "through_cors"]

Scope: TypeAlias = MutableMapping[str, Any]  # Any: as the ASGI specification has it
App: TypeAlias = Any  # an app, a middleware or a router of any kind: what it has is asked for by name


def _layers(app: App) -> Iterator[App]:
    """The middleware in front of a router, outermost first, the router, and the router's own middleware."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        if isinstance(app, Router):
            app = getattr(app, "middleware_stack", None)  # it ends in a method of the router, which has no `app`
        elif isinstance(app, Starlette):
            app = app.router if app.middleware_stack is None else app.middleware_stack
        else:
            app = getattr(app, "app", None)


def router_of(app: App) -> Router | None:
    """The router at the end of a stack of middleware."""
    return next((layer for layer in _layers(app) if isinstance(layer, Router)), None)


def root_path_of(app: App) -> str:
    """What FastAPI puts in place of the server's `root_path`; empty where it leaves that as it is."""
    roots: list[str] = [getattr(layer, "root_path", "") for layer in _layers(app) if isinstance(layer, Starlette)]
    return next(filter(None, reversed(roots)), "")


def has_cors_layer(app: App) -> bool:
    """Whether a CORSMiddleware stands in the app; asking does not have it put its middleware together."""
    return any(isinstance(kind, type) and issubclass(kind, CORSMiddleware) for kind in _middleware(app))


def through_cors(apps: list[App], request: Request, response: Response) -> Response:
    """A response as the CORS layers of apps let it out; nothing else of them runs.

    Args:
        apps: The apps on the request's way, outermost first.
        request: The request.
        response: What is sent to it.
    """
    for layer in reversed([layer for app in apps for layer in _cors_layers(app)]):
        response = _through(layer, request, response)
    return response


def _middleware(app: App) -> Iterator[object]:
    """The classes of the middleware of an app, whether it has put them together yet or not."""
    for layer in _layers(app):
        yield type(layer)
        if isinstance(layer, Starlette) and layer.middleware_stack is None:
            yield from (each.cls for each in layer.user_middleware)


def _cors_layers(app: App) -> list[CORSMiddleware]:
    """The CORS layers of an app, outermost first."""
    found: list[CORSMiddleware] = []
    for layer in _layers(app):
        if isinstance(layer, Starlette) and layer.middleware_stack is None:
            layer.middleware_stack = layer.build_middleware_stack()  # as its first request would
        if isinstance(layer, CORSMiddleware):
            found.append(layer)
    return found


@cache
def _log_failure(layer: str, error: str) -> None:
    """Say once for each kind of layer that it failed."""
    getLogger("apigate").warning("%s raised %s on a refusal, which is sent without its fields", layer, error)


def _through(layer: CORSMiddleware, request: Request, response: Response) -> Response:
    """Send a response out through a copy of the layer that stands in front of nothing else."""
    sent: list[Scope] = []

    async def answer(_scope: Scope, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": response.status, "headers": list(response.raw)})
        await send({"type": "http.response.body", "body": response.body})

    async def receive() -> Scope:
        return {"type": "http.disconnect"}

    async def send(message: Scope) -> None:
        sent.append(message)

    alone = copy(layer)
    alone.app = answer
    sending = alone({**request.native, "type": "http"}, receive, send)
    try:
        sending.send(None)  # nothing in it waits: whoever it sends to is a list
    except StopIteration:
        pass
    except Exception as error:  # noqa: BLE001 - a subclass may need what only the layers in front of it give
        _log_failure(type(layer).__qualname__, type(error).__qualname__)
        return response
    else:
        sending.close()
        return response  # a subclass that does wait cannot be asked
    head = next(message for message in sent if message["type"] == "http.response.start")
    if head["status"] != response.status:
        return response  # it answered by itself, a preflight: that is not what was refused
    fields = [
        Field((name.decode("latin-1"), value.decode("latin-1")), (name, value)) for name, value in head["headers"]
    ]
    return Response(response.kind, response.status, fields, response.body, response.violated)
