"""The routes of Starlette and FastAPI apps: nested routers, mounts, hosts, websockets, class-based endpoints.

Rule: whether a route matches is asked of the route itself; what is compiled here is only which routes are worth
asking, by the literal segments that their templates begin with. The first full match counts, as in the framework.

FastAPI from 0.137 on keeps included routers as nodes of a tree, whose `effective_route_contexts` are flattened here.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from copy import copy
from typing import Any, final

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response as StarletteResponse
from starlette.routing import BaseRoute, Host, Match, Router

from apigate.core.endpoints import Endpoint, Mark, Served, marks_of_class, marks_on, method_name
from apigate.core.message import Field, Request, Response
from apigate.core.native import asgi_request

__all__ = ["StarletteRouting", "routing_of", "served"]

Scope = MutableMapping[str, Any]  # Any: as the ASGI specification has it
App = Any  # an app, a middleware or a router of any kind: what it has is asked for by name

_DEEPEST = 4
_REMEMBERED = 4_096
_LONGEST = 200
_WEBSOCKET = "websocket"


def routing_of(app: App) -> "StarletteRouting | None":
    """The routes of the Starlette app, or router, at the end of a stack of middleware."""
    *_, last = _layers(app)
    return StarletteRouting(app, last) if isinstance(last, Router) else None


def _layers(app: App) -> Iterator[App]:
    """The middleware in front of a router, outermost first, and the router."""
    seen: set[int] = set()
    while id(app) not in seen:
        seen.add(id(app))
        yield app
        if isinstance(app, Router):
            return
        if isinstance(app, Starlette):
            if app.middleware_stack is None:
                yield app.router
                return
            app = app.middleware_stack
        else:
            app = getattr(app, "app", None)


@final
class StarletteRouting:
    """Finds the endpoints of one app. It is read anew when routes were added.

    Args:
        app: What the gate stands around.
        router: The router within it.
    """

    def __init__(self, app: App, router: Router) -> None:
        """Nothing is read before the first request: apps add routes until then."""
        self._app = app
        self._router = router
        self._read: _Level | None = None
        self._counts: list[tuple[Sequence[object], int]] = []
        self._known: dict[tuple[str, str, str], Endpoint] = {}

    def find(self, request: Request) -> Endpoint | None:
        """The endpoint that the framework will call."""
        level = self._read
        if level is None or any(len(routes) != count for routes, count in self._counts):
            level = self._level()
        native = request.native
        kind: str = native["type"]
        key = (kind, request.method, request.path)
        endpoint = self._known.get(key)
        if endpoint is None:
            scope = {
                "type": kind,
                "method": request.method,
                "path": request.path,
                "root_path": "",
                "headers": native.get("headers", ()),
                "path_params": {},
            }
            endpoint = level.find(scope, request.path)
            if endpoint is not None and not level.by_host and len(request.path) < _LONGEST:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[key] = endpoint
        return endpoint

    def _level(self) -> "_Level":
        self._counts = []
        level = _Level(self._router.routes, "", self._counts)
        self._known = {}
        self._read = level
        return level

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint there is."""
        return self._level().endpoints()

    @property
    def has_cors(self) -> bool:
        """Whether a CORSMiddleware stands in the app."""
        return self._cors() is not None

    def with_cors(self, request: Request, response: Response) -> Response:
        """The refusal as the app's CORSMiddleware lets it out; nothing else of the app runs."""
        layer = self._cors()
        return response if layer is None else _through(layer, request, response)

    def _cors(self) -> CORSMiddleware | None:
        app = self._app
        if isinstance(app, Starlette) and app.middleware_stack is None:
            app.middleware_stack = app.build_middleware_stack()  # as its first request would
        return next((layer for layer in _layers(app) if isinstance(layer, CORSMiddleware)), None)


@final
class _Level:
    """The routes of one router, with the mounts below them."""

    def __init__(self, routes: Sequence[BaseRoute], prefix: str, counts: list[tuple[Sequence[object], int]]) -> None:
        self.by_host = False
        entries = [_Entry(route, prefix, counts) for route in _flat(routes, counts)]
        self._entries = entries
        for entry in entries:
            self.by_host |= entry.by_host
        keys = {entry.literal[:depth] for entry in entries for depth in range(len(entry.literal) + 1)}
        self._index = {key: tuple(e for e in entries if e.literal == key[: len(e.literal)]) for key in keys}

    def find(self, scope: Scope, path: str) -> Endpoint | None:
        """The endpoint of a request.

        Args:
            scope: The request's scope, as the routes read it.
            path: What of its path is left for this router.
        """
        partial = None
        for entry in self._worth_asking(path):
            match, child = _matched(entry.route, scope)
            if match is Match.FULL:
                return entry.find(scope, child)
            if match is Match.PARTIAL:
                partial = entry
        del partial  # the framework answers 405 by itself
        return None

    def _worth_asking(self, path: str) -> "tuple[_Entry, ...]":
        segments = tuple(path.split("/", _DEEPEST + 1)[1 : _DEEPEST + 1])
        for depth in range(len(segments), -1, -1):
            found = self._index.get(segments[:depth])
            if found is not None:
                return found
        return ()

    def endpoints(self) -> Iterator[Endpoint]:
        for entry in self._entries:
            yield from entry.endpoints()


