"""The routes of Starlette and FastAPI apps: nested routers, mounts, hosts, websockets, class-based endpoints.

Rule: whether a route matches is asked of the route itself, with the scope as the app will have it; what is compiled
here is only which routes are worth asking, by the literal segments that their templates begin with and by the number of
segments. The first full match counts, as in the framework.

FastAPI from 0.137 on keeps included routers as nodes of a tree, whose `effective_route_contexts` are flattened here.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast, final

from starlette import routing as framework
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import Response as StarletteResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Router, compile_path

from apigate.core.endpoints import VERBS, Endpoint, Served, marks_of_class, marks_on, method_name
from apigate.core.message import Request, Response
from apigate.core.native import asgi_request, staged_path
from apigate.routing.starlette_layers import App, Scope, has_cors_layer, root_path_of, router_of, through_cors

__all__ = ["StarletteRouting", "answered", "routing_of", "served"]

Matches: TypeAlias = Callable[[Scope], tuple[Match, Scope]]

_DEEPEST = 4
_REMEMBERED = 4_096
_LONGEST = 200
_ROUTERS = 64
_WEBSOCKET = "websocket"
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_OWN = ("starlette.routing", "fastapi.routing")
_WITHIN_A_SEGMENT = frozenset(
    # the framework's own convertors, but for `path`
    {
        "[^/]+",
        "[0-9]+",
        r"[0-9]+(\.[0-9]+)?",
        "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
    }
)


def routing_of(app: App) -> "StarletteRouting | None":
    """The routes of the Starlette app, or router, at the end of a stack of middleware."""
    return None if router_of(app) is None else StarletteRouting(app)


def _sent_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path


_route_path: Callable[[Scope], str] = getattr(framework, "get_route_path", _sent_path)
"""What of a path is left for a router: before Starlette 0.33 a mount cut the path, now it only extends `root_path`."""


# ---- the table


@final
class StarletteRouting:
    """Finds the endpoints of one app. The table is compiled at the first request, and anew when routes have changed.

    Args:
        app: What the gate stands around.

    Attributes:
        path_has_root: Whether the framework takes `root_path` off the path by itself.
    """

    path_has_root: bool = _route_path is not _sent_path

    def __init__(self, app: App) -> None:
        """Nothing is read before the first request: apps add routes until then."""
        self._app = app
        self._table: _Table | None = None

    def find(self, request: Request) -> Endpoint | None:
        """The endpoint that the framework will call."""
        table, native = self._current(), request.native
        root: str = native.get("root_path") or ""
        key = (native["type"], request.method, root, native.get("path", request.path), request.prefix)
        return table.known.get(key) or self._found(request, table, key)

    def _found(self, request: Request, table: "_Table", key: tuple[str, ...]) -> Endpoint | None:
        """The endpoint of a request that is not known; noted where nothing but the key decides."""
        root, path = self._place(request, table)
        way = table.top.way(_scope(request, root, path))
        endpoint = way[-1].endpoint(request.method) if way else None
        if endpoint is not None and not table.top.varies and sum(map(len, key)) < _LONGEST:
            if len(table.known) >= _REMEMBERED:
                table.known.clear()
            table.known[key] = endpoint
        return endpoint

    def _current(self) -> "_Table":
        table = self._table
        if table is None:
            return self._compiled()
        for router, routes in table.read:
            if router.routes != routes:
                return self._compiled()
        return table

    def _compiled(self) -> "_Table":
        read: list[tuple[Router, list[BaseRoute]]] = []
        top = _Level(cast("Router", router_of(self._app)), "", read)
        for entry in top.entries():
            _document(entry.route)
        self._table = table = _Table(top, read, root_path_of(self._app), {})
        return table

    def _place(self, request: Request, table: "_Table") -> tuple[str, str]:
        """`root_path` and `path` as the app will have them."""
        native = request.native
        path: str | None = native.get("path")
        if path is None:  # a request that is only asked about
            return table.root, request.path
        root: str = native.get("root_path") or ""
        if request.prefix:  # of a stage: the gate moves it to the root
            path = staged_path(root, path, request.prefix, has_root=self.path_has_root)
            root += request.prefix
        return table.root or root, path

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint there is."""
        for entry in self._current().top.entries():
            if entry.below is None:
                yield from entry.endpoints()

    def document(self) -> None:
        """Add the refusals of decorated endpoints to FastAPI's routes."""
        self._compiled()

    @property
    def has_cors(self) -> bool:
        """Whether a CORSMiddleware stands in the app, or in one that is mounted in it."""
        apps = [self._app, *(getattr(entry.route, "app", None) for entry in self._current().top.entries())]
        return any(map(has_cors_layer, apps))

    def with_cors(self, request: Request, response: Response) -> Response:
        """The refusal as the CORSMiddleware on the request's way let it out; nothing else of the app runs."""
        table = self._current()
        way = table.top.way(_scope(request, *self._place(request, table)))
        apps = [self._app, *(entry.route.app for entry in way if entry.below is not None)]
        return through_cors(apps, request, response)


