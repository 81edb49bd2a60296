"""Connections to Redis and Valkey: one sync client a process, one async client a running event loop.

Rule: a call is answered or given up within its deadline, and whatever the client library raises becomes a `StoreError`.
The clients are those of the `limits` package, made from its addresses at their first use: never at import, never before
a fork. Under asyncio the commands that wait at the same moment go to the server together.
"""

import re
import select
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from threading import Lock, local
from typing import TYPE_CHECKING, Any, NamedTuple, final

from apigate.core.clock import SystemClock
from apigate.core.errors import StoreError, StoreTimeoutError
from apigate.core.forks import leave_to_parent, renew_after_fork
from apigate.stores.redis_address import check_redis_address, refused_by_client
from apigate.stores.redis_clients import load_clients
from apigate.stores.shown import shown

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from concurrent.futures import ThreadPoolExecutor

    from apigate.stores.redis_line import Line

__all__ = ["BYTES", "Command", "Connections", "Script", "load_script", "packed"]

_LEAST_S = 0.001
"""What a step is given where nothing is left: to a socket, no time at all means not to wait, which is another thing."""

BYTES = 65_536
"""What is read at once: the answer to as many commands as go together."""

_SIZES = tuple(b"\r\n$%d\r\n" % size for size in range(512))
"""What comes before a word of so many bytes; making it takes longer than all the rest of packing."""

_SENTINEL = re.compile(r"<\w+\.(?:asyncio\.)?client\..*?host=([^,)]+),port=(\d+).*?\)>\)>\)>")
"""A sentinel that was asked, as the clients write it in errors, with all the settings of its connections."""

_WORKERS = 32
"""How many calls of threads a cluster is asked at once."""

_CONNECTIONS = 10_000
"""More than a process has threads: each that asks needs one."""


class Script(NamedTuple):
    """What a server runs.

    Attributes:
        text: As it is sent.
        sha: What the server calls it.
    """

    text: bytes
    sha: bytes


class Command(NamedTuple):
    """One step of a script.

    Attributes:
        operation: What it is called in errors.
        script: What the server runs.
        keys: The keys of its buckets, or of its window.
        text: What to do with them, as the script reads it.
    """

    operation: str
    script: Script
    keys: Sequence[bytes]
    text: bytes


def packed(words: Sequence[bytes]) -> bytes:
    r"""A command as it is sent (Redis serialization protocol); the clients take 3 us more for it.

    >>> packed([b"GET", b"key"])
    b'*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n'
    """
    parts = [b"*%d" % len(words)]
    for word in words:
        size = len(word)
        parts += (_SIZES[size] if size < len(_SIZES) else b"\r\n$%d\r\n" % size), word
    parts.append(b"\r\n")
    return b"".join(parts)


def unpacked(data: bytes) -> bytes | None:
    r"""The line that a server answers to a script, or the one it refuses with as it came; None while some is missing.

    >>> unpacked(b"$4\r\n1 0 \r\n"), unpacked(b"$4\r\n1 0"), unpacked(b"-READONLY You cannot\r\n")
    (b'1 0 ', None, b'-READONLY You cannot')
    """
    end = data.find(b"\r\n")
    if end < 0:
        return None
    if not data.startswith(b"$"):
        return data[:end]
    return data[end + 2 : -2] if len(data) == end + 4 + int(data[1:end]) else None


@cache
def load_script(name: str) -> Script:
    """A script of this package."""
    from hashlib import sha1
    from importlib.resources import files

    text = files("apigate.stores").joinpath(name).read_bytes()
    return Script(text, sha1(text).hexdigest().encode())  # noqa: S324 - as the server names scripts


def _has_news(connection: Any) -> bool:
    """Whether the server has sent what nobody asked for, or has closed the connection."""
    sock = connection._sock  # noqa: SLF001 - the public method reads what is there, 5 us; tests/stores pin it
    if sock is None:
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], (), (), 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _punctual(kind: type[Any], left: Callable[[], float]) -> type[Any]:
    """A kind of connection whose every step has what is `left` of a call's time; the clients' own have all of it."""

    def read_response(connection: Any, *given: Any, **named: Any) -> Any:
        connection._sock.settimeout(left())  # noqa: SLF001 - as _has_news
        return kind.read_response(connection, *given, **named)

    timeout = property(lambda _: left(), lambda _connection, _value: None)
    members = {"read_response": read_response, "socket_timeout": timeout, "socket_connect_timeout": timeout}
    return type(f"Punctual{kind.__name__}", (kind,), members)


