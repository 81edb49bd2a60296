"""One gateway used from threads and from an event loop at once: what it admits is exact."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from apigate import Gateway, Method, Rate, asgi, wsgi
from apigate.testing import FakeClock
from tests.adapters.test_asgi import held, http
from tests.adapters.test_wsgi import environ_of

THREADS = 4
EACH = 500
BURST = 1_000


def thread_asks(gate: Any, statuses: list[int], barrier: threading.Barrier) -> None:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append(int(status[:3]))

    barrier.wait()
    for _ in range(EACH):
        body = gate(environ_of("/pets"), start_response)
        list(body)
        if hasattr(body, "close"):
            body.close()


async def tasks_ask(gate: Any, statuses: list[int], barrier: threading.Barrier) -> None:
    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])
        await asyncio.sleep(0)

    async def asks() -> None:
        for _ in range(EACH):
            await gate(http("/pets"), never, send)

    async def never() -> Any:
        raise AssertionError("nobody asked for this")

    barrier.wait()
    await asyncio.gather(*[asks() for _ in range(THREADS)])


def served_by(gateway: Gateway, answer: int = 200) -> Counter[int]:
    def wsgi_app(environ: Any, start_response: Any) -> Any:
        start_response(f"{answer} Whatever", [])
        return [b"x"]

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": answer, "headers": []})
        await send({"type": "http.response.body"})

    barrier = threading.Barrier(THREADS + 1)
    in_threads: list[list[int]] = [[] for _ in range(THREADS)]
    in_loop: list[int] = []
    threads = [
        threading.Thread(target=thread_asks, args=(wsgi.GatewayMiddleware(wsgi_app, gateway), statuses, barrier))
        for statuses in in_threads
    ]
    for thread in threads:
        thread.start()
    asyncio.run(tasks_ask(asgi.GatewayMiddleware(asgi_app, gateway), in_loop, barrier))
    for thread in threads:
        thread.join()
    return Counter(in_loop + [status for statuses in in_threads for status in statuses])


@pytest.mark.parametrize(
    "settings",
    [
        {"throttle": Rate(BURST)},
        {"client_throttle": Rate(BURST), "client": lambda request: "everybody"},
        {"throttle": Rate(BURST), "in_flight": 1_000_000, "client_in_flight": 1_000_000},
        {"methods": {"GET /pets": Method(throttle=Rate(BURST), client_throttle=Rate(5_000))}},
    ],
    ids=["global", "client", "in flight", "method"],
)
def test_threads_and_tasks_together_are_admitted_as_often_as_the_burst_says(settings):
    gateway = Gateway(clock=FakeClock(), **settings)
    total = 2 * THREADS * EACH
    assert served_by(gateway) == {200: BURST, 429: total - BURST}
    kinds: Counter[str] = Counter()
    for counts in gateway.stats()["default"].values():
        kinds += Counter(counts)
    assert kinds == {"admitted": BURST, "THROTTLED": total - BURST}
    assert held(gateway) == 0


def test_what_threads_and_tasks_get_back_is_exact_too():
    methods = {"GET /pets": Method(throttle=Rate(BURST), refund="5xx")}
    gateway = Gateway(clock=FakeClock(), methods=methods, in_flight=1_000_000)
    assert served_by(gateway, answer=503) == {503: 2 * THREADS * EACH}
    assert held(gateway) == 0
    (method,) = gateway.explain("GET", "/pets").levels
    assert method.remaining in (BURST, BURST - 1)  # with or without what is asked about
