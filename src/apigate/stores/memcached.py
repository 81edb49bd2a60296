"""Windows in Memcached: fixed and sliding ones, and moving ones of moderate counts. No buckets.

A window is one item, "start previous count" or the like, and changed by Memcached's own compare-and-set. Memcached may
drop items when its memory is full, and then forgets whom it counted; give it room.
"""

from collections.abc import Sequence
from importlib import import_module
from threading import Lock
from typing import Any, final

from apigate.core.errors import ConfigurationError, StoreError
from apigate.core.forks import renew_after_fork
from apigate.stores.deadline import DEFAULT_DEADLINE_MS, checked_deadline_ms
from apigate.stores.window_connections import Connections
from apigate.stores.window_keys import short
from apigate.stores.written_windows import WindowsOnly, need_package
from apigate.throttling.limit import Limit
from apigate.throttling.window import Window

__all__ = ["MemcachedStore"]

_LONGEST_NAME = 250
_LONGEST_LIFE = 30 * 86_400  # seconds; a larger number is the date of an end
_MOST_MOMENTS = 20_000  # an item holds a megabyte, an entry takes about 25 bytes, and a debt may double it
_MOST_CONNECTIONS = 32  # of an event loop; the client's own default is 2
_SPARE = 2  # seconds: the server counts whole ones by a clock of its own, so an item may go a second early


@final
class MemcachedStore(WindowsOnly):
    """Windows in Memcached, on one server or several.

    Args:
        uri: `memcached://host:11211`, several as `host:port,host:port`, or `memcached:///path/of/a.socket`.
        deadline_ms: Milliseconds that an answer may take, a whole number from 1 to 60,000.
        host_time: Whether this host's wall clock counts. Tests turn it off, to go by the time that is handed in.

    Raises:
        ConfigurationError: No client for Memcached is installed, or the deadline is no such number.
    """

    def __init__(self, uri: str, deadline_ms: int = DEFAULT_DEADLINE_MS, *, host_time: bool = True) -> None:
        """Connect to nothing yet."""
        need_package("memcached", "pymemcache", "memcachio")
        deadline_ms = checked_deadline_ms(deadline_ms, "MemcachedStore")
        super().__init__(uri, _Items(uri, deadline_ms), deadline_ms, host_time=host_time)


@final
class _Items:
    """The items of a Memcached; its clients are those of the storages of `limits`."""

    def __init__(self, uri: str, deadline_ms: int) -> None:
        self._uri = uri
        self._seconds = deadline_ms / 2_000  # one half to connect, one to answer
        self._connections = Connections(self._connect, _close, _close_async)
        self._making = Lock()
        self._client: Any = None
        renew_after_fork(self)

    def renew(self) -> None:
        """Take a new lock in a forked child, where no other thread makes a client."""
        self._making = Lock()

    def check(self, window: Window) -> None:
        """See that Memcached can keep it."""
        life = window.window * (2 if window.kind == "sliding" else 1)
        if life + _SPARE > _LONGEST_LIFE:
            raise ConfigurationError(f"store: Memcached keeps nothing for more than 30 days, and {window} needs longer")
        if window.kind == "moving" and window.count > _MOST_MOMENTS:
            raise ConfigurationError(
                f"store: Memcached keeps at most {_MOST_MOMENTS} moments in an item, and {window} may need more; "
                f"kind='sliding' needs two counts"
            )

    def read(self, name: str) -> Any:
        """The numbers of an item, and its version."""
        storage, waits = self._connections.storage()
        if waits:
            return self._read_async(storage, _key(name))
        text, version = storage.storage.gets(_key(name))
        return _numbers(text), version

    async def _read_async(self, storage: Any, key: str) -> tuple[list[int], Any]:
        client = await storage.bridge.get_storage()
        item = (await client.gets(key.encode())).get(key.encode())
        return (_numbers(item.value), item.cas) if item is not None else ([], None)

    def write(self, limit: Limit, name: str, numbers: Sequence[int], seen: Any, life_ms: int) -> Any:  # noqa: ARG002
        """Add an item, or change one of this version."""
        storage, waits = self._connections.storage()
        text, seconds = " ".join(map(str, numbers)), -(-life_ms // 1_000) + _SPARE
        if waits:
            return self._write_async(storage, _key(name), text, seen, seconds)
        if seen is None:
            return storage.storage.add(_key(name), text, expire=seconds, noreply=False)
        return storage.storage.cas(_key(name), text, seen, expire=seconds, noreply=False) is True

    async def _write_async(self, storage: Any, key: str, text: str, seen: Any, seconds: int) -> bool:
        client = await storage.bridge.get_storage()
        if seen is None:
            return bool(await client.add(key.encode(), text.encode(), expiry=seconds))
        return bool(await client.cas(key.encode(), text.encode(), seen, expiry=seconds))

    def drop(self, name: str) -> Any:
        """Delete an item."""
        storage, waits = self._connections.storage()
        if waits:
            return storage.clear(_key(name))
        storage.storage.delete(_key(name), noreply=False)
        return None

    def drop_all(self, limit: Limit) -> Any:
        """Refuse: Memcached does not tell which items it has."""
        raise StoreError("reset", f"Memcached cannot list the keys of {limit.name!r}; reset them one by one")

    def close(self) -> None:
        """Close the connections of threads."""
        self._connections.close()
        self._client = None

    async def close_async(self) -> None:
        """Close those of the running loop."""
        await self._connections.close_async()

    # ---- connections

    def _connect(self, for_loop: bool) -> Any:
        from limits.storage import storage_from_string

        seconds: Any = self._seconds
        if for_loop:
            options: dict[str, Any] = {"connect_timeout": seconds, "read_timeout": seconds, "blocking_timeout": seconds}
            options["max_connections"] = _MOST_CONNECTIONS
            return storage_from_string(f"async+{self._uri}", **options)
        self._client = None
        options = {"connect_timeout": seconds, "timeout": seconds, "no_delay": True, "client_getter": self._one_client}
        return storage_from_string(self._uri, **options)

    def _one_client(self, _module: object, hosts: Sequence[Any], **options: Any) -> Any:
        """One client with a pool for all threads; `limits` would make one for each."""
        with self._making:
            if self._client is None:
                if len(hosts) > 1:
                    make = import_module("pymemcache.client.hash").HashClient
                    self._client = make(hosts, use_pooling=True, **options)
                else:
                    self._client = import_module("pymemcache.client.base").PooledClient(hosts[0], **options)
            return self._client


def _key(name: str) -> str:
    return short(name, _LONGEST_NAME)


def _numbers(text: bytes | None) -> list[int]:
    return [int(number) for number in text.split()] if text else []


def _close(storage: Any) -> None:
    storage.storage.close()


async def _close_async(storage: Any) -> None:
    client = await storage.bridge.get_storage()
    client.connection_pool.close()
