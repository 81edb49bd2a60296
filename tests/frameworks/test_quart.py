"""Quart behind `apigate.asgi`. Its router redirects a doubled or trailing slash, or ignores one where it is told to."""

import asyncio

import pytest
from quart import Quart, request

from apigate import Gateway, Method
from apigate.asgi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.frameworks.promises import FrameworkPromises, Shop, told


def statuses(app, gateway, *targets):
    shop = Shop(GatewayMiddleware(app, gateway), gateway, gateway.clock)
    return [shop.ask("GET", target).status_code for target in targets]


class TestQuart(FrameworkPromises):
    def wrapped(self, gateway, scarce, own):
        app = Quart(__name__)
        if own is not None:

            @app.errorhandler(own.error)
            async def answer(error):
                return "My words.", own.status

        @app.post("/orders")
        async def order():
            return told(request.scope["apigate"])

        @app.get("/pets/<int:pet_id>")
        async def pet(pet_id):
            return told(request.scope["apigate"])

        @app.get("/scarce")
        def use():  # a plain function: Quart runs it in a thread
            return scarce("a key")

        return GatewayMiddleware(app, gateway)

    def test_its_startup_runs_and_its_own_client_passes_the_gate(self):
        seen = []
        app = Quart(__name__)
        app.asgi_app = GatewayMiddleware(app.asgi_app, Gateway(throttle="2/minute", clock=FakeClock()))
        app.before_serving(lambda: seen.append("up"))
        app.after_serving(lambda: seen.append("down"))
        app.get("/pets")(lambda: "pets")

        async def visit():
            async with app.test_app() as running:
                return (await running.test_client().get("/pets")).headers["ratelimit"]

        assert asyncio.run(visit()) == '"global";r=1;t=30'
        assert seen == ["up", "down"]

    @pytest.mark.parametrize("setting", ["TESTING", "DEBUG", "NEITHER"])
    def test_a_view_in_a_thread_knows_its_client_in_every_mode(self, setting):
        gateway = Gateway(throttle="100/second", clock=FakeClock())
        app = Quart(__name__)
        app.config[setting] = True

        @app.get("/report")
        @gateway.throttle("1/minute", per="client")
        def report():
            return "a report"

        assert statuses(app, gateway, "/report", "/report") == [200, 429]

    def test_a_route_that_ignores_its_last_slash_has_one_bucket(self):
        gateway = Gateway(methods={"GET /pets": Method(throttle="2/minute")}, clock=FakeClock())
        app = Quart(__name__)
        app.get("/pets", strict_slashes=False)(lambda: "pets")
        assert statuses(app, gateway, "/pets", "/pets/", "/pets", "/pets/") == [200, 200, 429, 429]

    def test_a_redirect_to_the_clean_path_is_a_request_too(self):
        gateway = Gateway(methods={"GET /pets": Method(throttle="2/minute")}, clock=FakeClock())
        app = Quart(__name__)
        app.get("/pets/")(lambda: "pets")
        assert statuses(app, gateway, "/pets", "/pets/", "/pets/") == [308, 200, 429]

    @pytest.mark.parametrize(
        ("root", "path"), [("/shop", "/shop/orders"), ("/shop", "/shoporders"), ("/shop/", "/shop/orders")]
    )
    def test_a_root_that_ends_within_a_segment_makes_no_other_method(self, root, path):
        """Hypercorn sets `root_path` and leaves the path as it was sent."""
        shop = self.shop()
        assert [shop.ask("POST", path, root).status_code for _ in range(3)] == [200, 200, 429]