@final
class _Entry:
    """One route with what is below it."""

    def __init__(self, route: BaseRoute, prefix: str, counts: list[tuple[Sequence[object], int]]) -> None:
        self.route = route
        template: str = getattr(route, "path_format", "")
        below = _below(route)
        if below is not None:
            template = template.removesuffix("/{path}")
        self.literal = _literal(template)
        self.template = prefix + _canonical(template, getattr(route, "param_convertors", {}))
        self.below = None if below is None else _Level(below, self.template, counts)
        self.by_host = isinstance(route, Host) or bool(self.below and self.below.by_host)
        self._endpoints: dict[str, Endpoint] = {}
        _document(route)

    def find(self, scope: Scope, child: Scope) -> Endpoint | None:
        if self.below is None:
            verb: str = "GET" if scope["type"] == _WEBSOCKET else scope["method"]
            return self.endpoint(verb)
        scope = {**scope, **child}
        root, path = scope.get("root_path", ""), scope["path"]
        return self.below.find(scope, path.removeprefix(root))

    def endpoint(self, verb: str) -> Endpoint:
        """The endpoint for a verb."""
        method = method_name(verb, self.template or "/")
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            called: object = getattr(self.route, "endpoint", None)
            marks: tuple[Mark, ...] = marks_on(called)
            if isinstance(called, type):
                marks += marks_of_class(called, verb)
            endpoint = self._endpoints.setdefault(method, Endpoint(method, marks))
        return endpoint

    def endpoints(self) -> Iterator[Endpoint]:
        if self.below is not None:
            yield from self.below.endpoints()
            return
        verbs: set[str] = set(getattr(self.route, "methods", None) or {"GET"})
        for verb in sorted(verbs - {"HEAD"} or verbs):
            yield self.endpoint(verb)


def _document(route: Any) -> None:
    """Add to a FastAPI route what its marks refuse with, where its author has not said so already."""
    responses: object = getattr(route, "responses", None)
    if isinstance(responses, dict):
        for mark in marks_on(getattr(route, "endpoint", None)):
            status, response = mark.refusal
            responses.setdefault(status, response)


def _flat(routes: Sequence[BaseRoute], counts: list[tuple[Sequence[object], int]]) -> Iterator[Any]:
    """The routes in the order they are asked, those of included routers among them; notes how many there were."""
    counts.append((routes, len(routes)))
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
            continue
        _count_included(getattr(route, "original_router", None), counts)
        for context in contexts():
            yield getattr(context, "starlette_route", None) or context


def _count_included(router: object, counts: list[tuple[Sequence[object], int]]) -> None:
    routes: Sequence[object] = getattr(router, "routes", ())
    counts.append((routes, len(routes)))
    for route in routes:
        if hasattr(route, "effective_route_contexts"):
            _count_included(getattr(route, "original_router", None), counts)


def _below(route: BaseRoute) -> Sequence[BaseRoute] | None:
    """The routes of what is mounted, if it is a router or an app that has some."""
    if hasattr(route, "endpoint") or not hasattr(route, "app"):
        return None
    *_, last = _layers(route.app)
    return last.routes if isinstance(last, Router) else None


def _matched(route: BaseRoute, scope: Scope) -> tuple[Match, Scope]:
    """What the route says; one that fails to say it will fail in the framework too, and be answered there."""
    try:
        return route.matches(scope)
    except Exception:  # noqa: BLE001 - a convertor of the user's may raise anything
        return Match.NONE, {}


def _literal(template: str) -> tuple[str, ...]:
    """The segments before the first that has a parameter, as far as they are looked at."""
    segments = template.split("/")[1:]
    first = next((place for place, segment in enumerate(segments) if "{" in segment), len(segments))
    return tuple(segments[: min(first, _DEEPEST)])


def _canonical(template: str, convertors: MutableMapping[str, Any]) -> str:
    """The template in our form, where a parameter that takes in slashes is greedy: `{path+}`."""
    for name, convertor in convertors.items():
        if getattr(convertor, "regex", "") == ".*":
            template = template.replace(f"{{{name}}}", f"{{{name}+}}")
    return template


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


def served(arguments: tuple[object, ...]) -> Served | None:
    """The request or websocket among a view's arguments."""
    connection = next((each for each in arguments if isinstance(each, HTTPConnection)), None)
    if connection is None or connection.scope["type"] != "http":
        return None
    scope = connection.scope
    view: object = scope.get("endpoint")
    marks = marks_on(view)
    if isinstance(view, type):
        marks += marks_of_class(view, scope["method"])
    template = str(scope.get("root_path", "")) + getattr(scope.get("route"), "path_format", "/")
    request = asgi_request({**scope, "root_path": scope.get("app_root_path", "")})
    return Served(request, method_name(request.method, template), marks, _respond)


def _respond(response: Response) -> StarletteResponse:
    made = StarletteResponse(response.body, response.status)
    made.raw_headers = list(response.raw)
    return made