class _Table(NamedTuple):
    """The routes as they were when they were read.

    Attributes:
        top: Those of the router itself.
        read: Every router that was read, with the routes it had.
        root: What the app puts in place of `root_path`.
        known: Endpoints found before, by all that they were found by.
    """

    top: "_Level"
    read: list[tuple[Router, list[BaseRoute]]]
    root: str
    known: dict[tuple[str, ...], Endpoint]


@final
class _Level:
    """The routes of one router, with those below them.

    Attributes:
        varies: Whether anything else than type, verb and path decides somewhere.
    """

    def __init__(self, router: Router, prefix: str, read: list[tuple[Router, list[BaseRoute]]]) -> None:
        self._entries = [_Entry(route, matches, prefix, read) for route, matches in _flat(router, read)]
        self.varies: bool = any(entry.varies for entry in self._entries)
        depths = {entry.literal[:depth] for entry in self._entries for depth in range(len(entry.literal) + 1)}
        self._index = {key: tuple(e for e in self._entries if e.literal == key[: len(e.literal)]) for key in depths}

    def way(self, scope: Scope) -> "tuple[_Entry, ...]":
        """The routes that a request takes, outermost first; the last has an endpoint unless it was lost on the way.

        Empty where the framework answers 404, 405 or a redirect: a route that matches but for its verb is not taken.
        """
        try:
            path = _route_path(scope)
            slashes = path.count("/")
            for entry in self._worth_asking(path):
                if entry.slashes not in (None, slashes):
                    continue
                match, child = entry.matches(scope)
                if match is Match.FULL:
                    return (entry, *entry.way(scope, child))
        except Exception:  # noqa: BLE001 - a convertor of the user's may raise anything; it will in the app too
            return ()
        return ()

    def _worth_asking(self, path: str) -> "tuple[_Entry, ...]":
        segments = tuple(path.split("/", _DEEPEST + 1)[1 : _DEEPEST + 1])
        for depth in range(len(segments), -1, -1):
            found = self._index.get(segments[:depth])
            if found is not None:
                return found
        return ()

    def entries(self) -> "Iterator[_Entry]":
        """Every route, those below others after them."""
        for entry in self._entries:
            yield entry
            if entry.below is not None:
                yield from entry.below.entries()


