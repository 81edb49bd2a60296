"""Responses and invalidations in Redis or Valkey, for the processes of all machines.

Rule: no hit waits for the server. What others invalidate is asked for by one request of each process in half the bound
at most; and whoever looks for a value is told of it in the same round trip. All keys of a stage have one hash tag, so
in a cluster one node has them. Every key has a time to live, so that nothing stays which nobody uses.

The log names paths and tags as they are, also where values are encrypted.
"""

import os
from collections.abc import Awaitable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Final, Literal, final
from urllib.parse import quote

from apigate.caching.store import LOG_BYTES, Found, Invalidation, Mark, News, Published, mark_of
from apigate.core.errors import ConfigurationError, StoreError
from apigate.core.loops import running_loop
from apigate.core.steps import Steps, run
from apigate.stores.deadline import DEFAULT_DEADLINE_MS, checked_deadline_ms
from apigate.stores.redis_connection import Connections, load_script

__all__ = ["DEFAULT_MAX_ITEM_BYTES", "DEFAULT_MAX_LAG", "RECORDS", "RedisResponses"]

DEFAULT_MAX_LAG: Final = 1.0
"""Seconds."""

DEFAULT_MAX_ITEM_BYTES: Final = (1 << 20) + (64 << 10)
"""What Amazon API Gateway keeps of a response at most, and 64 KiB for its fields."""

RECORDS: Final = 1_000
"""How many invalidations a log keeps: whoever is further behind takes all for invalid."""

_LEAST_LAG, _LONGEST_LAG = 0.05, 3_600.0
_LARGEST_ITEM = 64 << 20
_LOG_MS = 7 * 24 * 3_600_000
_LONGEST_MS = 366 * 24 * 3_600_000
_KINDS: tuple[Literal["all", "scope", "prefix"], ...] = ("all", "scope", "prefix")
_SIZE = Struct(">H")


