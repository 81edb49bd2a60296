"""What a plain adapter promises around any framework: one suite, which every framework's module derives.

A shop behind a gate is asked through httpx, as a server would ask it. `POST /orders` has a limit of its own, and the
handler of `/scarce` calls a function that throttles itself.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import httpx
import pytest

from apigate import Gateway, Method, Rate, Throttled
from apigate.testing import FakeClock

ADDRESS = "192.0.2.1"
DETOURS = {  # other ways to write /orders, and what becomes of them when its limit is used up
    "/orders/": 429,
    "//orders": 429,
    "//orders//": 429,
    "/%6Frders": 429,
    "/orders%2F": 429,
    "/orders%FF": 429,  # bytes that are no UTF-8: some leave them out
    "/orders%E2%82": 429,
    "/Orders": 404,  # no router of these ignores case
    "/orders%0A": 400,  # a pattern that ends in `$` would let it pass
    "/x/%2E%2E/orders": 400,
}
SLASHLESS = {  # the same, by gate: over WSGI it reads as with a slash, as some frameworks do
    "apigate.asgi": {"orders": 400, "http://shop.example/orders": 400},
    "apigate.wsgi": {"orders": 429, "http://shop.example/orders": 404},
}
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class Own(NamedTuple):
    """An error handler of the app: for `error`, it answers with this status, and "My words."."""

    error: type[Exception]
    status: int


class Shop(NamedTuple):
    """A framework's app behind its gate."""

    app: Any
    gateway: Gateway
    clock: FakeClock

    def ask(self, verb: str, target: str, root: str = "") -> httpx.Response:
        """Send one request; the app finds the target as it is written here, which httpx would not send so."""
        url = "http://shop.example"
        if self.app.__module__ == "apigate.wsgi":
            path = unquote_to_bytes(target).decode("latin-1")

            def serve_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
                return self.app(environ | {"PATH_INFO": path, "SCRIPT_NAME": root}, start_response)

            server = httpx.WSGITransport(serve_wsgi, remote_addr=ADDRESS, raise_app_exceptions=False)
            with httpx.Client(transport=server) as client:
                return client.request(verb, url)

        async def serve_asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
            asked = {"path": unquote(target), "raw_path": target.encode(), "root_path": root}
            await self.app(scope | asked, receive, send)

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(serve_asgi, client=(ADDRESS, 50_000))
            async with httpx.AsyncClient(transport=transport) as client:
                return await client.request(verb, url)

        return asyncio.run(asked())


def told(context: Any) -> dict[str, Any]:
    """What a handler reads of its request's context."""
    return {
        "method": context.method,
        "client": context.client,
        "remaining": {level: state.remaining for level, state in context.decision.levels.items()},
    }


