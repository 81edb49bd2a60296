"""The commands of one event loop on their way to Redis: those that wait at the same moment go together.

Rule: nothing waits to be joined by others. An idle line sends at the end of the loop's turn; what comes while as many
round trips are under way as there may be gathers, and goes with the next.
"""

from asyncio import CancelledError, Semaphore, Task, current_task, timeout
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final

from apigate.core.errors import StoreError
from apigate.stores.redis_connection import BYTES, Command, Connections, Script, packed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["Line"]

T = TypeVar("T")

_MOST = 128
"""Commands in one round trip: the server decides them in about a millisecond, in which nobody else is served."""

_BUCKETS = 1_024
"""Their buckets in all, unless one command alone has more: Lua unpacks 8,000 values, and answers have two for each."""

_LATE_S = 0.01
"""A deadline that is noticed later than this says nothing of the server: something held the event loop meanwhile."""

_GRACE_S = 0.02
"""How much longer an answer is waited for then."""

_TRIPS = 2
"""Round trips under way at once in one event loop: one for the server to work on while the other's answer is read."""

_ALONE = 32
"""Commands under way at once, each by itself: more would only wait at the server, each on a connection of its own."""


class _Sent(NamedTuple):
    """A command on its way, and who waits for its answer: since when, by the loop's clock."""

    command: Command
    answer: "Future[list[int]]"
    since: float


