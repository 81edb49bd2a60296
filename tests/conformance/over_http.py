"""The same cases over sockets and with real pauses: client and origin here, caches in processes of their own.

A run takes as long as the public suite's on these cases: many cases are under way at a time, each on a connection of
its own that is kept alive.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import h11

from tests.conformance.cases import PATIENCE, Case
from tests.conformance.conversation import Conversation, Outcome, converse
from tests.conformance.origin import Origin
from tests.conformance.wire import Answer, Broken, Fields, Interim, Request, field, has_body

ROOT = Path(__file__).parents[2]
AT_A_TIME = 40
_CHUNK = 65_536


class Served(NamedTuple):
    """One cache behind a server, by what `serve` takes."""

    protocol: str
    cache: str
    disconnect: str


def run_over_http(served: Sequence[Served], cases: Sequence[Case]) -> dict[Served, dict[str, Outcome]]:
    """Run cases through each of the caches, all at once."""
    return asyncio.run(_run_all(served, cases))


async def _run_all(served: Sequence[Served], cases: Sequence[Case]) -> dict[Served, dict[str, Outcome]]:
    runs = await asyncio.gather(*(_run(each, cases) for each in served))
    return dict(zip(served, runs, strict=True))


async def _run(served: Served, cases: Sequence[Case]) -> dict[str, Outcome]:
    origin = Origin(time.time)
    places = asyncio.Semaphore(AT_A_TIME)
    # The longest first, so that none is left alone at the end.
    order = sorted(cases, key=lambda case: -sum(bool(step.get("pause_after")) for step in case.steps))

    async def do(case: Case, port: int) -> Outcome:
        async with places:
            token = origin.open(case)
            return await _do(converse(case, token, lambda: origin.log(token)), port)

    async with _listening(origin) as behind:
        with _serving(served, behind) as port:
            outcomes = await asyncio.gather(*(do(case, port) for case in order))
    return {case.name: outcome for case, outcome in zip(order, outcomes, strict=True)}


@contextmanager
def _serving(served: Served, behind: int) -> Iterator[int]:
    """A server in front of the origin; the port it listens at."""
    with TemporaryFile("w+b") as log:
        # Only the server has the socket, so that whoever asks one that has ended is refused.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            port, number = int(listener.getsockname()[1]), listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.conformance.serve", *served, str(number), str(behind)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
                pass_fds=[number],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        try:
            yield port
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"{served} ended\n{log.read().decode()}")
        finally:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


# ---- the client


async def _do(talk: Conversation, port: int) -> Outcome:
    step, answer = 0, None
    connection = _Connection(port)
    try:
        while True:
            move = talk.send(answer)
            if isinstance(move, Request):
                step += 1
                answer = await asyncio.wait_for(connection.ask(move), PATIENCE)
            else:
                await asyncio.sleep(move)
                answer = None
    except StopIteration as ended:
        outcome: Outcome = ended.value
        return outcome
    except (Broken, OSError, h11.ProtocolError) as error:
        if isinstance(error, TimeoutError):
            return Outcome("timeout", step, f"no answer within {PATIENCE:g} s")
        return Outcome("error", step, repr(error))
    finally:
        connection.close()


class _Connection:
    """A client's connection, which is kept alive as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._state = h11.Connection(h11.CLIENT)

    async def ask(self, request: Request) -> Answer:
        if self._writer is None or self._state.our_state is not h11.IDLE:
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._state = h11.Connection(h11.CLIENT)
        headers = [(b"host", f"127.0.0.1:{self._port}".encode())]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in request.fields]
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        self._write(head, *([h11.Data(data=request.body)] if request.body else []), h11.EndOfMessage())
        answer = await self._answer()
        with suppress(h11.LocalProtocolError):  # it is to be closed
            self._state.start_next_cycle()
        return answer

    def _write(self, *events: h11.Event) -> None:
        assert self._writer is not None
        self._writer.write(b"".join(self._state.send(event) or b"" for event in events))

    async def _answer(self) -> Answer:
        assert self._reader is not None
        interim: list[Interim] = []
        status, body = 0, b""
        fields: Fields = []
        while True:
            match self._state.next_event():
                case h11.NEED_DATA:
                    self._state.receive_data(await self._reader.read(_CHUNK))
                case h11.InformationalResponse(status_code=code, headers=headers):
                    interim.append((code, _texts(headers)))
                case h11.Response(status_code=status, headers=headers):
                    fields = _texts(headers)
                case h11.Data(data=data):
                    body += bytes(data)
                case h11.EndOfMessage():
                    return Answer(status, fields, body, tuple(interim))
                case other:
                    raise Broken(f"{other!r}")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode(), value.decode("latin-1")) for name, value in headers]


# ---- the origin


@asynccontextmanager
async def _listening(origin: Origin) -> AsyncIterator[int]:
    """The origin behind a socket; its port. Written out: no server would send what some of the cases ask for."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await _serve_one(origin, reader, writer):
                    pass
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*connections)  # whoever had connected is gone by now


async def _serve_one(origin: Origin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    fields = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    await reader.readexactly(int(field(fields, "content-length") or 0))
    visit = origin.visit(Request(method, target, fields))
    await asyncio.sleep(visit.pause)
    answer = visit.answer()
    if answer is None:
        return False
    for code, each in answer.interim:
        writer.write(_head(code, each))
    writer.write(_head(answer.status, answer.fields) + answer.body)
    await writer.drain()
    return field(answer.fields, "content-length") is not None or not has_body(method, answer.status)


def _head(status: int, fields: Fields) -> bytes:
    lines = [f"HTTP/1.1 {status} Phrase", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")
