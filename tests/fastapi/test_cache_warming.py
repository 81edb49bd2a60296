"""Responses that are stored before clients ask, of decorated endpoints too, from where FastAPI's users stand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from apigate import Gateway
from apigate.core.context import current_context
from apigate.fastapi import GatewayMiddleware


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that runs as a server would run it: its lifespan first."""
    asked, told = asyncio.Queue[dict[str, Any]](), asyncio.Queue[dict[str, Any]]()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    lifespan = asyncio.create_task(app(scope, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await told.get())["type"] == "lifespan.startup.complete"

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://testserver") as client:
        yield client
    await asked.put({"type": "lifespan.shutdown"})
    await lifespan


URLS = ["http://testserver/pets", "http://testserver/pets?page=2"]


def shop(gateway: Gateway, runs: list[str], kind: str, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    if kind == "def":

        @app.get("/pets")
        @gateway.cache(ttl=60)
        def pets(request: Request) -> str:
            runs.append(str(request.url_for("pets")))
            return "pets"
    else:

        @app.get("/pets")
        @gateway.cache(ttl=60)
        async def pets(request: Request) -> str:
            runs.append(str(request.url_for("pets")))
            return "pets"

    return app


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_decorated_endpoint_is_warmed_without_a_word_in_the_log(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    gateway, runs = Gateway(throttle="1/day"), list[str]()
    gate = GatewayMiddleware(shop(gateway, runs, kind), gateway)

    async def warm() -> None:
        assert [await gate.warm(URLS), await gate.warm(URLS)] == [2, 0]
        assert current_context() is None
        async with serving(gate) as client:
            assert "hit" in (await client.get("/pets")).headers["cache-status"]

    asyncio.run(warm())
    assert len(runs) == 2
    assert not caplog.records


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_lifespan_of_an_app_may_warm_it(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    gateway, runs, counts = Gateway(), list[str](), list[int]()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        counts.append(await gateway.warm_async(URLS))
        yield

    app = shop(gateway, runs, kind, lifespan=lifespan)
    app.add_middleware(GatewayMiddleware, gateway=gateway)

    async def serve() -> None:
        async with serving(app) as client:
            assert "hit" in (await client.get("/pets?page=2")).headers["cache-status"]

    asyncio.run(serve())
    assert counts == [2]
    assert len(runs) == 2
    assert not caplog.records


def test_a_warmed_endpoint_has_the_app_and_what_its_lifespan_has_made() -> None:
    gateway, seen = Gateway(), list[tuple[Any, ...]]()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"database": "here"}

    app = FastAPI(lifespan=lifespan)
    app.root_path = "/api"
    app.add_middleware(GatewayMiddleware, gateway=gateway)

    @app.get("/pets")
    @gateway.cache(ttl=60)
    async def pets(request: Request) -> str:
        seen.append((request.app, request.state.database, str(request.url_for("pets"))))
        request.state.database = "mine"
        return "pets"

    @app.post("/warm")
    async def warm() -> int:
        return await gateway.warm_async(URLS)

    async def serve() -> None:
        async with serving(app) as client:
            assert (await client.post("/warm")).json() == 2
            assert "hit" in (await client.get("/pets")).headers["cache-status"]

    asyncio.run(serve())
    assert seen == [(app, "here", "http://testserver/api/pets")] * 2