@final
class Line:
    """The commands of one event loop, and the connections that it has for them."""

    def __init__(self, connections: Connections, loop: "AbstractEventLoop") -> None:
        self._connections = connections
        self._loop = loop
        self._client: Any = None
        self._idle: list[Any] = []
        self._waiting: dict[bytes, list[_Sent]] = {}
        self._trips: set[Task[None]] = set()
        self._alone = Semaphore(_ALONE)
        self._due: Task[None] | None = None
        self._guard: AsyncGenerator[None] | None = None

    def ask(self, command: Command, now: bytes, slot: bytes, since: float) -> "Future[list[int]]":
        """Send a command with all others that wait.

        Args:
            command: The command, of the script that decides about buckets, as that takes many.
            now: The time in microseconds, empty for the server's own.
            slot: What decides its slot in a cluster; commands of one slot and time go together.
            since: When the deadline began to run, by the loop's clock.
        """
        loop = self._loop
        answer: Future[list[int]] = loop.create_future()
        self._waiting.setdefault(now + b" " + slot, []).append(_Sent(command, answer, since))
        if self._due is None and len(self._trips) < _TRIPS:
            self._begin()
        return answer

    async def ask_alone(self, command: Command, now: bytes) -> list[int]:
        """Send a command by itself, as its script takes one at a time.

        Args:
            command: The command.
            now: The time in microseconds, empty for the server's own.

        Raises:
            StoreError: As `Connections.call`.
        """
        arguments = (b"%d" % len(command.keys), *command.keys, now, command.text)
        return await self._by_itself(command.operation, lambda: self._call(command.script, *arguments), _numbers)

    async def evaluate(self, operation: str, script: Script, *arguments: bytes) -> bytes:
        """What a script answers, as it is.

        Args:
            operation: What it is called in errors.
            script: What the server runs.
            arguments: The number of keys, the keys, and what else it takes.

        Raises:
            StoreError: As `Connections.call`.
        """
        return await self._by_itself(operation, lambda: self._call(script, *arguments), bytes)

    async def say(self, operation: str, *words: bytes) -> None:
        """Send one command, whose answer is of no importance; its second word is its key.

        Raises:
            StoreError: As `Connections.call`.
        """
        await self._by_itself(operation, lambda: self._sent(*words), bool)

    async def _sent(self, *words: bytes) -> Any:
        return await self._say(self._client or await self._connected(), *words)

    async def _by_itself(self, operation: str, ask: Callable[[], Awaitable[Any]], read: Callable[[Any], T]) -> T:
        """Ask something that nothing else goes together with, within the deadline."""
        connections = self._connections
        until = self._loop.time() + connections.deadline_ms / 1_000
        in_time = False
        try:
            with _Deadline(self._loop, until):
                async with self._alone:
                    in_time = self._has_time(until)
                    reply = await ask()
            return read(reply)
        except Exception as error:
            blames_store = in_time and not self._is_late(until)
            raise connections.failure(operation, error, blames_store=blames_store) from error

    def _has_time(self, until: float) -> bool:
        """Whether so much is left that a server which does not answer by then is to blame, and not who asked late."""
        return until - self._loop.time() > self._connections.deadline_ms / 2_000

    def _is_late(self, until: float) -> bool:
        """Whether the loop itself stood still over a deadline."""
        return self._loop.time() - until > _LATE_S

    def _begin(self) -> None:
        """Let a trip begin at the end of this turn of the loop, with what waits by then."""
        # Not by the loop's own factory: one that starts tasks at once would send before anybody can join.
        self._due = task = Task(self._trip(), loop=self._loop)
        self._trips.add(task)
        task.add_done_callback(self._arrived)

    def _arrived(self, task: Task[None]) -> None:
        """Let the next one go."""
        self._trips.discard(task)
        if self._due is task:  # cancelled before it began
            self._due = None
        if self._waiting and self._due is None:
            self._begin()

    def _joined(self) -> tuple[list[_Sent], bytes]:
        """What goes together now, and its time; the rest goes by itself, as far as there is room for trips."""
        self._due = None
        batch: list[_Sent] = []
        now = b""
        while self._waiting and not batch:
            group, waiting = next(iter(self._waiting.items()))
            batch, now = _first_of(waiting), group.partition(b" ")[0]
            if not waiting:
                del self._waiting[group]
        if self._waiting and len(self._trips) < _TRIPS:
            self._begin()
        return batch, now

    async def _trip(self) -> None:
        """One round trip; whoever has waited longest sets its deadline."""
        batch, now = self._joined()
        if not batch:
            return
        connections = self._connections
        commands = [sent.command for sent in batch]
        until = min(sent.since for sent in batch) + connections.deadline_ms / 1_000
        in_time = self._has_time(until)
        try:
            if until <= self._loop.time():
                raise TimeoutError  # noqa: TRY301 - before anything is sent, as nobody waits for the answer any more
            with _Deadline(self._loop, until):
                keys = [key for command in commands for key in command.keys]
                texts = [command.text for command in commands]
                reply = await self._call(commands[0].script, b"%d" % len(keys), *keys, now, *texts)
                answers = _read(commands, reply)
        except BaseException as error:
            blames_store = in_time and not self._is_late(until)
            for sent in batch:
                if not sent.answer.done():
                    failure = connections.failure(sent.command.operation, error, blames_store=blames_store)
                    sent.answer.set_exception(_caused(failure, error))
                    sent.answer.exception()  # whoever asked may have gone, and then nobody asks for it
            if not isinstance(error, Exception):
                raise
            return
        for sent, answer in zip(batch, answers, strict=True):
            if not sent.answer.done():
                sent.answer.set_result(answer)

    async def _call(self, script: Script, *arguments: bytes) -> Any:
        client = self._client or await self._connected()
        try:
            return await self._say(client, b"EVALSHA", script.sha, *arguments)
        except self._connections.errors.NoScriptError:
            return await self._say(client, b"EVAL", script.text, *arguments)

    async def _say(self, client: Any, *words: bytes) -> Any:
        """Send a command on a connection that no other task uses; as `Connections._say`."""
        if self._connections.is_cluster:
            return await client.execute_command(words[0].decode(), *words[1:])
        pool = client.connection_pool
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = await pool.get_connection(*self._connections.purpose)
        else:
            if _is_closed(connection):
                await connection.disconnect(nowait=True)
        try:
            if not connection.is_connected:
                await connection.connect()
            connection._writer.write(packed(words))  # noqa: SLF001 - one command at a time, so nothing piles up
            reply = await self._read(connection._reader)  # noqa: SLF001 - as in _is_closed
        except self._connections.errors.NoScriptError:
            self._idle.append(connection)
            raise
        except BaseException:
            idle, self._idle = self._idle, []
            for lost in (connection, *idle):
                await lost.disconnect(nowait=True)
                await pool.release(lost)
            raise
        self._idle.append(connection)
        return reply

    async def _read(self, reader: Any) -> bytes:
        """As `Connections._read`."""
        data, reply = b"", None
        while reply is None:
            more = await reader.read(BYTES)
            data += more
            reply = self._connections.answer(data, ended=not more)
        return reply

    async def delete(self, keys: Sequence[bytes], patterns: Sequence[bytes]) -> None:
        """Delete these keys, and all that a pattern matches; each step within the deadline.

        Raises:
            StoreError: As `Connections.call`.
        """
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
            if self._connections.is_cluster:
                client.commands_parser = _FirstKey()
            self._guard = self._until_shutdown(client, sentinel)
            await anext(self._guard)
            self._client = client
        return self._client

    async def _until_shutdown(self, client: Any, sentinel: Any) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._client = None
            while self._idle:
                await client.connection_pool.release(self._idle.pop())
            await client.aclose()
            if self._connections.is_cluster:  # after a fault, the client leaves these open
                await client.nodes_manager.aclose()
                await client.nodes_manager.aclose("startup_nodes")
            if sentinel is not None:
                await client.connection_pool.disconnect()  # as in Connections.close
                for asked in sentinel.sentinels:
                    await asked.aclose()

    async def close(self) -> None:
        """Close the client."""
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()