@final
class _Entry:
    """One route with what is below it.

    Attributes:
        route: The route, or what FastAPI keeps of one that was included.
        matches: Asks it.
        literal: The segments that every path it matches begins with.
        slashes: How many slashes every path it matches has; None where they differ.
        below: The routes of what is mounted there, where these can be read.
        varies: See `_Level`.
    """

    def __init__(self, route: Any, matches: Matches, prefix: str, read: list[tuple[Router, list[BaseRoute]]]) -> None:
        self.route = route
        self.matches = matches
        is_own = getattr(matches, "__module__", "") in _OWN  # else a class of the user's, which may ask for anything
        known = _known_template(route) if is_own else None
        self.literal: tuple[str, ...] = () if known is None else _literal(known)
        self.slashes: int | None = None if known is None else _slashes(route, known)
        called = hasattr(route, "endpoint")
        router = None if called else router_of(getattr(route, "app", None))
        template = _template(route) if router is None else _template(route).removesuffix("/{path+}")
        self._template = prefix + template
        self._opaque = router is None and not called
        self._root = "" if router is None else root_path_of(route.app)
        self.below: _Level | None = None if router is None else _Level(router, self._template, read)
        self.varies: bool = not is_own or isinstance(route, Host) or bool(self.below and self.below.varies)
        self._endpoints: dict[str, Endpoint | None] = {}

    def way(self, scope: Scope, child: Scope) -> "tuple[_Entry, ...]":
        """The rest of a request's way."""
        if self.below is None:
            return ()
        scope = {**scope, **child}
        if self._root:
            scope["root_path"] = self._root
        return self.below.way(scope)

    def endpoint(self, verb: str) -> Endpoint | None:
        """The endpoint for a verb, or None where there is none after all."""
        verb = verb.upper()
        if verb not in VERBS or (self._opaque and verb == "OPTIONS"):  # nobody has said that it answers OPTIONS
            verb = "*"
        if verb not in self._endpoints:
            self._endpoints[verb] = None if self.below is not None else self._made(verb)
        return self._endpoints[verb]

    def _made(self, verb: str) -> Endpoint | None:
        called: Any = getattr(self.route, "endpoint", None)
        marks = marks_on(called)
        if isinstance(called, type):
            if verb != "*" and not _has_handler(called, verb):
                return None
            marks += marks_of_class(called, verb, {"get": "on_connect"} if hasattr(called, "on_connect") else None)
        return Endpoint(method_name(verb, self._template or "/"), marks, called)

    def endpoints(self) -> Iterator[Endpoint]:
        """One for each verb that the route names."""
        verbs: set[str] = set(getattr(self.route, "methods", None) or ())
        called: Any = getattr(self.route, "endpoint", None)
        if isinstance(called, type):
            verbs = verbs or {verb for verb in VERBS if hasattr(called, verb.lower())}
        for verb in sorted(verbs - {"HEAD"} or verbs or {"*" if self._opaque else "GET"}):
            endpoint = self.endpoint(verb)
            if endpoint is not None:
                yield endpoint


def _flat(router: Router, read: list[tuple[Router, list[BaseRoute]]]) -> Iterator[tuple[Any, Matches]]:
    """The routes in the order they are asked, those of included routers among them, each with what asks it."""
    routes = list(router.routes)
    read.append((router, routes))
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route, route.matches
            continue
        _note_included(route, read)
        for context in contexts():
            original = context.original_route
            if getattr(original.matches, "__module__", "") not in _OWN:
                yield context, _within(context)
            else:
                effective = context.starlette_route or context
                yield effective, effective.matches


def _note_included(route: Any, read: list[tuple[Router, list[BaseRoute]]]) -> None:
    """Note what an included router had, and those included in it."""
    router: Router = route.original_router
    routes = list(router.routes)
    read.append((router, routes))
    for each in routes:
        if hasattr(each, "effective_route_contexts"):
            _note_included(each, read)


def _within(context: Any) -> Matches:
    """Asks an included route of a user's own class as FastAPI does: its place is told by the scope."""

    def matches(scope: Scope) -> tuple[Match, Scope]:
        found: tuple[Match, Scope] = context.original_route.matches(
            {**scope, "fastapi": {"effective_route_context": context}}
        )
        return found

    return matches


def _scope(request: Request, root: str, path: str) -> Scope:
    """The request's scope as the app's routes will read it."""
    scope = {**request.native, "method": request.method, "path": path, "root_path": root}
    scope.pop("fastapi", None)  # what a FastAPI app further out left there about itself
    return scope


def _template(route: Any) -> str:
    """The route's template in our form, where a parameter that takes in slashes is greedy: `{path+}`."""
    template: str = getattr(route, "path_format", "/{path+}")  # a Host, or a kind of route that we do not know
    convertors: Mapping[str, Any] = {} if isinstance(route, Host) else getattr(route, "param_convertors", {})
    for name, convertor in convertors.items():
        if getattr(convertor, "regex", "") == ".*":
            template = template.replace(f"{{{name}}}", f"{{{name}+}}")
    return template


