"""Connections to Redis and Valkey: one sync client a process, one async client a running event loop, one script.

Rule: a call is answered or given up within its deadline, and whatever the client library raises becomes a `StoreError`.
The clients are those of the `limits` package, made from its addresses at their first use: never at import, never before
a fork. Under asyncio the commands that wait at the same moment go to the server together.
"""

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final
from weakref import WeakSet

from apigate.core.errors import ConfigurationError, StoreError, StoreTimeoutError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task

__all__ = ["Command", "Connections", "load_script"]

_MOST = 128
"""Commands in one round trip: the server decides them in about a millisecond, in which nobody else is served."""

_TRIPS = 2
"""Round trips under way at once in one event loop: one for the server to work on while the other's answer is read."""


class Command(NamedTuple):
    """One step of the script.

    Attributes:
        keys: The keys of its buckets.
        text: What to do with them, as the script reads it.
    """

    keys: Sequence[bytes]
    text: bytes


class _Sent(NamedTuple):
    """A command on its way, and who waits for its answer: since when, by the loop's clock."""

    command: Command
    answer: "Future[list[int]]"
    since: float


def load_script() -> bytes:
    """The script that decides, as it is sent to the server."""
    from importlib.resources import files

    return files("apigate.stores").joinpath("decide.lua").read_bytes()


@final
class Connections:
    """The connections of one process to one server, cluster, or group of sentinels.

    Args:
        uri: An address that the `limits` package knows: `redis`, `rediss`, `redis+unix`, `redis+cluster`,
            `redis+sentinel`, or the same with `valkey`.
        deadline_ms: Milliseconds within which a call is answered or given up.

    Raises:
        ConfigurationError: There is no client library for the address.
    """

    def __init__(self, uri: str, deadline_ms: int) -> None:
        """Check that the client library is there; connect to nothing."""
        from importlib import import_module
        from importlib.util import find_spec

        self.uri: str = uri
        self.deadline_ms: int = deadline_ms
        self.is_cluster: bool = "+cluster:" in uri
        self._library = "valkey" if uri.startswith("valkey") else "redis"
        if find_spec(self._library) is None:
            raise ConfigurationError(
                f"store: {self._library} addresses need the package {self._library!r}; "
                f"pip install 'apigate[{self._library}]'"
            )
        self._import: Callable[[str], Any] = import_module
        self._script: tuple[bytes, str] | None = None
        self._forget()
        _OPEN.add(self)

    def _forget(self) -> None:
        """Begin without connections: at first, and in a process that was forked off."""
        self._client: Any = None  # Any: the client library is the user's to install
        self._sentinel: Any = None
        self._lines: dict[AbstractEventLoop, _Line] = {}

    # ---- in threads

    def call(self, command: Command, now: bytes, operation: str) -> list[int]:
        """The script's answer to a command.

        Args:
            command: What to do.
            now: The time in microseconds, empty for the server's own.
            operation: What to call it in an error.

        Raises:
            StoreError: The server cannot be reached, or refuses.
            StoreTimeoutError: It did not answer within the deadline.
        """
        try:
            client = self._client
            if client is None:
                client = self._client = self._connect()
            script, sha = self.script
            keys = command.keys
            try:
                reply = client.evalsha(sha, len(keys), *keys, now, command.text)
            except self.errors.NoScriptError:
                reply = client.eval(script, len(keys), *keys, now, command.text)
        except Exception as error:
            raise self.failure(operation, error) from error
        return [int(number) for number in reply.split()]

    def delete(self, keys: Sequence[bytes], patterns: Sequence[bytes]) -> None:
        """Delete these keys, and all that a pattern matches.

        Raises:
            StoreError: As `call`.
        """
        try:
            client = self._client
            if client is None:
                client = self._client = self._connect()
            for key in (*keys, *(key for each in patterns for key in client.scan_iter(match=each, count=1_000))):
                client.delete(key)
        except Exception as error:
            raise self.failure("reset", error) from error

    def _connect(self) -> Any:
        """The sync client of the `limits` package."""
        from limits.storage import storage_from_string

        seconds = self.deadline_ms / 2_000
        timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        storage: Any = storage_from_string(self.uri, **self._options(timeouts))
        self._sentinel = getattr(storage, "sentinel", None)
        return storage.get_connection()

    # ---- under an event loop

    def line(self, loop: "AbstractEventLoop") -> "_Line":
        """The connection of a running loop; those of loops that have been closed are dropped."""
        line = self._lines.get(loop)
        if line is None:
            for closed in [known for known in self._lines if known.is_closed()]:
                del self._lines[closed]
            line = self._lines[loop] = _Line(self, loop)
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
        }
        if "+sentinel:" in self.uri:
            options["sentinel_kwargs"] = dict(timeouts)
        return options

    def library(self, module: str) -> Any:
        """A module of the client library."""
        return self._import(f"{self._library}{module}")

    @property
    def errors(self) -> Any:
        """What the client library raises."""
        return self.library(".exceptions")

    @property
    def script(self) -> tuple[bytes, str]:
        """The script and its digest."""
        if self._script is None:
            from hashlib import sha1

            text = load_script()
            self._script = text, sha1(text).hexdigest()  # noqa: S324 - as the server names scripts
        return self._script

    def failure(self, operation: str, error: BaseException) -> StoreError:
        """What went wrong, as a store says it."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, TimeoutError | self.errors.TimeoutError):
            return StoreTimeoutError(operation, f"no answer within {self.deadline_ms} ms")
        return StoreError(operation, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the sync client; it is made anew where it is needed again."""
        client, sentinel = self._client, self._sentinel
        self._client = self._sentinel = None
        if client is not None:
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