@final
class Connections:
    """The connections of one process to one server, cluster, or group of sentinels.

    Args:
        uri: An address that the `limits` package knows: `redis`, `rediss`, `redis+unix`, `redis+cluster`,
            `redis+sentinel`, or the same with `valkey`.
        deadline_ms: Milliseconds within which a call is answered or given up.

    Raises:
        ConfigurationError: There is no client library for the address, or it cannot be used.
    """

    def __init__(self, uri: str, deadline_ms: int) -> None:
        """Load the client library; connect to nothing."""
        from importlib import import_module

        self.uri: str = uri
        self.deadline_ms: int = deadline_ms
        self.is_cluster: bool = "+cluster:" in uri
        self._library = "valkey" if uri.startswith("valkey") else "redis"
        # The pools of valkey ask what a connection is for.
        self.purpose: tuple[str, ...] = ("EVALSHA",) if self._library == "valkey" else ()
        check_redis_address(uri)
        load_clients(self._library)
        self._import: Callable[[str], Any] = import_module
        self._clock = SystemClock()
        self._begin()
        renew_after_fork(self)
        if not self.is_cluster and "+sentinel:" not in uri:
            self._check()

    def _begin(self) -> None:
        self._client: Any = None  # Any: the client library is the user's to install
        self._sentinel: Any = None
        self._turn = local()
        self._workers: ThreadPoolExecutor | None = None
        self._connecting = Lock()
        self._idle: list[Any] = []
        self._lines: dict[AbstractEventLoop, Line] = {}

    def _check(self) -> None:
        """See that the client takes the address and its options; nothing is connected by that."""
        try:
            self._client = self._connect()
            pool = self._client.connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError, getattr(self.errors, f"{self._library.capitalize()}Error")) as error:
            raise refused_by_client(self.uri, self._library, error) from None

    @property
    def shown(self) -> str:
        """The address without what is secret."""
        return shown(self.uri)

    def renew(self) -> None:
        """Begin without connections in a process that was forked off; what it has inherited is the other's."""
        leave_to_parent(self._client, self._sentinel, self._idle, self._lines, self._workers)
        self._begin()

    # ---- in threads

    def call(self, command: Command, now: bytes) -> list[int]:
        """What its script answers to a command.

        Args:
            command: What to do.
            now: The time in microseconds, empty for the server's own.

        Raises:
            StoreError: The server cannot be reached, or refuses.
            StoreTimeoutError: It did not answer within the deadline.
        """
        arguments = (b"%d" % len(command.keys), *command.keys, now, command.text)
        try:
            say = self._say_in_time if self.is_cluster else self._say
            try:
                reply = say(b"EVALSHA", command.script.sha, *arguments)
            except self.errors.NoScriptError:
                reply = say(b"EVAL", command.script.text, *arguments)
            return [int(number) for number in reply.split()]
        except Exception as error:
            raise self.failure(command.operation, error) from error

    def evaluate(self, operation: str, script: Script, *arguments: bytes) -> bytes:
        """What a script answers, as it is.

        Args:
            operation: What it is called in errors.
            script: What the server runs.
            arguments: The number of keys, the keys, and what else it takes.

        Raises:
            StoreError: As `call`.
        """
        try:
            say = self._say_in_time if self.is_cluster else self._say
            try:
                reply: bytes = say(b"EVALSHA", script.sha, *arguments)
            except self.errors.NoScriptError:
                reply = say(b"EVAL", script.text, *arguments)
        except Exception as error:
            raise self.failure(operation, error) from error
        return reply

    def say(self, operation: str, *words: bytes) -> None:
        """Send one command, whose answer is of no importance; its second word is its key.

        Raises:
            StoreError: As `call`.
        """
        try:
            (self._say_in_time if self.is_cluster else self._say)(*words)
        except Exception as error:
            raise self.failure(operation, error) from error

    def _say_in_time(self, *words: bytes) -> Any:
        """`_say` to a cluster."""
        return self._in_time(self._say_to_cluster, words)

    def _in_time(self, do: Callable[..., Any], *given: object) -> Any:
        """Do what asks a cluster in a thread beside this one, which waits no longer than its deadline.

        The clients of clusters ask all nodes anew after each fault, and sleep before they try again.
        """
        workers = self._workers
        if workers is None:
            from concurrent.futures import ThreadPoolExecutor

            workers = self._workers = ThreadPoolExecutor(_WORKERS, "apigate-cluster")
        reply = workers.submit(do, *given)
        try:
            return reply.result(self._left())
        finally:
            reply.cancel()  # where it has not begun

    def _say_to_cluster(self, words: Sequence[bytes]) -> Any:
        return self._connected_once().execute_command(words[0].decode(), *words[1:])

    def _connected_once(self) -> Any:
        """The client of a cluster: making it asks the nodes, so one thread does."""
        with self._connecting:
            return self._connected()

    def _connected(self) -> Any:
        """The sync client, made at its first use."""
        client = self._client
        if client is None:
            client = self._client = self._connect()
        return client

    def _say(self, *words: bytes) -> Any:
        """Send a command on a connection that no other thread uses, and read its answer.

        What the client does around each command, and its packing and reading, make 0.73 of one EVALSHA through redis-py
        of what is 0.90 so, three levels and all; the budget is 0.85. The client connects, logs in and finds servers.
        """
        client = self._connected()
        idle = self._idle
        try:
            connection = idle.pop()
        except IndexError:
            connection = client.connection_pool.get_connection(*self.purpose)
        else:
            if _has_news(connection):
                connection.disconnect()  # it was asked nothing, so this is the server's word that it has closed it
        try:
            connection.send_packed_command([packed(words)], check_health=False)
            reply = self._read(connection._sock)  # noqa: SLF001 - as in _has_news
        except self.errors.NoScriptError:
            idle.append(connection)
            raise
        except BaseException:
            lost = [connection]
            with suppress(IndexError):
                while True:  # to the same server, which is down or a replica now: no use either
                    lost.append(idle.pop())
            for each in lost:
                each.disconnect()
                client.connection_pool.release(each)
            raise
        idle.append(connection)
        return reply

    def _read(self, sock: Any) -> bytes:
        """The answer of the server; the clients' own readers take 6 us more, a tenth of the call."""
        data, reply = b"", None
        while reply is None:
            sock.settimeout(self._left())
            more = sock.recv(BYTES)
            data += more
            reply = self.answer(data, ended=not more)
        return reply

    def answer(self, data: bytes, *, ended: bool) -> bytes | None:
        """What the server has answered so far; None while some is missing.

        Args:
            data: All bytes that came.
            ended: Whether no more will come.

        Raises:
            Exception: One of the client library's: the server refuses, or has closed the connection.
        """
        reply = unpacked(data)
        if reply is None:
            if ended:
                raise self.errors.ConnectionError("the server has closed the connection")
            return None
        if data.startswith(b"-"):  # not the reply, which may be bytes that begin so
            text = reply[1:].decode("utf-8", "replace")
            raise (self.errors.NoScriptError if text.startswith("NOSCRIPT") else self.errors.ResponseError)(text)
        return reply

    def delete(self, keys: Sequence[bytes], patterns: Sequence[bytes]) -> None:
        """Delete these keys, and all that a pattern matches; each step within the deadline.

        Raises:
            StoreError: As `call`.
        """
        try:
            client = self._step(self._connected_once)
            for key in keys:
                self._step(client.delete, key)
            for pattern in patterns:
                found = client.scan_iter(match=pattern, count=1_000)
                while (key := self._step(next, found, None)) is not None:
                    self._step(client.delete, key)
        except Exception as error:
            raise self.failure("reset", error) from error

    def _step(self, do: Callable[..., Any], *given: object) -> Any:
        self.begin()
        return self._in_time(do, *given) if self.is_cluster else do(*given)

    def _connect(self) -> Any:
        """The sync client of the `limits` package."""
        from limits.storage import storage_from_string

        seconds = self.deadline_ms / 1_000
        timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        storage: Any = storage_from_string(self.uri, **self._options(timeouts))
        self._sentinel = getattr(storage, "sentinel", None)
        client = storage.get_connection()
        if not self.is_cluster:
            for each in (client, *(self._sentinel.sentinels if self._sentinel else ())):
                each.connection_pool.connection_class = _punctual(each.connection_pool.connection_class, self._left)
        return client

    def begin(self) -> None:
        """Let the time of an operation of this thread begin; all its calls have to be answered within the deadline."""
        self._turn.until_us = self._clock.now_us() + self.deadline_ms * 1_000

    def _left(self) -> float:
        """Seconds that are left to this thread's operation."""
        until_us: int | None = getattr(self._turn, "until_us", None)
        if until_us is None:
            return self.deadline_ms / 1_000
        return max(_LEAST_S, (until_us - self._clock.now_us()) / 1_000_000)

    # ---- under an event loop

    def line(self, loop: "AbstractEventLoop") -> "Line":
        """The connection of a running loop; those of loops that have been closed are dropped."""
        line = self._lines.get(loop)
        if line is None:
            for closed in [known for known in list(self._lines) if known.is_closed()]:
                self._lines.pop(closed, None)
            from apigate.stores.redis_line import Line

            line = self._lines[loop] = Line(self, loop)
        return line

    def connect_async(self) -> tuple[Any, Any]:
        """An async client of the `limits` package, and the Sentinel that it asks, if any."""
        from limits.storage import storage_from_string

        timeouts = {"socket_timeout": None, "socket_connect_timeout": self.deadline_ms / 1_000}
        options = self._options(timeouts, ".asyncio")
        if self._library == "redis":
            options["implementation"] = "redispy"
        storage: Any = storage_from_string(f"async+{self.uri}", **options)
        bridge = storage.bridge  # not documented by limits, so tests/stores pin it
        return bridge.get_connection(), getattr(bridge, "sentinel", None)

    # ---- for both

    def _options(self, timeouts: Mapping[str, float | None], kind: str = "") -> dict[str, Any]:
        """What the clients are made with: no retries, which would wait longer than the deadline, and no greeting."""
        options: dict[str, Any] = {
            **timeouts,
            "retry": self.library(f"{kind}.retry").Retry(self.library(".backoff").NoBackoff(), 0),
            "protocol": 2,
            "max_connections": _CONNECTIONS,
        }
        if "+sentinel:" in self.uri:
            options["sentinel_kwargs"] = {**timeouts, "retry": options["retry"], "protocol": 2}
        return options

    def library(self, module: str) -> Any:
        """A module of the client library."""
        return self._import(f"{self._library}{module}")

    @property
    def errors(self) -> Any:
        """What the client library raises."""
        return self.library(".exceptions")

    def failure(self, operation: str, error: BaseException, *, blames_store: bool = True) -> StoreError:
        """What went wrong, as a store says it."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, TimeoutError | self.errors.TimeoutError):
            whose = "" if blames_store else ": this process was too busy to ask, or to hear it"
            return StoreTimeoutError(
                operation, f"no answer within {self.deadline_ms} ms{whose}", blames_store=blames_store
            )
        told = _SENTINEL.sub(r"\1:\2", str(error))
        return StoreError(operation, f"{type(error).__name__}: {told}")

    def close(self) -> None:
        """Close the sync client; it is made anew where it is needed again."""
        sentinel: Any
        client, sentinel, workers = self._client, self._sentinel, self._workers
        self._client = self._sentinel = self._workers = None
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            client.connection_pool.release(self._idle.pop())
        if client is None:
            return
        client.close()
        if sentinel is not None:
            client.connection_pool.disconnect()  # the client does not close a pool that it was given
            for asked in sentinel.sentinels:
                asked.close()

    async def close_async(self) -> None:
        """Close the sync client, and the one of the running loop."""
        from asyncio import get_running_loop

        self.close()
        line = self._lines.pop(get_running_loop(), None)
        if line is not None:
            await line.close()