def _known_template(route: Any) -> str | None:
    """The route's template as the framework has it, of a mount with the rest of the path as its last parameter.

    None where the route goes by another regular expression than its path's, say one that ignores letter case.
    """
    path: str | None = getattr(route, "path", None)
    if path is None:
        return None
    pattern, template, _ = compile_path(f"{path}/{{path:path}}" if isinstance(route, Mount) else path)
    return template if pattern == getattr(route, "path_regex", None) else None


def _literal(template: str) -> tuple[str, ...]:
    """The segments before the first with a parameter, as far as they are looked at."""
    segments = template.split("/")[1:]
    first = next((place for place, segment in enumerate(segments) if "{" in segment), len(segments))
    return tuple(segments[: min(first, _DEEPEST)])


def _slashes(route: Any, template: str) -> int | None:
    """How many slashes there are in each path that fits a template; None where a parameter may take in some."""
    convertors: Mapping[str, Any] = route.param_convertors
    within = all(getattr(convertor, "regex", "") in _WITHIN_A_SEGMENT for convertor in convertors.values())
    return template.count("/") if within else None


def _has_handler(view: Any, verb: str) -> bool:
    """Whether a class-based endpoint serves a verb, as far as that can be seen."""
    if getattr(view, "dispatch", None) is not HTTPEndpoint.dispatch:
        return True
    return hasattr(view, verb.lower()) or (verb == "HEAD" and hasattr(view, "get"))


def _document(route: Any) -> None:
    """Add to a FastAPI route what its marks refuse with, where its author has not said so already."""
    for each in (route, getattr(route, "original_route", None)):
        said: Mapping[int | str, Any] | None = getattr(each, "responses", None)
        if said is None:
            continue
        marks = reversed(marks_on(getattr(each, "endpoint", None)))
        refusals = dict(mark.refusal for mark in marks if mark.refusal is not None)
        added = {status: refusal for status, refusal in refusals.items() if not {status, str(status)} & said.keys()}
        if added:
            cast("Any", each).responses = {**said, **added}


# ---- where no gate stands around the app


def served(arguments: tuple[object, ...]) -> Served | None:
    """The request or websocket among a view's arguments."""
    scope = next((_scope_of(each) for each in arguments if isinstance(each, HTTPConnection)), None)
    router = None if scope is None else scope.get("router")
    if scope is None or not isinstance(router, Router):
        return None
    root: str = scope.get("app_root_path", scope.get("root_path", ""))  # before mounts added to it
    path: str = scope["path"]
    if _route_path is _sent_path:
        path = scope.get("root_path", "")[len(root) :] + path
    request = asgi_request({**scope, "root_path": root, "path": path})
    endpoint = _routing_within(router).find(request)
    if endpoint is None:
        return None
    respond = _close if scope["type"] == _WEBSOCKET else _respond
    return Served(request, endpoint.method, endpoint.marks, respond, outer=scope.get("apigate"))


def _scope_of(connection: Any) -> Scope:
    scope: Scope = connection.scope
    return scope


_routings: dict[int, StarletteRouting] = {}  # by the identity of their routers, which they keep alive


def _routing_within(router: Router) -> StarletteRouting:
    routing = _routings.get(id(router))
    if routing is None:
        if len(_routings) >= _ROUTERS:
            _routings.clear()
        routing = _routings[id(router)] = StarletteRouting(router)
    return routing


def _respond(response: Response) -> StarletteResponse:
    made = StarletteResponse(response.body, response.status)
    made.raw_headers = list(response.raw)
    return made


def _close(response: Response) -> None:
    """Refuse a websocket: what its endpoint returns is sent to nobody."""
    raise WebSocketException(_POLICY_VIOLATION, response.kind)


def answered(error: Exception, status: int, headers: Mapping[str, str]) -> Exception:
    """The same error as one that Starlette answers by itself.

    Args:
        error: The error.
        status: The status it is answered with.
        headers: The fields.
    """
    kind = _answered_kind(cast("Any", type(error)))
    made: Exception = kind.__new__(kind, *error.args)
    vars(made).update(vars(error), status_code=status, detail=str(error), headers=dict(headers))
    return made


@cache
def _answered_kind(kind: Any) -> Any:
    """A class that is both, and reads as the first."""
    bases: tuple[type, ...] = (kind, HTTPException)
    named = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__", "__str__", "__repr__")}
    return type(kind.__name__, bases, named)
