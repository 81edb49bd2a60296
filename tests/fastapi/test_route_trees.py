"""The compiled table against the framework: random trees of routes, random requests, and who was really called."""

import asyncio
import re
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from fastapi import APIRouter, FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute

from apigate.core.endpoints import set_mark
from apigate.core.native import asgi_request
from apigate.routing import routing_of
from tests.fastapi.asking import asked, scope_of, shaken

LITERALS = ["a", "b", "a.b"]
CONVERTORS = {"{}": "{}", "{:int}": "{}", "{:path}": "{+}", "x{}": "x{}"}
"""How a segment with a parameter is written, and how we write it; the name goes in."""

segments = st.sampled_from([*LITERALS, *LITERALS, *CONVERTORS])
paths = st.lists(segments, max_size=3).map(tuple)
prefixes = st.lists(segments.filter(lambda segment: segment != "{:path}"), max_size=2).map(tuple)
verbs = st.sampled_from([("GET",), ("POST",), ("GET", "POST"), ("OPTIONS",)])
routes = st.tuples(st.sampled_from(["route", "class", "websocket"]), paths, st.booleans(), verbs)


def inner(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    kinds = st.sampled_from(["include", "router", "starlette", "fastapi"])
    return st.tuples(kinds, prefixes, st.lists(children, min_size=1, max_size=3))


trees = st.lists(st.recursive(routes, inner, max_leaves=6), min_size=1, max_size=4)
kinds = st.sampled_from(["GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "websocket"])
free = st.lists(st.sampled_from(["a", "b", "a.b", "1", "xa", "", "é"]), max_size=5).map("/".join)
aimed = st.tuples(st.integers(0, 50), st.lists(st.sampled_from(["1", "1", "a", "xa", "é"]), min_size=8, max_size=8))
requests = st.lists(st.tuples(kinds, free | aimed | aimed), min_size=8, max_size=16)
"""Paths of any kind, and such as fit the template of some endpoint: few of the former get below a mount."""


class Sign:
    """A mark of no gateway."""

    owner = None
    refusal: tuple[int, dict[str, Any]] = (429, {})


@dataclass
class Build:
    """A tree made into an app, with what every endpoint is and who was called."""

    names: Any = field(default_factory=count)
    expected: dict[int, tuple[str, Sign]] = field(default_factory=dict)
    called: list[int] = field(default_factory=list)
    routers: list[tuple[Any, str]] = field(default_factory=list)

    def written(self, path: tuple[str, ...]) -> tuple[str, str]:
        """The path for the framework, and the template as it should be read."""
        theirs = ours = ""
        for segment in path:
            name = f"p{next(self.names)}"
            theirs += "/" + segment.replace("{", "{" + name)
            ours += "/" + CONVERTORS.get(segment, segment).replace("{", "{" + name)
        return theirs, ours

    def target(self, path: str | tuple[int, list[str]]) -> str:
        """A path as it is, or one that fits the template of an endpoint."""
        if isinstance(path, str):
            return f"/{path}"
        number, values = path
        templates = [template for template, _ in self.expected.values()]
        left = iter(values)
        return re.sub(
            r"\{\w+(\+?)\}",
            lambda found: f"{next(left, 'a')}/b" if found[1] else next(left, "1"),
            templates[number % len(templates)],
        )

    def add(self, router: Any, tree: list[Any], prefix: str = "") -> None:
        """Add routes to a router that stands at `prefix`."""
        self.routers.append((router, prefix))
        for kind, path, *more in tree:
            if kind == "include":
                path = path or ("a",)  # FastAPI wants a prefix where a path within is empty  # noqa: PLW2901
            theirs, ours = self.written(path)
            if kind in ("include", "router", "starlette", "fastapi"):
                self.add_inner(router, kind, theirs, prefix + ours, more[0])
            else:
                slash, verbs = more
                end = "/" if slash or not path else ""
                self.add_endpoint(router, kind, theirs + end, prefix + ours + end, verbs)

    def add_inner(self, router: Any, kind: str, theirs: str, ours: str, tree: list[Any]) -> None:
        inner: Any
        if kind == "include" and isinstance(router, (APIRouter, FastAPI)):
            inner = APIRouter()
            self.add(inner, tree, ours)
            router.include_router(inner, prefix=theirs)
            return
        inner = FastAPI(openapi_url=None) if kind == "fastapi" else Starlette() if kind == "starlette" else Router()
        self.add(inner, tree, ours)
        routes_of(router).append(Mount(theirs, app=inner))

    def add_endpoint(self, router: Any, kind: str, theirs: str, ours: str, verbs: tuple[str, ...]) -> None:
        number = next(self.names)
        sign = Sign()
        self.expected[number] = (ours, sign)

        async def serve(request: Any) -> PlainTextResponse:
            self.called.append(number)
            return PlainTextResponse("called")

        async def operate() -> str:
            self.called.append(number)
            return "called"

        async def handle(view: HTTPEndpoint, request: Any) -> PlainTextResponse:
            return await serve(request)

        async def talk(websocket: Any) -> None:
            self.called.append(number)
            await websocket.close()

        for function in (serve, operate, handle, talk):
            set_mark(function, sign)
        if kind == "websocket":
            routes_of(router).append(WebSocketRoute(theirs, talk))
        elif kind == "class":
            view = type("View", (HTTPEndpoint,), {verb.lower(): handle for verb in verbs})
            routes_of(router).append(Route(theirs, view))
        elif isinstance(router, (APIRouter, FastAPI)):
            router.add_api_route(theirs, operate, methods=list(verbs))
        else:
            routes_of(router).append(Route(theirs, serve, methods=list(verbs)))


def routes_of(router: Any) -> list[Any]:
    routes: list[Any] = getattr(router, "router", router).routes
    return routes


async def compare(build: Build, app: Any, routing: Any, wanted: list[tuple[str, Any]]) -> None:
    for asked_by, path in wanted:
        kind, verb = ("websocket", "GET") if asked_by == "websocket" else ("http", asked_by)
        target = build.target(path)
        found = routing.find(asgi_request(scope_of(kind, target, method=verb)))
        build.called.clear()
        answer = await (asked if kind == "http" else shaken)(app, scope_of(kind, target, method=verb))
        assert answer.error is None, answer.error
        if not build.called:
            assert found is None, (verb, target, answer.status)
            continue
        template, mark = build.expected[build.called[0]]
        assert found is not None, (verb, target)
        assert found.method == f"{'GET' if verb == 'HEAD' else verb} {template}"
        assert found.marks == (mark,)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tree=trees,
    later=trees,
    place=st.integers(0, 50),
    wanted=requests,
    whole=st.sampled_from(["fastapi", "starlette"]),
)
def test_the_table_says_who_is_called(tree, later, place, wanted, whole):
    build = Build()
    app: Any = FastAPI(openapi_url=None) if whole == "fastapi" else Starlette()
    build.add(app, tree)
    routing = routing_of(app)
    asyncio.run(compare(build, app, routing, wanted))
    router, prefix = build.routers[place % len(build.routers)]
    build.add(router, later, prefix)  # while it runs
    asyncio.run(compare(build, app, routing, wanted))
