"""What users write, under mypy and pyright: every `assert_type` is checked by both, nothing here needs to run."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, assert_type

from apigate import (
    CachePolicy,
    Decision,
    Gateway,
    LevelState,
    Method,
    Rate,
    Reservation,
    ResponseCache,
    Stage,
    Throttle,
    Throttled,
    Window,
)
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.asgi import Receive, Scope, Send
from apigate.core.events import Denied, Event
from apigate.core.message import Request
from apigate.running_stage import RunningStage
from apigate.wsgi import GatewayMiddleware as WSGIGate
from apigate.wsgi import StartResponse


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def wsgi_app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


def on_event(event: Event) -> None:
    if isinstance(event, Denied):
        assert_type(event.retry_after, float | None)


def client(request: Request) -> str | None:
    return request.headers.get("x-device")


gateway = Gateway(
    throttle="1000/second; burst=2000",
    stages=[Stage("prod", client_throttle=[Rate(10), "1000/hour"], methods={"GET /pets": Method(throttle=Rate(5))})],
    on_event=on_event,
    client=client,
)
ASGIGate(asgi_app, gateway, stage="prod")
WSGIGate(wsgi_app, gateway)
assert_type(gateway.stage("prod"), RunningStage)
assert_type(gateway.stats(), dict[str, dict[str, dict[str, int]]])

window = Window("100/minute", kind="moving")
assert_type(window.count, int)
Gateway(throttle=[window, Rate(5)], methods={"GET /pets": Method(client_throttle="5/second")})
Stage("beta", client_throttle=window)
assert_type(Throttle({"client": window}).acquire({"client": "alice"}).levels["client"].rate, Rate | Window)

Throttle({"client": window}, store="memory://?max_keys=1000")
throttle = Throttle({"global": Rate(1_000), "client": Rate(10, burst=20)})
assert_type(throttle.acquire({"client": "alice"}, wait=0.5), Decision)
assert_type(throttle.peek({"client": 7}).levels, Mapping[str, LevelState])
with throttle.reserve({"client": "alice"}) as reservation:
    assert_type(reservation, Reservation)


def by_user(user: str, n: int) -> str:
    return user


def by_number(user: str, n: int) -> int:
    return n


@gateway.throttle(Rate(3), key=by_user, cost=by_number)
def send_mails(user: str, n: int) -> float:
    return 1.0


@gateway.throttle("3/second")
async def ping(host: str) -> bytes:
    return host.encode()


@gateway.throttle("3/second")
async def numbers(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number


def keeps_its_type(function: Callable[[str, int], float]) -> None:
    try:
        assert_type(function("alice", 2), float)
    except Throttled as refused:
        assert_type(refused.retry_after, float | None)


keeps_its_type(send_mails)


async def keeps_its_colour() -> None:
    assert_type(await ping("localhost"), bytes)
    async for number in numbers(3):
        assert_type(number, int)
    assert_type(await throttle.acquire_async({"client": "alice"}), Decision)


@gateway.throttle(window)
def counted(n: int) -> int:
    return n


assert_type(counted(1), int)


@gateway.cache(ttl=60, tags=["pets"], key={"query": ["page"]})
def page_of_pets(page: int) -> str:
    return str(page)


@gateway.cache(CachePolicy(per=client))
async def pet(pk: int) -> bytes:
    return str(pk).encode()


@gateway.cache()
@gateway.throttle("3/second")
def both(n: int) -> int:
    return n


def caching_keeps_its_type(function: Callable[[int], str]) -> None:
    assert_type(function(1), str)


caching_keeps_its_type(page_of_pets)
assert_type(both(1), int)
assert_type(gateway.stage("prod").cache, ResponseCache)


async def caching_keeps_its_colour() -> None:
    assert_type(await pet(1), bytes)


def mistakes() -> None:  # never called: what a checker finds is refused when it is run as well
    gateway.cache(ttl="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gateway.cache(tlt=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
