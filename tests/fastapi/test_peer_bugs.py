"""Bugs of slowapi and fastapi-limiter that FastAPI users reported, each as a test that the adapter passes.

A name ends in what apigate does instead. What does not need FastAPI is in `tests/properties/test_peer_bugs.py`.

| seen in | test |
| --- | --- |
| slowapi #281, initiative #1799, FastAPI #16051 #16176 | `test_slowapi_281_`, `test_initiative_1799_` |
| slowapi #34 #174 #177 #192 #235 #247 | `test_slowapi_34_` |
| slowapi #217 | `test_slowapi_217_` |
| slowapi #225 #249 #260 | `test_slowapi_249_` |
| slowapi #59 #255 #306, fastapi-limiter (leftmost) | `test_slowapi_255_` |
| slowapi #13 #206 | `test_slowapi_13_` |
| fastapi-limiter #80 | `test_fastapi_limiter_80_` |
| envoyproxy/ratelimit #1060, as measured in slowapi | `test_slowapi_a_refused_limit_` |
| Flask-Limiter #108 #337 (decorator and middleware count twice) | `test_flask_limiter_108_` |
| FastAPI #457 #2693 | `test_fastapi_2693_` |
| Starlette #1438 #1678 | `test_starlette_1438_` |
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware.cors import CORSMiddleware

from apigate import Gateway, Method
from apigate.fastapi import GatewayMiddleware
from apigate.testing import FakeClock
from tests.fastapi.asking import ask, statuses


def gated(app: Any, **settings: Any) -> Any:
    return GatewayMiddleware(app, Gateway(clock=FakeClock(), **settings))


def test_slowapi_281_default_limits_hold_for_included_routers():
    inner, outer = APIRouter(), APIRouter()
    inner.add_api_route("/x/{y}", lambda y: y)
    outer.include_router(inner, prefix="/inner")
    app = FastAPI()
    app.include_router(outer, prefix="/api")
    gate = gated(app, methods={"*": Method(client_throttle="1/minute")})
    assert statuses(gate, 2, "/api/inner/x/1") == [200, 429]


def test_initiative_1799_the_first_matching_route_wins_as_in_the_framework():
    gateway = Gateway(clock=FakeClock())
    app = FastAPI()
    app.add_api_route("/pets/{pet}", gateway.throttle("1/minute")(lambda pet: pet))
    app.add_api_route("/pets/me", gateway.throttle("100/minute")(lambda: "me"))
    assert statuses(GatewayMiddleware(app, gateway), 2, "/pets/me") == [200, 429]


def test_slowapi_34_no_request_argument_is_needed():
    gateway = Gateway(clock=FakeClock())
    app = FastAPI()

    @app.get("/{pet}")
    @gateway.throttle("1/minute", per="client")
    def read(pet: str) -> str:
        return pet

    assert statuses(GatewayMiddleware(app, gateway), 2, "/7") == [200, 429]


def test_slowapi_217_path_parameters_make_no_new_keys():
    app = FastAPI()
    app.add_api_route("/pets/{pet}", lambda pet: pet)
    gate = gated(app, methods={"*": Method(client_throttle="3/minute")})
    assert [ask(gate, f"/pets/{number}").status for number in range(4)] == [200, 200, 200, 429]


def test_slowapi_249_streams_start_once_and_arrive_whole():
    app = FastAPI()

    @app.get("/")
    def root() -> StreamingResponse:
        return StreamingResponse(str(number).encode() for number in range(100))

    answer = ask(gated(app, client_throttle="10/minute"), "/")
    assert (answer.starts, answer.error) == (1, None)
    assert answer.body == b"".join(str(number).encode() for number in range(100))
    assert "ratelimit" in answer.headers


def test_slowapi_255_a_client_cannot_choose_its_own_address():
    app = FastAPI()
    app.add_api_route("/", lambda: "root")
    gate = gated(app, client_throttle="1/minute")
    forged = [ask(gate, headers={"x-forwarded-for": f"198.51.100.{number}"}).status for number in range(3)]
    assert forged == [200, 429, 429]
    behind = gated(app, client_throttle="1/minute", trusted_hops=1)
    assert ask(behind, headers={"x-forwarded-for": "203.0.113.1"}).status == 200
    assert ask(behind, headers={"x-forwarded-for": "198.51.100.1, 203.0.113.1"}).status == 429
    assert ask(behind, headers={"x-forwarded-for": "203.0.113.2"}).status == 200


def test_slowapi_13_an_endpoint_has_several_limits_and_they_change_while_it_runs():
    gateway = Gateway(methods={"GET /": Method(client_throttle="5/second, 10/minute")}, clock=FakeClock())
    app = FastAPI()
    app.add_api_route("/", lambda: "root")
    gate = GatewayMiddleware(app, gateway)
    assert statuses(gate, 6) == [200] * 5 + [429]
    gateway.stage().update("GET /", client_throttle="7/second, 10/minute")
    assert statuses(gate, 3) == [200, 200, 429]


def test_fastapi_limiter_80_every_client_has_a_bucket_of_its_own():
    gateway = Gateway(clock=FakeClock())
    app = FastAPI(dependencies=[Depends(gateway.throttle("1/minute", per="client")(lambda: None))])
    app.add_api_route("/", lambda: "root")
    gate = GatewayMiddleware(app, gateway)
    assert [ask(gate, address=f"192.0.2.{number}").status for number in (1, 2, 1, 2)] == [200, 200, 429, 429]


def test_slowapi_a_refused_limit_drains_no_other():
    gateway = Gateway(client_throttle="20/hour", clock=FakeClock())
    app = FastAPI()
    app.add_api_route("/narrow", gateway.throttle("2/minute")(lambda: "narrow"))
    app.add_api_route("/other", lambda: "other")
    gate = GatewayMiddleware(app, gateway)
    assert statuses(gate, 30, "/narrow") == [200] * 2 + [429] * 28
    assert statuses(gate, 18, "/other") == [200] * 18


def test_flask_limiter_108_decorator_and_middleware_count_once():
    gateway = Gateway(client_throttle="3/minute", clock=FakeClock())
    app = FastAPI()
    app.add_api_route("/", gateway.throttle("3/minute", per="client")(lambda: "root"))
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    assert statuses(GatewayMiddleware(app, gateway), 4) == [200, 200, 200, 429]


def test_fastapi_2693_a_refusal_is_no_cors_error():
    app = FastAPI()
    app.add_api_route("/", lambda: "root")
    app.add_middleware(CORSMiddleware, allow_origins=["https://page.example"])
    gate = gated(app, client_throttle="1/minute")
    answers = [ask(gate, headers={"origin": "https://page.example"}) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].headers["access-control-allow-origin"] == "https://page.example"


def test_starlette_1438_background_tasks_run_to_their_end():
    from fastapi import BackgroundTasks

    app = FastAPI()
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append("work")

    @app.get("/")
    async def root(tasks: BackgroundTasks) -> str:
        tasks.add_task(work)
        return "root"

    assert ask(gated(app, client_throttle="1/minute", in_flight=1)).status == 200
    assert done == ["work"]
