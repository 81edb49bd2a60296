"""The cache around FastAPI and Starlette apps, by settings and by a decorator that only a gate can carry out."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from apigate import CachePolicy, ConfigurationError, Method, ResponseCache
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from tests.fastapi.asking import ask, asked, calling, gated, gateway, scope_of

FRESH = {"Cache-Control": "max-age=60"}


class Calls:
    """What an endpoint answers: how often it was run."""

    def __init__(self, **fields: str) -> None:
        self.number = 0
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}

    def __call__(self) -> PlainTextResponse:
        self.number += 1
        return PlainTextResponse(f"call {self.number}", headers=self.fields)


def fresh(**fields: str) -> Calls:
    return Calls(**{"Cache_Control": "max-age=60", **fields})


def app_with(view: Any, target: str = "/x", **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_api_route(target, view, **options)
    return app


def endpoint_of(calls: Calls) -> Any:
    def endpoint() -> PlainTextResponse:
        return calls()

    return endpoint


def cached(**settings: Any) -> Any:
    return gateway(**{"cache": ResponseCache(), **settings})


def bodies(app: Any, *targets: str, **more: Any) -> list[str]:
    return [ask(app, target, **more).body.decode() for target in targets]


def test_a_decorated_endpoint_has_a_copy_for_each_credential_that_the_key_names() -> None:
    calls, gate = Calls(), cached()
    app = gated(app_with(gate.cache(ttl=60, key={"headers": ["Authorization"]})(endpoint_of(calls))), gate)
    asked = ["Bearer a", "Bearer b", None, "Bearer a", "Bearer b", None]
    told = [ask(app, "/x", headers={"authorization": each} if each else {}).body for each in asked]
    assert told == [b"call 1", b"call 2", b"call 3"] * 2


class ByToken:
    """An authorizer: the principal is what the token says."""

    phase = Phase.AUTHORIZE

    def on_request(self, context: Any) -> None:
        context.principal = context.request.value("x-token")


# ---- by the settings of a stage


@pytest.mark.parametrize("where", ["last", "wrapped"])
def test_a_hit_is_answered_without_the_endpoint(where):
    view = fresh()
    app = gated(app_with(endpoint_of(view)), cached(), where)
    miss, hit = ask(app, "/x"), ask(app, "/x")
    assert (miss.body, hit.body, view.number) == (b"call 1", b"call 1", 1)
    assert "fwd=uri-miss; stored" in miss.headers["cache-status"]
    assert "hit" in hit.headers["cache-status"]
    assert hit.headers["content-type"] == miss.headers["content-type"]


def test_neither_dependencies_nor_the_body_are_looked_at_on_a_hit():
    runs = []
    app = FastAPI(dependencies=[Depends(lambda: runs.append("dependency"))])
    app.add_api_route("/x", endpoint_of(fresh()))
    gated(app, cached())
    assert bodies(app, "/x", "/x") == ["call 1", "call 1"]
    assert runs == ["dependency"]


def test_head_conditions_and_parts_are_answered_from_what_is_stored():
    view = fresh(ETag='"one"')
    app = gated(app_with(endpoint_of(view), methods=["GET", "HEAD"]), cached())
    ask(app, "/x")
    assert ask(app, "/x", "HEAD").headers["content-length"] == "6"
    assert ask(app, "/x", headers={"If-None-Match": '"one"'}).status == 304
    assert ask(app, "/x", headers={"Range": "bytes=5-"}).body == b"1"
    assert view.number == 1


def test_variants_and_queries_are_told_apart():
    app = gated(app_with(endpoint_of(fresh(Vary="Accept"))), cached())
    assert bodies(app, "/x", "/x?a=1", "/x") == ["call 1", "call 2", "call 1"]
    assert bodies(app, "/x", headers={"Accept": "text/csv"}) == ["call 3"]


def test_a_cookie_that_is_set_is_not_stored():
    app = FastAPI()

    @app.get("/x")
    def x(response: Response) -> str:
        response.headers.update(FRESH)
        response.set_cookie("id", "of alice")
        return "x"

    gated(app, cached())
    assert all("id=" in ask(app, "/x").headers["set-cookie"] for _ in range(2))


def test_each_principal_has_its_own():
    gate = cached(policies=[ByToken()], methods={"GET /x": Method(cache=CachePolicy(ttl=60))})
    app = gated(app_with(endpoint_of(Calls())), gate)
    for token, body in (("alice", "call 1"), ("bob", "call 2"), ("alice", "call 1")):
        assert bodies(app, "/x", headers={"X-Token": token}) == [body]


def test_an_unsafe_method_and_operators_invalidate():
    gate = cached(methods={"GET /x": Method(cache=CachePolicy(tags=["pets"]))})
    app = app_with(endpoint_of(fresh()))
    app.add_api_route("/x", lambda: None, methods=["PUT"])
    gated(app, gate)
    assert bodies(app, "/x", "/x") == ["call 1", "call 1"]
    ask(app, "/x", "PUT")
    assert bodies(app, "/x") == ["call 2"]
    gate.stage().cache.invalidate(tag="pets")
    assert bodies(app, "/x") == ["call 3"]


def test_rate_limit_fields_are_of_this_request_and_never_stored():
    app = gated(app_with(endpoint_of(fresh())), cached(client_throttle="3/minute"))
    answers = [ask(app, "/x") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers[:3]] == ["r=2", "r=1", "r=0"]


def test_a_stream_is_kept_as_it_passes():
    app, runs = FastAPI(), []

    @app.get("/x")
    async def x() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"1"
            yield b"2"

        runs.append(1)
        return StreamingResponse(chunks(), headers=FRESH)

    gated(app, cached())
    assert bodies(app, "/x", "/x") == ["12", "12"]
    assert runs == [1]


def test_events_never_enter():
    app = FastAPI()

    @app.get("/x")
    async def x() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"data: 1\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream", headers=FRESH)

    gated(app, cached())
    assert "hit" not in [ask(app, "/x") for _ in range(2)][1].headers["cache-status"]


def test_what_a_background_task_does_is_done_once():
    app, done = FastAPI(), []

    @app.get("/x")
    def x(tasks: BackgroundTasks, response: Response) -> str:
        response.headers.update(FRESH)
        tasks.add_task(done.append, 1)
        return "x"

    gated(app, cached())
    assert bodies(app, "/x", "/x") == ['"x"', '"x"']
    assert done == [1]


@pytest.mark.parametrize("verb", ["GET", "HEAD"])
def test_a_stale_response_is_served_while_a_task_asks_anew(verb):
    clock = FakeClock()
    view = Calls()
    policy = CachePolicy(ttl=60, stale_while_revalidate=60)
    gate = cached(clock=clock, methods={"GET /x": Method(cache=policy)})
    app = gated(app_with(endpoint_of(view), methods=["GET", "HEAD"]), gate)

    async def conversation() -> list[str]:
        await asked(app, scope_of("http", "/x"))
        clock.advance(70)
        stale = await asked(app, scope_of("http", "/x", method=verb))
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        after = await asked(app, scope_of("http", "/x"))
        return [stale.headers["age"], after.body.decode()]

    assert asyncio.run(conversation()) == ["70", "call 2"]
    assert view.number == 2


def test_query_with_a_content_is_not_refreshed_behind_its_back():
    """In the background its content would be gone, and the answer to an empty one stored in its place."""
    clock = FakeClock()
    app = FastAPI()
    seen = []

    @app.api_route("/x", methods=["QUERY"])
    async def x(request: Request) -> PlainTextResponse:
        seen.append(await request.body())
        return PlainTextResponse(seen[-1])

    policy = CachePolicy(ttl=60, stale_while_revalidate=60)
    gated(app, cached(clock=clock, methods={"QUERY /x": Method(cache=policy)}))
    assert ask(app, "/x", "QUERY", b"pets").body == b"pets"
    clock.advance(70)
    assert ask(app, "/x", "QUERY", b"pets").body == b"pets"
    assert seen == [b"pets", b"pets"]


# ---- by a decorator


def plain(app: Any, cache: Any, view: Calls) -> None:
    @app.get("/x")
    @cache
    def x() -> PlainTextResponse:
        return view()


def coroutine(app: Any, cache: Any, view: Calls) -> None:
    @app.get("/x")
    @cache
    async def x() -> PlainTextResponse:
        return view()


def router(app: Any, cache: Any, view: Calls) -> None:
    api = APIRouter(prefix="/x")

    @api.get("")
    @cache
    async def x() -> PlainTextResponse:
        return view()

    app.include_router(api)


def with_request(app: Any, cache: Any, view: Calls) -> None:
    @app.get("/x")
    @cache
    async def x(request: Request) -> PlainTextResponse:
        return view()


def starlette_route(app: Any, cache: Any, view: Calls) -> None:
    @cache
    async def x(request: Any) -> PlainTextResponse:
        return view()

    app.router.routes.append(Route("/x", x))


def starlette_class(app: Any, cache: Any, view: Calls) -> None:
    class Page(HTTPEndpoint):
        @cache
        async def get(self, request: Any) -> PlainTextResponse:
            return view()

    app.router.routes.append(Route("/x", Page))


def mounted(app: Any, cache: Any, view: Calls) -> None:
    @cache
    def x(request: Any) -> PlainTextResponse:
        return view()

    app.router.routes.append(Mount("/x", Starlette(routes=[Route("/", x)])))


KINDS = [plain, coroutine, router, with_request, starlette_route, starlette_class, mounted]


def target_of(kind: Any) -> str:
    return "/x/" if kind is mounted else "/x"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_decorated_endpoint_of_any_kind_is_cached(kind):
    gate, view, app = gateway(), Calls(), FastAPI()
    kind(app, gate.cache(ttl=60), view)
    gated(app, gate)
    miss, hit = ask(app, target_of(kind)), ask(app, target_of(kind))
    assert (miss.body, hit.body, view.number) == (b"call 1", b"call 1", 1)
    assert "hit" in hit.headers["cache-status"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_without_a_gate_a_decorated_endpoint_says_which_line_is_missing(kind):
    gate, view, app = gateway(), Calls(), FastAPI()
    kind(app, gate.cache(ttl=60), view)
    answer = ask(app, target_of(kind))
    assert isinstance(answer.error, ConfigurationError)
    assert "app.add_middleware(GatewayMiddleware, gateway=gateway)" in str(answer.error)
    assert view.number == 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_behind_an_app_that_hides_the_routes_it_says_so_too(kind):
    gate, view, app = gateway(), Calls(), FastAPI()
    kind(app, gate.cache(ttl=60), view)
    answer = ask(ASGIGate(calling(app), gate), target_of(kind))
    assert isinstance(answer.error, ConfigurationError)
    assert "hides the app's routes" in str(answer.error)
    assert view.number == 0


@pytest.mark.parametrize("order", ["cache outside", "throttle outside"])
def test_without_a_gate_a_throttle_beside_it_does_not_hide_that(order):
    gate, view, app = gateway(), Calls(), FastAPI()
    limit, cache = gate.throttle("3/minute"), gate.cache(ttl=60)
    both = (lambda f: cache(limit(f))) if order == "cache outside" else (lambda f: limit(cache(f)))
    with_request(app, both, view)
    assert isinstance(ask(app, "/x").error, ConfigurationError)


def test_without_a_gate_a_throttle_alone_works_though_its_stage_has_a_cache():
    gate, view, app = cached(), fresh(), FastAPI()
    with_request(app, gate.throttle("3/minute"), view)
    assert [ask(app, "/x").status for _ in range(4)] == [200, 200, 200, 429]
    assert view.number == 3


@pytest.mark.parametrize("order", ["cache outside", "throttle outside"])
def test_stacked_with_a_throttle_in_any_order_hits_are_counted_too(order):
    gate, view, app = gateway(), Calls(), FastAPI()
    limit, cache = gate.throttle("3/minute"), gate.cache(ttl=60)
    both = (lambda f: cache(limit(f))) if order == "cache outside" else (lambda f: limit(cache(f)))
    coroutine(app, both, view)
    gated(app, gate)
    assert [ask(app, "/x").status for _ in range(4)] == [200, 200, 200, 429]
    assert view.number == 1


def test_path_parameters_tell_responses_apart():
    gate, app, runs = gateway(), FastAPI(), []

    @app.get("/pets/{pk}")
    @gate.cache(ttl=60)
    def pet(pk: int) -> dict[str, int]:
        runs.append(pk)
        return {"pet": pk}

    gated(app, gate)
    assert bodies(app, "/pets/1", "/pets/2", "/pets/1") == ['{"pet":1}', '{"pet":2}', '{"pet":1}']
    assert runs == [1, 2]
    gate.stage().cache.invalidate(method="GET /pets/{pk}")
    ask(app, "/pets/1")
    assert runs == [1, 2, 1]


def test_signature_and_document_are_as_without_the_decorator():
    gate = gateway()

    def documented(cache: Any) -> Any:
        app = FastAPI()

        @app.get("/pets/{pk}")
        @cache
        async def pet(pk: int, page: int = 1) -> dict[str, int]:
            """One pet."""
            return {"pet": pk + page}

        return gated(app, gateway()).openapi()

    assert documented(gate.cache(ttl=60)) == documented(lambda function: function)


def test_an_endpoint_that_another_calls_is_simply_called():
    gate, inner, app = gateway(), Calls(), FastAPI()

    @app.get("/inner")
    @gate.cache(ttl=60)
    async def decorated() -> PlainTextResponse:
        return inner()

    @app.get("/outer")
    async def outer() -> PlainTextResponse:
        return await decorated()

    gated(app, gate)
    assert bodies(app, "/outer", "/outer", "/inner", "/inner") == ["call 1", "call 2", "call 3", "call 3"]


def test_a_background_task_simply_calls_a_decorated_endpoint():
    gate, inner, app = gateway(), Calls(), FastAPI()

    @gate.cache(ttl=60)
    async def decorated() -> PlainTextResponse:
        return inner()

    @app.get("/x")
    async def x(tasks: BackgroundTasks) -> str:
        tasks.add_task(decorated)
        return "x"

    gated(app, gate)
    assert ask(app, "/x").error is None
    assert inner.number == 1


def test_outside_of_any_request_a_decorated_endpoint_is_simply_called():
    gate = gateway()

    @gate.cache(ttl=60)
    async def later(n: int) -> int:
        return n

    @gate.cache(ttl=60)
    def now(n: int) -> int:
        return n

    assert asyncio.run(later(1)) == 1
    assert now(2) == 2
    assert asyncio.iscoroutinefunction(later)


def test_under_the_gate_of_another_gateway_an_endpoint_says_which_line_is_missing():
    app, gate = FastAPI(), gateway()
    app.get("/x")(gate.cache(ttl=60)(lambda: "x"))
    gated(app, gateway(cache=ResponseCache()))
    answer = ask(app, "/x")
    assert isinstance(answer.error, ConfigurationError)
    assert "without a gate of its gateway around the app" in str(answer.error)


def test_in_a_worker_thread_outside_of_any_request_it_cannot_tell_and_says_so():
    gate = gateway()

    @gate.cache(ttl=60)
    def now() -> int:
        return 1

    with pytest.raises(ConfigurationError, match="without a gate"):
        asyncio.run(run_in_threadpool(now))


def test_post_may_be_keyed_by_its_content():
    gate, app, runs = gateway(), FastAPI(), []

    @app.post("/x")
    @gate.cache(ttl=60, methods=["POST"])
    async def x(request: Request) -> str:
        runs.append(1)
        return (await request.body()).decode()

    gated(app, gate)
    assert [ask(app, "/x", "POST", data).body for data in (b"a", b"b", b"a")] == [b'"a"', b'"b"', b'"a"']
    assert len(runs) == 2


class ByKey:
    """An authorizer."""

    phase = Phase.AUTHORIZE

    def on_request(self, context: Any) -> None:
        context.principal = context.request.value("x-api-key")


@pytest.mark.parametrize("is_async", [False, True])
def test_what_an_endpoint_that_is_its_own_gate_answers_for_one_a_gate_further_out_does_not_keep(is_async: bool) -> None:
    inner = gateway(name="inner", policies=[ByKey()])

    def page(request: Request) -> str:
        return request.headers.get("x-api-key", "nobody")

    async def page_async(request: Request) -> str:
        return page(request)

    app = app_with(inner.throttle("9/second")(page_async if is_async else page))
    gated(app, gateway(cache=ResponseCache(policy=CachePolicy(60))))
    for who in ("alice", "bob"):
        assert ask(app, "/x", headers={"x-api-key": who}).body == f'"{who}"'.encode()
    assert ask(app, "/x").body == b'"nobody"'