@final
class RedisResponses:
    """A `ResponseStore` in Redis or Valkey.

    Args:
        server: An address as `RedisStore` takes it, or the connections of one, to use the same.
        name: Whose values and invalidations these are: of the gateway and stage.
        max_lag: Seconds after which what others invalidated is known at the latest, from 0.05 to 3,600.
        max_item_bytes: The longest value, from 1,024 to 64 MiB.
        deadline_ms: Milliseconds within which the server has to answer, from 1 to 60,000; of connections that are given
            theirs.

    Attributes:
        max_lag_us: The same in microseconds.
        max_item_bytes: The longest value that it takes.

    Raises:
        ConfigurationError: A setting cannot be used, or the client library is not installed.
    """

    def __init__(
        self,
        server: str | Connections,
        *,
        name: str,
        max_lag: float = DEFAULT_MAX_LAG,
        max_item_bytes: int = DEFAULT_MAX_ITEM_BYTES,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
    ) -> None:
        """Check the settings; the server is asked at first use."""
        if not _LEAST_LAG <= max_lag <= _LONGEST_LAG:
            raise ConfigurationError(
                f"RedisResponses max_lag: {max_lag!r} is not a number of seconds from {_LEAST_LAG:g} to "
                f"{_LONGEST_LAG:,.0f}"
            )
        if not isinstance(max_item_bytes, int) or not 1 << 10 <= max_item_bytes <= _LARGEST_ITEM:
            raise ConfigurationError(
                f"RedisResponses max_item_bytes: {max_item_bytes!r} is not a whole number from 1,024 to "
                f"{_LARGEST_ITEM:,}"
            )
        if isinstance(server, str):
            server = Connections(server, checked_deadline_ms(deadline_ms, "RedisResponses"))
        self.connections: Connections = server
        self.max_lag_us: int = round(max_lag * 1_000_000)
        self.max_item_bytes: int = max_item_bytes
        self._prefix = f"apigate:cache:{{{quote(name, safe='', errors='surrogatepass')}}}:".encode()
        self._log = self._prefix + b"log"
        self._script = load_script("redis_responses.lua")

    def __repr__(self) -> str:
        """The address, without what is secret."""
        return f"<RedisResponses {self.connections.shown}>"

    def close(self) -> None:
        """Close the connections of this process's threads; they are made anew where they are needed again."""
        self.connections.close()

    async def close_async(self) -> None:
        """Close the connections of this process's threads and of the running event loop."""
        await self.connections.close_async()

    def has_news(self, known: Mark, now_us: int) -> bool:  # noqa: ARG002 - only the server knows
        """Always whether: it is asked by time."""
        return True

    def learn(self, known: Mark, records: Sequence[Invalidation] = ()) -> News | Awaitable[News]:
        """Append some records, and tell everything beyond a mark, these included; in one round trip."""
        return run(self._learned(known, records))

    def get(self, key: bytes, known: Mark) -> Found | Awaitable[Found]:
        """The value of a key, and what the log holds beyond a mark; in one round trip."""
        return run(self._found(key, known))

    def put(self, key: bytes, value: bytes, seconds: float) -> Awaitable[None] | None:
        """Keep a value, for so many seconds; in one round trip."""
        if len(value) > self.max_item_bytes:
            return None
        milliseconds = b"%d" % max(1, min(round(seconds * 1_000), _LONGEST_MS))
        return run(self._said("put", b"SET", self._key(key), value, b"PX", milliseconds))

    def delete(self, key: bytes) -> Awaitable[None] | None:
        """Forget the value of a key."""
        return run(self._said("delete", b"DEL", self._key(key)))

    def _key(self, key: bytes) -> bytes:
        return self._prefix + key.hex().encode()

    def _learned(self, known: Mark, records: Sequence[Invalidation]) -> Steps[News]:
        news, _ = yield from self._answered("invalidate" if records else "learn", (self._log,), known, records)
        return news

    def _found(self, key: bytes, known: Mark) -> Steps[Found]:
        news, value = yield from self._answered("get", (self._log, self._key(key)), known, ())
        return Found(value, news)

    def _answered(
        self, operation: str, keys: Sequence[bytes], known: Mark, records: Sequence[Invalidation]
    ) -> Steps[tuple[News, bytes | None]]:
        packed = b"".join(_packed(record) for record in records)
        arguments = known, os.urandom(LOG_BYTES), packed, b"%d" % RECORDS, b"%d" % _LOG_MS
        words = b"%d" % len(keys), *keys, *arguments
        loop = running_loop()
        if loop is not None:
            reply = yield self.connections.line(loop).evaluate(operation, self._script, *words)
        else:
            self.connections.begin()
            reply = self.connections.evaluate(operation, self._script, *words)
        try:
            return _read(reply)
        except (ValueError, IndexError, struct_error) as error:
            raise StoreError(operation, "the server answered something else than the script does") from error

    def _said(self, operation: str, *words: bytes) -> Steps[None]:
        loop = running_loop()
        if loop is not None:
            yield self.connections.line(loop).say(operation, *words)
        else:
            self.connections.begin()
            self.connections.say(operation, *words)


def _packed(record: Invalidation) -> bytes:
    """A record as the script takes it."""
    raw = bytes([_KINDS.index(record.kind)]) + record.text.encode("utf-8", "surrogatepass")
    return _SIZE.pack(len(raw)) + raw


def _read(reply: bytes) -> tuple[News, bytes | None]:
    """What the script answers."""
    end = reply.index(b"\n", LOG_BYTES)
    last, since, count, has_value = map(int, reply[LOG_BYTES:end].split())
    at = end + 1
    records: list[Published] = []
    for position in range(since + 1, since + 1 + count):
        (size,) = _SIZE.unpack_from(reply, at)
        at += _SIZE.size
        kind, text = reply[at], reply[at + 1 : at + size].decode("utf-8", "surrogatepass")
        records.append(Published(position, Invalidation(_KINDS[kind], text)))
        at += size
    news = News(mark_of(reply[:LOG_BYTES], last), records, since)
    return news, reply[at:] if has_value else None