class _Deadline:
    """Ends what is awaited in it with a TimeoutError; later, where the loop stood still over it.

    An answer may have come meanwhile, and the loop looks at its timers before whoever waits for the answer goes on.
    """

    def __init__(self, loop: "AbstractEventLoop", until: float) -> None:
        self._loop = loop
        self._until = until
        self._has_ended = self._has_grace = False

    def __enter__(self) -> None:
        self._task = current_task(self._loop)
        self._timer = self._loop.call_at(self._until, self._end)

    def _end(self) -> None:
        now = self._loop.time()
        if now - self._until > _LATE_S and not self._has_grace:
            self._has_grace = True
            self._timer = self._loop.call_at(now + _GRACE_S, self._end)
        elif self._task is not None:
            self._has_ended = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if self._has_ended and self._task is not None and not self._task.uncancel() and kind is CancelledError:
            raise TimeoutError from error


def _first_of(waiting: list[_Sent]) -> list[_Sent]:
    """Take out those who have waited longest, as many as go together; whoever has given up meanwhile goes nowhere."""
    batch: list[_Sent] = []
    seen = buckets = 0
    for sent in waiting:
        if not sent.answer.done():
            buckets += len(sent.command.keys)
            if batch and (len(batch) == _MOST or buckets > _BUCKETS):
                break
            batch.append(sent)
        seen += 1
    del waiting[:seen]
    return batch


class _FirstKey:
    """Tells a cluster's client where keys are in commands, of which it is sent only those that have one, the first.

    The client's own asks the server for all commands there are, and takes up to 100 ms of the loop's time to read them.
    """

    async def initialize(self, node: object = None) -> None:
        """Nothing has to be learned."""

    async def get_keys(self, _command: str, key: bytes, *_: bytes) -> tuple[bytes]:
        """The keys of a command other than EVAL and EVALSHA, which the client knows."""
        return (key,)


def _numbers(reply: bytes | str) -> list[int]:
    return [int(number) for number in reply.split()]


def _read(commands: Sequence[Command], reply: bytes | str) -> list[list[int]]:
    """The numbers of each command: the verdict, and two for each of its keys; none for an adjust."""
    numbers = _numbers(reply)
    if len(commands) == 1:
        return [numbers]
    answers: list[list[int]] = []
    for command in commands:
        count = 0 if command.operation == "adjust" else 1 + 2 * len(command.keys)
        answers.append(numbers[:count])
        del numbers[:count]
    return answers


def _is_closed(connection: Any) -> bool:
    """Whether the server has closed the connection."""
    reader = connection._reader  # noqa: SLF001 - no public name tells without waiting; tests/stores pin it
    return reader is None or reader.at_eof() or reader.exception() is not None


def _caused(error: StoreError, cause: BaseException) -> StoreError:
    if error is not cause:
        error.__cause__ = cause
    return error
