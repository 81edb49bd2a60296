"""Client, cache and origin in one process, with a clock that the runner sets; sections 3, 4 and 8.

`run_asgi` and `run_wsgi` take what builds the cache around the origin app, and tell the outcome of each case. All cases
go through one cache, one after the other, in a fraction of a second.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from apigate.asgi import ASGIApp, Message, Receive, Scope, Send
from apigate.testing import FakeClock
from apigate.wsgi import Environ, StartResponse, WSGIApp
from tests.conformance.cases import PATIENCE, Case
from tests.conformance.conversation import Conversation, Outcome, converse
from tests.conformance.native import (
    EARLY_HINT,
    as_sent,
    asgi_answer,
    asgi_request,
    asgi_scope,
    begin_wsgi,
    collect_wsgi,
    read_asgi,
    send_asgi,
    server_error,
    wsgi_environ,
    wsgi_request,
)
from tests.conformance.origin import Origin
from tests.conformance.wire import Answer, Broken, Request, across_hop, check_framing, framed, has_body

Build: TypeAlias = Callable[[ASGIApp, FakeClock], ASGIApp]
BuildWSGI: TypeAlias = Callable[[WSGIApp, FakeClock], WSGIApp]

PART_OF_A_SECOND = 0.123  # the clock does not start on a whole one
PER_REQUEST = 0.005
TURNS = 10  # of the loop, for which the call of an app hangs in its last send: the next step comes before it returns
SETTLING = 1.0  # seconds of real time for work in the background; only a fault takes so long


class Disconnected(Exception):
    """The origin dropped the connection, and the forwarding code raises."""


@dataclass(frozen=True, kw_only=True)
class Between:
    """What lies between cache and origin, and between client and cache; section 8.

    Args:
        hop: Whether a hop of HTTP strips what is hop-by-hop, both ways; else the cache has to.
        disconnect: What the cache sees of it: "502", an answer that the forwarding code makes up, or "exception".
        early_hints: Whether the server hands on 103 (an extension of ASGI); plain ASGI and WSGI hand on no 1xx.
    """

    hop: bool = True
    disconnect: str = "502"
    early_hints: bool = False


def forward(origin: Origin, clock: FakeClock, between: Between, request: Request) -> Answer:
    """Ask the origin."""
    if between.hop:
        request = request._replace(fields=across_hop(request.fields))
    visit = origin.visit(request)
    clock.advance(visit.pause)
    answer = visit.answer()
    if answer is None:
        if between.disconnect == "exception":
            raise Disconnected
        text = b"Bad Gateway"
        return Answer(502, framed([("Content-Type", "text/plain")], len(text)), text)
    if between.hop:
        fields = across_hop(answer.fields)
        sized = has_body(request.method, answer.status)
        answer = answer._replace(fields=framed(fields, len(answer.body)) if sized else fields)
    return answer


def start_clock() -> FakeClock:
    """A clock that does not stand on a whole second."""
    clock = FakeClock()
    clock.advance(PART_OF_A_SECOND)
    return clock


# ---- ASGI


def run_asgi(build: Build, cases: Sequence[Case], between: Between = Between()) -> dict[str, Outcome]:
    """Run cases through an ASGI cache.

    Args:
        build: Puts the cache around the origin app.
        cases: The cases; those that they depend on too, where they are to be graded.
        between: What lies around the cache.
    """
    return asyncio.run(_run_asgi(build, cases, between))


async def _run_asgi(build: Build, cases: Sequence[Case], between: Between) -> dict[str, Outcome]:
    clock = start_clock()
    origin = Origin(clock.wall)

    async def origin_app(scope: Scope, receive: Receive, send: Send) -> None:
        answer = forward(origin, clock, between, asgi_request(scope, await read_asgi(receive)))
        if EARLY_HINT in scope["extensions"]:
            for _, fields in answer.interim:
                links = [value.encode("latin-1") for name, value in fields if name.lower() == "link"]
                await send({"type": EARLY_HINT, "links": links})
        await send_asgi(send, answer)

    app = build(origin_app, clock)
    outcomes = {}
    for case in cases:
        token = origin.open(case)
        outcomes[case.name] = await _do_asgi(converse(case, token, partial(origin.log, token)), app, clock, between)
        await _settle()
    return outcomes


async def _do_asgi(talk: Conversation, app: ASGIApp, clock: FakeClock, between: Between) -> Outcome:
    step, answer = 0, None
    try:
        while True:
            move = talk.send(answer)
            if isinstance(move, Request):
                step += 1
                answer = await _ask_asgi(app, move, clock, between)
            else:
                await _settle()
                clock.advance(move)
                answer = None
    except StopIteration as ended:
        outcome: Outcome = ended.value
        return outcome
    except Broken as error:
        return Outcome("error", step, str(error))
    except TimeoutError:
        return Outcome("timeout", step, f"no answer within {PATIENCE:g} s")


async def _ask_asgi(app: ASGIApp, request: Request, clock: FakeClock, between: Between) -> Answer:
    """One exchange: ends with the last event of the body, when the app's call may still be under way."""
    clock.advance(PER_REQUEST)
    begun = clock.wall()
    server = _Server(request)
    scope = asgi_scope(request, early_hints=between.early_hints)
    call: asyncio.Future[None] = asyncio.ensure_future(app(scope, server.receive, server.send))
    call.add_done_callback(_see)
    either: set[asyncio.Future[Any]] = {call, server.answered}
    await asyncio.wait(either, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if not server.answered.done() and not call.done():
        call.cancel()
        raise TimeoutError
    if not server.answered.done():
        server.fail(call)
    if clock.wall() - begun > PATIENCE:
        raise TimeoutError
    answer = as_sent(request, server.answered.result())
    check_framing(request.method, answer)
    return answer


def _see(call: asyncio.Future[None]) -> None:
    """Look at how a call ended, or asyncio complains; what matters of it, the client has seen."""
    if not call.cancelled():
        call.exception()


class _Server:
    """The server's side of one request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._taken = False
        self._gone = asyncio.Event()
        self._start: Message | None = None
        self._body = b""
        self._interim: list[tuple[int, list[tuple[str, str]]]] = []

    async def receive(self) -> Message:
        if not self._taken:
            self._taken = True
            return {"type": "http.request", "body": self.request.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.early_hint":
                self._interim.append((103, [("link", bytes(link).decode("latin-1")) for link in message["links"]]))
            case "http.response.start":
                assert self._start is None, "a second head"
                self._start = message
            case "http.response.body":
                assert self._start is not None, "a body without a head"
                self._body += message.get("body", b"")
                if not message.get("more_body", False) and not self.answered.done():
                    whole = asgi_answer(self._start, self._body)
                    self.answered.set_result(whole._replace(interim=tuple(self._interim)))
                    self._gone.set()
                    for _ in range(TURNS):
                        await asyncio.sleep(0)

    def fail(self, call: asyncio.Future[None]) -> None:
        """The app returned or raised before it had answered."""
        error = call.exception()
        if self._start is not None:
            self.answered.set_exception(Broken(f"the app ended in the middle of its answer: {error!r}"))
        elif error is None:
            self.answered.set_exception(Broken("the app did not answer"))
        else:
            self.answered.set_result(server_error(error))


async def _settle() -> None:
    """Drive to its end what goes on in the background."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=SETTLING)


# ---- WSGI


def run_wsgi(build: BuildWSGI, cases: Sequence[Case], between: Between = Between()) -> dict[str, Outcome]:
    """Run cases through a WSGI cache; as `run_asgi`.

    A request's iterable is closed before the next step: what a thread of a server does between its last byte and that
    is seen over HTTP only.
    """
    clock = start_clock()
    origin = Origin(clock.wall)
    threads = _Threads()

    def origin_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return begin_wsgi(start_response, forward(origin, clock, between, wsgi_request(environ)))

    app = build(origin_app, clock)
    outcomes = {}
    for case in cases:
        token = origin.open(case)
        outcomes[case.name] = _do_wsgi(converse(case, token, partial(origin.log, token)), app, clock, threads)
        threads.settle()
    return outcomes


def _do_wsgi(talk: Conversation, app: WSGIApp, clock: FakeClock, threads: "_Threads") -> Outcome:
    step, answer = 0, None
    try:
        while True:
            move = talk.send(answer)
            if isinstance(move, Request):
                step += 1
                answer = _ask_wsgi(app, move, clock)
            else:
                threads.settle()
                clock.advance(move)
                answer = None
    except StopIteration as ended:
        outcome: Outcome = ended.value
        return outcome
    except Broken as error:
        return Outcome("error", step, str(error))
    except TimeoutError:
        return Outcome("timeout", step, f"no answer within {PATIENCE:g} s")


def _ask_wsgi(app: WSGIApp, request: Request, clock: FakeClock) -> Answer:
    clock.advance(PER_REQUEST)
    begun = clock.wall()
    try:
        answer = collect_wsgi(app, wsgi_environ(request))
    except Exception as error:  # noqa: BLE001 - a server answers any of them in the app's place
        answer = server_error(error)
    if clock.wall() - begun > PATIENCE:
        raise TimeoutError
    answer = as_sent(request, answer)
    check_framing(request.method, answer)
    return answer


class _Threads:
    """The threads that a cache has started. One that outlives its work, as those of a pool do, is waited for once."""

    def __init__(self) -> None:
        self._known = set(threading.enumerate())

    def settle(self) -> None:
        """Wait for the new ones."""
        for thread in set(threading.enumerate()) - self._known:
            thread.join(SETTLING)
            if thread.is_alive():
                self._known.add(thread)
