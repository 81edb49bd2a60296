"""A relay on loopback between a client and a server, which loses, delays or keeps back what passes."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self

CHUNK = 1 << 16


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, losing what is under way; the peer is told by RST."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Relay:
    """Passes each connection on to a port of loopback, and does to it what networks do.

    Args:
        to: The server's port.
        tls: What clients have to speak to the relay; the server is spoken to without.

    Attributes:
        port: Where clients connect.
        delay: Seconds that each answer is late.
        accepted: How many connections there were.
    """

    def __init__(self, to: int, tls: ssl.SSLContext | None = None) -> None:
        self.to = to
        self.delay = 0.0
        self.accepted = 0
        self._tls = tls
        self._loses_answer = self._loses_question = False
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listening = self._run(self._listen)
        self.port: int = self._listening.sockets[0].getsockname()[1]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)

    def _run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result()

    # ---- what may be done to connections

    def cut(self) -> None:
        """Reset every connection; new ones are passed on as before."""
        self._run(self._cut)

    async def _cut(self) -> None:
        for writer in self._connections:
            reset(writer)

    def lose_next_answer(self) -> None:
        """Let the next question reach the server, and reset its connection when the answer comes."""
        self._loses_answer = True

    def lose_next_question(self) -> None:
        """Reset the connection of the next question, which the server never sees."""
        self._loses_question = True

    def hold(self) -> None:
        """Keep all answers back from now on, while connections stay and questions arrive."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def release(self) -> None:
        """Hand out what `hold` kept back."""
        self._loop.call_soon_threadsafe(self._passing.set)

    # ---- the two ways

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._tasks.add(asyncio.current_task())
        self._connections.add(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            reset(writer)
            return
        self._connections.add(server_writer)
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._questions(reader, server_writer))
                ways.create_task(self._answers(server_reader, late))
                ways.create_task(self._hand_out(late, writer))
        except* (OSError, ssl.SSLError):
            pass  # one end is gone, so the other goes too
        finally:
            self._connections -= {writer, server_writer}
            reset(writer)
            reset(server_writer)

    async def _questions(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while question := await client.read(CHUNK):
            if self._loses_question:
                self._loses_question = False
                break
            server.write(question)
            await server.drain()
        raise ConnectionResetError

    async def _answers(self, server: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes]]) -> None:
        while answer := await server.read(CHUNK):
            if self._loses_answer:
                self._loses_answer = False
                break
            late.put_nowait((self._loop.time() + self.delay, answer))
        raise ConnectionResetError

    async def _hand_out(self, late: asyncio.Queue[tuple[float, bytes]], client: asyncio.StreamWriter) -> None:
        while True:
            due, answer = await late.get()
            if (rest := due - self._loop.time()) > 0:
                await asyncio.sleep(rest)
            await self._passing.wait()
            client.write(answer)
            await client.drain()

    # ---- the end

    def stop(self) -> None:
        """Reset all connections, and accept no more."""
        self._run(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._listening.close()
        self._passing.set()
        await self._cut()
        await asyncio.gather(*self._tasks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
