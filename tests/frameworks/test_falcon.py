"""Falcon behind `apigate.wsgi` and `apigate.asgi`. Its router takes slashes off the front, and fills a field with an
empty segment.
"""

import asyncio

import falcon
import falcon.asgi
import pytest
from falcon import testing

from apigate import Gateway, Method, Stage, asgi, wsgi
from apigate.staging import PathPrefix
from apigate.testing import FakeClock
from tests.frameworks.promises import FrameworkPromises, told


class Plain:
    def __init__(self, answer):
        self.answer = answer

    def on_get(self, request, response, **fields):
        response.media = self.answer(request.env)

    on_post = on_get


class Coroutine(Plain):
    async def on_get(self, request, response, **fields):
        response.media = self.answer(request.scope)

    on_post = on_get


class Order(Plain):
    on_get = None


class OrderCoroutine(Coroutine):
    on_get = None


def answering(own):
    def answer(request, response, error, fields):
        response.status, response.text = own.status, "My words."

    return answer


def answering_async(own):
    async def answer(request, response, error, fields):
        answering(own)(request, response, error, fields)

    return answer


class TestFalconOverWSGI(FrameworkPromises):
    def wrapped(self, gateway, scarce, own):
        app = falcon.App()
        app.add_route("/orders", Order(lambda environ: told(environ["apigate.context"])))
        app.add_route("/pets/{pet_id:int}", Plain(lambda environ: told(environ["apigate.context"])))
        app.add_route("/scarce", Plain(lambda environ: scarce("a key")))
        if own is not None:
            app.add_error_handler(own.error, answering(own))
        return wsgi.GatewayMiddleware(app, gateway)

    def test_its_own_client_meets_the_gate(self):
        client = testing.TestClient(self.shop().app)
        assert [client.simulate_post("/orders").status_code for _ in range(3)] == [200, 200, 429]

    def test_it_takes_a_path_without_a_slash_for_one_with_it_and_so_does_the_gate(self):
        shop = self.shop()
        asked = [shop.ask("POST", "orders") for _ in range(3)]
        assert [response.status_code for response in asked] == [200, 200, 429]
        assert asked[0].json()["method"] == "POST /orders"


class TestFalconOverASGI(FrameworkPromises):
    def wrapped(self, gateway, scarce, own):
        app = falcon.asgi.App()
        app.add_route("/orders", OrderCoroutine(lambda scope: told(scope["apigate"])))
        app.add_route("/pets/{pet_id:int}", Coroutine(lambda scope: told(scope["apigate"])))
        app.add_route("/scarce", Coroutine(lambda scope: scarce("a key")))
        if own is not None:
            app.add_error_handler(own.error, answering_async(own))
        return asgi.GatewayMiddleware(app, gateway)

    def test_its_own_client_meets_the_gate_and_its_lifespan_runs(self):
        seen = []

        class Lifespan:
            async def process_startup(self, scope, event):
                seen.append("up")

            async def process_shutdown(self, scope, event):
                seen.append("down")

        app = falcon.asgi.App(middleware=[Lifespan()])
        app.add_route("/pets", Coroutine(lambda scope: "pets"))
        gate = asgi.GatewayMiddleware(app, Gateway(throttle="2/minute", clock=FakeClock()))

        async def visit():
            async with testing.ASGIConductor(gate) as conductor:
                return [(await conductor.simulate_get("/pets")).status_code for _ in range(3)]

        assert asyncio.run(visit()) == [200, 200, 429]
        assert seen == ["up", "down"]

    def test_a_path_without_a_slash_which_it_would_serve_is_refused(self):
        shop = self.shop()
        assert {shop.ask("POST", "orders").status_code for _ in range(3)} == {400}
        assert shop.ask("POST", "/orders").status_code == 200

    @pytest.mark.parametrize(("route", "status"), [("/prod/pets", 200), ("/pets", 404)])
    def test_over_asgi_it_routes_on_the_path_with_the_stage_in_it(self, route, status):
        """It does not know `root_path`; the gateway's table, and Falcon over WSGI, have the path below it."""
        stage = Stage("prod", methods={"GET /pets": Method(throttle="1/minute")})
        gateway = Gateway(stages=[stage], stage_by=PathPrefix(), clock=FakeClock())
        app = falcon.asgi.App()
        app.add_route(route, Coroutine(lambda scope: "pets"))
        client = testing.TestClient(asgi.GatewayMiddleware(app, gateway))
        assert [client.simulate_get("/prod/pets").status_code for _ in range(2)] == [status, 429]


def test_a_field_takes_an_empty_segment_which_the_table_looks_up_as_it_was_sent():
    def served(methods):
        app = falcon.App()
        app.add_route("/pets/{pet_id}", Plain(lambda environ: environ["apigate.context"].method))
        gateway = Gateway(throttle="1000/second", methods=methods, clock=FakeClock())
        client = testing.TestClient(wsgi.GatewayMiddleware(app, gateway))
        return [client.simulate_get(path).json for path in ("/pets/7", "/pets/")]

    limit = Method(throttle="10/minute")
    assert served({"GET /pets/{pet_id}": limit}) == ["GET /pets/{pet_id}", None]
    assert served({"GET /pets/{pet_id}": limit, "GET /pets/": limit}) == ["GET /pets/{pet_id}", "GET /pets/"]


def test_a_sink_answers_whatever_begins_with_its_prefix():
    app = falcon.App()
    app.add_sink(lambda request, response: setattr(response, "media", request.env["apigate.context"].method), "/files")
    methods = {"* /files/{path+}": Method(throttle="10/minute"), "*": Method(throttle="1/minute")}
    gateway = Gateway(methods=methods, clock=FakeClock())
    client = testing.TestClient(wsgi.GatewayMiddleware(app, gateway))
    assert client.simulate_get("/files/a").json == "* /files/{path+}"
    assert client.simulate_get("/filesystem").json is None
