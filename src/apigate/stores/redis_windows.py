"""Windows in Redis or Valkey: one script decides, and one round trip asks it. The time is the server's.

They share the connections of the buckets. The scripts of `limits` are not used: its fixed window counts what it
refuses, its moving one goes by the clients' clocks, and none tells in the same round trip what is left, and until when.
"""

from collections.abc import Awaitable
from typing import final

from apigate.core.errors import ConfigurationError
from apigate.core.loops import running_loop
from apigate.core.steps import Steps, run
from apigate.stores.connection import Command, Connections, load_script
from apigate.stores.redis_names import named, parts, pattern
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit, window_of
from apigate.throttling.window import Window
from apigate.throttling.windows import Standing

__all__ = ["RedisWindows"]

_MOST_MOMENTS = 10_000  # while one client's moments are looked through, the server answers nobody


@final
class RedisWindows:
    """Windows in one Redis, a cluster or behind Sentinel.

    Args:
        connections: How the server is reached; whoever made them closes them.
        spread: In a cluster, whether the windows of each client lie in a slot of their own.
        server_time: Whether the server's clock counts. Tests turn it off, to go by the time that is handed in.
    """

    def __init__(self, connections: Connections, *, spread: bool = False, server_time: bool = True) -> None:
        """Ask nothing yet."""
        self._connections = connections
        self._spread = spread
        self._server_time = server_time
        self._script = load_script("window.lua")

    def check(self, window: Window) -> None:
        """See that Redis can keep it."""
        if window.kind == "moving" and window.count > _MOST_MOMENTS:
            raise ConfigurationError(
                f"store: Redis keeps at most {_MOST_MOMENTS} moments of a window, and {window} may need more; "
                f"kind='sliding' needs two counts"
            )

    def acquire(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """Count the cost if there is room for it."""
        return run(self._stood("acquire", "take", limit, key, cost, now))

    def peek(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """What `acquire` would answer, counting nothing."""
        return run(self._stood("peek", "look", limit, key, cost, now))

    def adjust(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> Awaitable[None] | None:
        """Count more without asking, or give back what was counted under `at`."""
        return run(self._changed(limit, key, units, at, now))

    def reset(self, limit: Limit, key: Key | None) -> Awaitable[None] | None:
        """Forget a key; without one, find every key of the limit and forget it."""
        around = self._around(limit, window_of(limit))
        keys, patterns = ([], [pattern(around)]) if key is None else ([named(around, key)], [])
        loop = running_loop()
        if loop is not None:
            return self._connections.line(loop).delete(keys, patterns)
        self._connections.delete(keys, patterns)
        return None

    def _stood(self, operation: str, action: str, limit: Limit, key: Key, cost: int, now: int) -> Steps[Standing]:
        allowed, used, wait, more, at = yield self._told(operation, action, limit, key, cost, None, now)
        return Standing(allowed == 1, used, None if wait < 0 else wait, more, at, 1)

    def _changed(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> Steps[None]:
        yield self._told("adjust", "change", limit, key, units, at, now)

    def _told(
        self, operation: str, action: str, limit: Limit, key: Key, cost: int, at: int | None, now: int
    ) -> list[int] | Awaitable[list[int]]:
        """What the script answers."""
        window = window_of(limit)
        counted = -1 if at is None else at
        text = b"%b %b %d %d %d %d" % (
            window.kind.encode(), action.encode(), window.count, window.period_us, cost, counted
        )  # fmt: skip
        command = Command(operation, self._script, [named(self._around(limit, window), key)], text)
        time = b"" if self._server_time else b"%d" % now
        loop = running_loop()
        if loop is not None:
            return self._connections.line(loop).ask_alone(command, time)
        self._connections.begin()
        return self._connections.call(command, time)

    def _around(self, limit: Limit, window: Window) -> tuple[bytes, bytes]:
        return parts(limit.name, window.kind, spread=self._spread)