@final
class _Line:
    """The commands of one event loop on their way to the server, as many as wait in one round trip.

    An idle line sends at the end of the loop's turn. While `_TRIPS` are under way those that come gather.
    """

    def __init__(self, connections: Connections, loop: "AbstractEventLoop") -> None:
        self._connections = connections
        self._loop = loop
        self._client: Any = None
        self._waiting: dict[bytes, list[_Sent]] = {}
        self._trips: set[Task[None]] = set()
        self._is_due = False
        self._guard: AsyncGenerator[None] | None = None

    def ask(self, command: Command, now: bytes, slot: bytes) -> "Future[list[int]]":
        """Send a command with all others that wait.

        Args:
            command: The command.
            now: The time in microseconds, empty for the server's own.
            slot: What decides its slot in a cluster; commands of one slot and time go together.
        """
        loop = self._loop
        answer: Future[list[int]] = loop.create_future()
        self._waiting.setdefault(now + b" " + slot, []).append(_Sent(command, answer, loop.time()))
        if not self._is_due and len(self._trips) < _TRIPS:
            self._is_due = True
            loop.call_soon(self._send)
        return answer

    def _send(self) -> None:
        """Send what waits, as far as there is room for trips."""
        self._is_due = False
        while self._waiting and len(self._trips) < _TRIPS:
            group, waiting = next(iter(self._waiting.items()))
            batch = waiting[:_MOST]
            del waiting[:_MOST]
            if not waiting:
                del self._waiting[group]
            task = self._loop.create_task(self._trip(batch, group.partition(b" ")[0]))
            self._trips.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: "Task[None]") -> None:
        """Let the next ones go."""
        self._trips.discard(task)
        if self._waiting and not self._is_due:
            self._send()

    async def _trip(self, batch: list[_Sent], now: bytes) -> None:
        """One round trip; whoever has waited longest sets its deadline."""
        from asyncio import timeout_at

        connections = self._connections
        commands = [sent.command for sent in batch]
        try:
            async with timeout_at(batch[0].since + connections.deadline_ms / 1_000):
                keys = [key for command in commands for key in command.keys]
                reply = await self._call(keys, [now, *[command.text for command in commands]])
                answers = _read(commands, reply)
        except BaseException as error:
            for sent in batch:
                if not sent.answer.done():
                    sent.answer.set_exception(_caused(connections.failure("acquire", error), error))
                    sent.answer.exception()  # whoever asked may have gone, and then nobody asks for it
            if not isinstance(error, Exception):
                raise
            return
        for sent, answer in zip(batch, answers, strict=True):
            if not sent.answer.done():
                sent.answer.set_result(answer)

    async def _call(self, keys: list[bytes], arguments: list[bytes]) -> Any:
        script, sha = self._connections.script
        client = await self._connected()
        try:
            return await client.evalsha(sha, len(keys), *keys, *arguments)
        except self._connections.errors.NoScriptError:
            return await client.eval(script, len(keys), *keys, *arguments)

    async def delete(self, keys: Sequence[bytes], patterns: Sequence[bytes]) -> None:
        """Delete these keys, and all that a pattern matches; each step within the deadline.

        Raises:
            StoreError: As `Connections.call`.
        """
        from asyncio import timeout

        seconds = self._connections.deadline_ms / 1_000
        try:
            async with timeout(seconds) as deadline:
                client = await self._connected()
                for key in keys:
                    await client.delete(key)
                for pattern in patterns:
                    async for key in client.scan_iter(match=pattern, count=1_000):
                        deadline.reschedule(self._loop.time() + seconds)
                        await client.delete(key)
        except Exception as error:
            raise self._connections.failure("reset", error) from error

    async def _connected(self) -> Any:
        """The client of this loop; it is closed when the loop shuts down its generators, which all runners do."""
        if self._client is None:
            client, sentinel = self._connections.connect_async()
            self._guard = self._until_shutdown(client, sentinel)
            await anext(self._guard)
            self._client = client
        return self._client

    async def _until_shutdown(self, client: Any, sentinel: Any) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._client = None
            await client.aclose()
            if sentinel is not None:
                await client.connection_pool.disconnect()  # as in Connections.close
                for asked in sentinel.sentinels:
                    await asked.aclose()

    async def close(self) -> None:
        """Close the client."""
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()


def _read(commands: Sequence[Command], reply: bytes | str) -> list[list[int]]:
    """The numbers of each command: the verdict, and two for each of its keys; none for an adjust."""
    numbers = [int(number) for number in reply.split()]
    if len(commands) == 1:
        return [numbers]
    answers: list[list[int]] = []
    for command in commands:
        count = 0 if command.text.startswith(b'["adjust"') else 1 + 2 * len(command.keys)
        answers.append(numbers[:count])
        del numbers[:count]
    return answers


def _caused(error: StoreError, cause: BaseException) -> StoreError:
    if error is not cause:
        error.__cause__ = cause
    return error


_OPEN: WeakSet[Connections] = WeakSet()


def _after_fork() -> None:
    for connections in _OPEN:
        connections._forget()  # noqa: SLF001 - a process that was forked off shares no connection


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
