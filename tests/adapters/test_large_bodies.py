"""A gibibyte through the gate, up and down, in both protocols: never held, so never in memory."""

import asyncio
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from apigate import Gateway, asgi, wsgi
from tests.adapters.test_asgi import http
from tests.adapters.test_wsgi import Server, environ_of

PIECE = 4 << 20
PIECES = 256
GIBIBYTE = PIECE * PIECES
BOUND = 5 * PIECE

LIMITS = pytest.mark.parametrize("limits", [{"throttle": "9/s"}, {"throttle": "9/s", "in_flight": 1}], ids=len)


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BOUND, f"{peak >> 20} MiB"


def pieces() -> Iterator[bytes]:
    """Each of them new, so that keeping them would show."""
    for number in range(PIECES):
        yield bytes([number]) * PIECE


@LIMITS
def test_asgi_streams_a_gibibyte_up_and_down_at_once(limits):
    sizes = {"up": 0, "down": 0}
    source = pieces()

    async def receive() -> Any:
        piece = next(source, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: Any) -> None:
        sizes["down"] += len(message.get("body", b""))

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["more_body"]:
            sizes["up"] += len(message["body"])
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body"})

    with bounded_memory():
        asyncio.run(asgi.GatewayMiddleware(echo, Gateway(**limits))(http(method="POST"), receive, send))
    assert sizes == {"up": GIBIBYTE, "down": GIBIBYTE}


class Upload:
    """A `wsgi.input` that is never there as a whole."""

    def __init__(self) -> None:
        self._pieces = pieces()

    def read(self, size: int) -> bytes:
        assert size == PIECE
        return next(self._pieces, b"")


class Download(list[bytes]):
    """Counts what a server would send, and forgets it."""

    size = 0

    def append(self, piece: bytes) -> None:
        self.size += len(piece)


@LIMITS
@pytest.mark.parametrize("style", ["iterable", "write"])
def test_wsgi_streams_a_gibibyte_up_and_down_at_once(limits, style):
    def echo(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        echoed = iter(lambda: environ["wsgi.input"].read(PIECE), b"")
        if style == "iterable":
            return echoed
        for piece in echoed:
            write(piece)
        return []

    class Counting(Server):
        def __init__(self, *given: Any) -> None:
            self.download = Download()
            super().__init__(*given)

        @property
        def out(self) -> Download:
            return self.download

        @out.setter
        def out(self, _: Any) -> None: ...

    environ = environ_of(**{"wsgi.input": Upload(), "REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(GIBIBYTE)})
    with bounded_memory():
        server = Counting(wsgi.GatewayMiddleware(echo, Gateway(**limits)), environ)
    assert server.download.size == GIBIBYTE


def test_what_the_bound_would_find():
    with pytest.raises(AssertionError, match="MiB"), bounded_memory():
        kept = [piece for piece, _ in zip(pieces(), range(8), strict=False)]
    assert len(kept) == 8
