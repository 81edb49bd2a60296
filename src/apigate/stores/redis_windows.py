"""Windows in Redis or Valkey: one script decides, and one round trip asks it. The time is the server's.

The connections are those of the storages of `limits`. Its own scripts are not used: its fixed window counts what it
refuses, its moving one goes by the clients' clocks, and none tells in the same round trip what is left, and until when.
"""

from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from importlib.resources import files
from typing import Any, final

from apigate.core.errors import ConfigurationError
from apigate.core.steps import Steps, run
from apigate.stores.window_connections import Connections, bounded
from apigate.stores.window_keys import kept_prefix, kept_under
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit
from apigate.throttling.window import Window
from apigate.throttling.windows import Standing

__all__ = ["RedisWindows"]

_MOST_MOMENTS = 10_000  # while one client's moments are looked through, the server answers nobody


@final
class RedisWindows:
    """Windows in one Redis, a cluster or behind Sentinel.

    Args:
        uri: The address, as `limits` takes it: `redis://`, `rediss://`, `redis+unix://`, `redis+cluster://`,
            `redis+sentinel://`, and the same with `valkey`.
        deadline_ms: How long an answer may take.
        server_time: Whether the server's clock counts. Tests turn it off, to go by the time that is handed in.
    """

    def __init__(self, uri: str, deadline_ms: int, *, server_time: bool = True) -> None:
        """Connect to nothing yet."""
        self._uri = uri
        self._deadline_ms = deadline_ms
        self._server_time = server_time
        self._connections = Connections(self._connect, _close, _close_async)

    def check(self, window: Window) -> None:
        """See that Redis can keep it."""
        if window.kind == "moving" and window.count > _MOST_MOMENTS:
            raise ConfigurationError(
                f"store: Redis keeps at most {_MOST_MOMENTS} moments of a window, and {window} may need more; "
                f"kind='sliding' needs two counts"
            )

    def acquire(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """Count the cost if there is room for it."""
        return bounded("acquire", self._deadline_ms, lambda: run(self._ask("take", limit, key, cost, now)))

    def peek(self, limit: Limit, key: Key, cost: int, now: int) -> Standing | Awaitable[Standing]:
        """What `acquire` would answer, counting nothing."""
        return bounded("peek", self._deadline_ms, lambda: run(self._ask("look", limit, key, cost, now)))

    def adjust(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> Awaitable[None] | None:
        """Count more without asking, or give back what was counted under `at`."""
        return bounded("adjust", self._deadline_ms, lambda: run(self._change(limit, key, units, at, now)))

    def reset(self, limit: Limit, key: Key | None) -> Awaitable[None] | None:
        """Forget a key; without one, find every key of the limit and forget it."""
        return bounded("reset", self._deadline_ms, lambda: run(self._reset(limit, key)))

    def close(self) -> None:
        """Close the connections of threads."""
        self._connections.close()

    async def close_async(self) -> None:
        """Close those of the running loop."""
        await self._connections.close_async()

    # ---- the steps

    def _ask(self, action: str, limit: Limit, key: Key, cost: int, now: int) -> Steps[Standing]:
        allowed, used, wait, more, at = yield self._script(action, limit, key, cost, None, now)
        return Standing(allowed == 1, int(used), None if int(wait) < 0 else int(wait), int(more), int(at), 1)

    def _change(self, limit: Limit, key: Key, units: int, at: int | None, now: int) -> Steps[None]:
        yield self._script("change", limit, key, units, at, now)

    def _reset(self, limit: Limit, key: Key | None) -> Steps[None]:
        storage, _ = self._connections.storage()
        client = _client(storage)
        if key is not None:
            yield client.delete(kept_under(limit, key))
            return
        found = client.scan_iter(match=f"{kept_prefix(limit)}*", count=1_000)
        if hasattr(found, "__aiter__"):
            yield _delete_all(client, found)
            return
        for name in found:
            client.delete(name)

    def _script(self, action: str, limit: Limit, key: Key, cost: int, at: int | None, now: int) -> Any:
        window: Window | None = limit.window
        if window is None:
            raise TypeError(f"{limit!r} has no window")
        storage, _ = self._connections.storage()
        time = -1 if self._server_time else now
        counted = -1 if at is None else at
        arguments = [window.kind, action, window.count, window.period_us, cost, counted, time]
        script: Callable[[Sequence[str], Sequence[object]], Any] = storage.window_script
        return script([kept_under(limit, key)], arguments)

    # ---- connections

    def _connect(self, for_loop: bool) -> Any:
        from limits.storage import storage_from_string

        seconds = self._deadline_ms / 2_000  # one half to connect, one to answer
        options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        if "+cluster" not in self._uri:  # there, asking anew is how a slot that moves is found
            options["retry"] = _asked_once("valkey" if self._uri.startswith("valkey") else "redis", for_loop)
        if "+sentinel" in self._uri:
            options["sentinel_kwargs"] = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        if for_loop and not self._uri.startswith("valkey"):
            options["implementation"] = "redispy"
        storage: Any = storage_from_string(f"async+{self._uri}" if for_loop else self._uri, **options)
        source = files("apigate.stores").joinpath("window.lua").read_text(encoding="utf-8")
        storage.window_script = _client(storage).register_script(source)
        return storage


def _asked_once(package: str, for_loop: bool) -> Any:
    """A client's rule for faults: none is tried again, as the deadline is for the whole answer."""
    retry = import_module(f"{package}.asyncio.retry" if for_loop else f"{package}.retry")
    return retry.Retry(import_module(f"{package}.backoff").NoBackoff(), 0)


def _client(storage: Any) -> Any:
    """The client of a storage; of one for loops it is in its `bridge`, which `limits` does not document."""
    return (storage.bridge if hasattr(storage, "bridge") else storage).get_connection()


def _close(storage: Any) -> None:
    client = _client(storage)
    client.close()
    if hasattr(client, "connection_pool"):  # none of its own for a client that Sentinel found
        client.connection_pool.disconnect()
    for asked in getattr(getattr(storage, "sentinel", None), "sentinels", ()):
        asked.close()


async def _close_async(storage: Any) -> None:
    client = _client(storage)
    await client.aclose()
    if hasattr(client, "connection_pool"):
        await client.connection_pool.disconnect()
    for asked in getattr(getattr(storage.bridge, "sentinel", None), "sentinels", ()):
        await asked.aclose()


async def _delete_all(client: Any, found: Any) -> None:
    async for name in found:
        await client.delete(name)
