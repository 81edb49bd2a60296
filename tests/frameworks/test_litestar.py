"""Litestar behind `apigate.asgi`. Its router takes doubled and trailing slashes off a path before it looks it up."""

from contextlib import asynccontextmanager

import pytest
from litestar import Litestar, Request, Response, asgi, get, post
from litestar.middleware import DefineMiddleware
from litestar.testing import TestClient
from litestar.types import Receive, Scope, Send

from apigate import Gateway, Method
from apigate.asgi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.frameworks.promises import FrameworkPromises, told


@post("/orders", status_code=200)
async def order(request: Request) -> dict:
    return told(request.scope["apigate"])


@get("/pets/{pet_id:int}")
async def pet(request: Request) -> dict:
    return told(request.scope["apigate"])


def litestar(*handlers, **settings):
    return Litestar(handlers, logging_config=None, **settings)  # its logging is the whole process's, so not in a test


class TestLitestar(FrameworkPromises):
    def wrapped(self, gateway, scarce, own):
        @get("/scarce", sync_to_thread=True)
        def use() -> str:
            return scarce("a key")

        def answer(request: Request, error: Exception) -> Response:
            return Response("My words.", status_code=own.status, media_type="text/plain")

        handlers = {} if own is None else {own.error: answer}
        return GatewayMiddleware(litestar(order, pet, use, exception_handlers=handlers), gateway)

    def test_its_lifespan_runs_behind_the_gate(self):
        seen = []

        @asynccontextmanager
        async def lifespan(app):
            seen.append("up")
            yield
            seen.append("down")

        gateway = Gateway(throttle="2/minute", clock=FakeClock())
        app = GatewayMiddleware(litestar(pet, lifespan=[lifespan]), gateway)
        with TestClient(app) as client:
            assert seen == ["up"]
            assert [client.get("/pets/7").status_code for _ in range(3)] == [200, 200, 429]
        assert seen == ["up", "down"]

    def test_a_handler_in_a_thread_knows_its_client(self):
        gateway = Gateway(throttle="100/second", clock=FakeClock())

        @gateway.throttle("1/minute", per="client")
        def report() -> str:
            return "a report"

        @get("/report", sync_to_thread=True)
        def reported() -> str:
            return report()

        app = GatewayMiddleware(litestar(reported), gateway)
        with TestClient(app) as client:
            assert [client.get("/report").status_code for _ in range(2)] == [200, 429]

    def test_as_its_own_middleware_it_does_not_see_what_no_route_answers(self):
        gateway = Gateway(throttle="2/minute", clock=FakeClock())
        with TestClient(litestar(pet, middleware=[DefineMiddleware(GatewayMiddleware, gateway=gateway)])) as client:
            assert {client.get("/nothing").status_code for _ in range(5)} == {404}
            assert [client.get("/pets/7").status_code for _ in range(3)] == [200, 200, 429]

    @pytest.mark.parametrize(
        ("root", "path"), [("/shop", "/shop/orders"), ("/shop", "/shoporders"), ("/shop/", "/shop/orders")]
    )
    def test_a_root_that_ends_within_a_segment_makes_no_other_method(self, root, path):
        shop = self.shop()
        assert [shop.ask("POST", path, root).status_code for _ in range(3)] == [200, 200, 429]

    def test_a_mount_answers_whatever_begins_with_its_path(self):
        """Where no segment ends, `* /files/{path+}` does not match; `*` does."""

        @asgi("/files", is_mount=True, copy_scope=True)
        async def files(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": str(scope["apigate"].method).encode()})

        methods = {"* /files/{path+}": Method(throttle="2/minute"), "*": Method(throttle="1/minute")}
        gateway = Gateway(methods=methods, clock=FakeClock())
        with TestClient(GatewayMiddleware(litestar(files), gateway)) as client:
            assert client.get("/files/a").text == "* /files/{path+}"
            assert client.get("/filesystem").text == "None"
            assert client.get("/filesystem").status_code == 429
