"""Bottle behind `apigate.wsgi`. Its router takes a path as it was sent, but for bytes that are no UTF-8."""

import pytest
from bottle import Bottle, HTTPResponse, request

from apigate import Gateway
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware
from tests.frameworks.promises import FrameworkPromises, Shop, told


class TestBottle(FrameworkPromises):
    def wrapped(self, gateway, scarce, own):
        app = Bottle()
        app.post("/orders")(lambda: told(request.environ["apigate.context"]))
        app.get("/pets/<pet_id:int>")(lambda pet_id: told(request.environ["apigate.context"]))
        app.get("/scarce")(lambda: scarce("a key"))
        if own is not None:
            app.install(catching(own))
        return GatewayMiddleware(app, gateway)

    @pytest.mark.parametrize("catchall", [True, False])
    def test_a_generator_may_be_throttled_at_its_first_step(self, catchall):
        gateway = Gateway(throttle="100/second", clock=FakeClock())
        app = Bottle()
        app.catchall = catchall
        piece = gateway.throttle("1/minute", key=lambda: "all")(lambda: "piece")

        @app.get("/stream")
        def stream():
            yield piece()

        shop = Shop(GatewayMiddleware(app, gateway), gateway, FakeClock())
        assert [shop.ask("GET", "/stream").status_code for _ in range(2)] == [200, 429]

    def test_an_error_page_takes_no_refusal_from_the_gate(self):
        gateway = Gateway(throttle="100/second", clock=FakeClock())
        app = Bottle()
        app.error(500)(lambda error: "our page")
        app.get("/scarce")(gateway.throttle("1/minute", key=lambda: "all")(lambda: "piece"))
        app.get("/broken")(lambda: 1 / 0)
        shop = Shop(GatewayMiddleware(app, gateway), gateway, FakeClock())
        assert [shop.ask("GET", "/scarce").status_code for _ in range(2)] == [200, 429]
        broken = shop.ask("GET", "/broken")
        assert (broken.status_code, broken.text) == (500, "our page")

    @pytest.mark.parametrize("target", ["/orders%FF", "/%FForders", "/orders%E2%82"])
    def test_bytes_that_it_leaves_out_make_no_other_method(self, target):
        shop = self.shop()
        asked = [shop.ask("POST", target) for _ in range(3)]
        assert [response.status_code for response in asked] == [200, 200, 429]
        assert asked[0].json()["method"] == "POST /orders"


def catching(own):
    def plugin(callback):
        def called(*args, **fields):
            try:
                return callback(*args, **fields)
            except own.error:
                return HTTPResponse("My words.", own.status)

        return called

    return plugin