class FrameworkPromises:
    """Every framework keeps these; a subclass says how its app is built, and where the framework differs."""

    def wrapped(self, gateway: Gateway, scarce: Any, own: Own | None) -> Any:
        """The app behind its gate, as the page shows it.

        It answers `POST /orders` and `GET /pets/{id}` with what `told` says of the context, and `GET /scarce` with what
        `scarce("a key")` gives, or with `own`.
        """
        raise NotImplementedError

    def shop(self, own: Own | None = None) -> Shop:
        clock = FakeClock()
        gateway = Gateway(
            throttle=Rate(1_000, burst=2_000), methods={"POST /orders": Method(client_throttle="2/minute")}, clock=clock
        )
        scarce = gateway.throttle(Rate(1), key=lambda key: key)(lambda key: key)
        return Shop(self.wrapped(gateway, scarce, own), gateway, clock)

    def test_a_third_order_is_refused_and_says_for_how_long(self):
        shop = self.shop()
        *admitted, refused = [shop.ask("POST", "/orders") for _ in range(3)]
        assert {response.status_code // 100 for response in admitted} == {2}
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["ratelimit"] == '"client-method";r=0;t=30'
        assert refused.json() == {
            "type": QUOTA_EXCEEDED,
            "title": "Too Many Requests",
            "status": 429,
            "detail": "The client-method limit of 2/minute was exceeded.",
            "violated-policies": ["client-method"],
        }

    def test_after_the_announced_wait_an_order_is_admitted(self):
        shop = self.shop()
        assert [shop.ask("POST", "/orders").status_code for _ in range(3)][2] == 429
        shop.clock.advance(29.999999)
        assert shop.ask("POST", "/orders").status_code == 429
        shop.clock.advance(0.000001)
        assert shop.ask("POST", "/orders").is_success

    def test_other_endpoints_are_served_and_carry_the_fields(self):
        shop = self.shop()
        assert [shop.ask("POST", "/orders").status_code for _ in range(3)][2] == 429
        response = shop.ask("GET", "/pets/7")
        assert response.status_code == 200
        assert response.headers.get_list("ratelimit-policy") == ['"global";q=2000;w=2']
        assert response.headers.get_list("ratelimit") == ['"global";r=1997']

    def test_a_handler_reads_the_context(self):
        response = self.shop().ask("POST", "/orders")
        assert response.json() == {
            "method": "POST /orders",
            "client": f"ip:{ADDRESS}",
            "remaining": {"global": 1999, "client-method": 1},
        }

    def test_what_no_route_answers_is_counted_too(self):
        shop = self.shop()
        assert shop.ask("GET", "/nothing").status_code == 404
        assert shop.gateway.stats()["default"]["*"] == {"admitted": 1}

    @pytest.mark.parametrize("own", [None, Own(Exception, 500)], ids=["nothing", "a handler that answers 500"])
    def test_a_throttled_function_is_answered_by_the_gate_and_what_was_taken_outside_is_given_back(self, own):
        shop = self.shop(own)
        admitted, refused = shop.ask("GET", "/scarce"), shop.ask("GET", "/scarce")
        assert (admitted.status_code, admitted.headers["ratelimit"]) == (200, '"global";r=1999')
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers.get_list("ratelimit") == ['"client-method";r=0;t=1']
        assert refused.json()["violated-policies"] == ["client-method"]
        assert shop.ask("GET", "/pets/7").headers["ratelimit"] == '"global";r=1998'
        assert shop.gateway.stats()["default"]["*"] == {"admitted": 2, "THROTTLED": 1}

    def test_an_app_that_answers_429_itself_keeps_its_words_and_what_was_taken_is_given_back(self):
        shop = self.shop(Own(Throttled, 429))
        refused = [shop.ask("GET", "/scarce") for _ in range(2)][1]
        assert (refused.status_code, refused.text) == (429, "My words.")
        assert "ratelimit" not in refused.headers
        assert shop.ask("GET", "/pets/7").headers["ratelimit"] == '"global";r=1998'
        assert shop.gateway.stats()["default"]["*"] == {"admitted": 2, "THROTTLED": 1}

    @pytest.mark.parametrize("status", [200, 503])
    def test_any_other_answer_of_the_app_is_an_answer(self, status):
        shop = self.shop(Own(Exception, status))
        answered = [shop.ask("GET", "/scarce") for _ in range(2)][1]
        assert (answered.status_code, answered.text) == (status, "My words.")
        assert answered.headers["ratelimit"] == '"global";r=1998'
        assert shop.gateway.stats()["default"]["*"] == {"admitted": 2}

    def test_an_error_of_the_app_is_still_the_apps_own(self):
        shop = self.shop()
        assert shop.ask("DELETE", "/nothing").status_code == 404
        assert shop.ask("PUT", "/orders").status_code == 405

    def test_no_way_of_writing_the_path_leads_past_the_limit(self):
        shop = self.shop()
        assert [shop.ask("POST", "/orders").status_code for _ in range(3)][2] == 429
        expected = DETOURS | SLASHLESS[shop.app.__module__]
        assert {target: shop.ask("POST", target).status_code for target in expected} == expected
