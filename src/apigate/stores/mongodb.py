"""Windows in MongoDB: of every kind, each a document that is replaced only in the version that was read. No buckets.

The collection and its index, by which MongoDB drops what is over, are those of the storages of `limits`. A moving
window sends all its moments either way with each request; where a count is in the thousands, a sliding one is better.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, final

from apigate.core.clock import SystemClock
from apigate.stores.deadline import DEFAULT_DEADLINE_MS, checked_deadline_ms
from apigate.stores.storage_connections import Connections
from apigate.stores.written_names import kept_prefix
from apigate.stores.written_windows import WindowsOnly, need_package
from apigate.throttling.limit import Limit
from apigate.throttling.window import Window

__all__ = ["MongoDBStore"]

_SPARE = 60  # seconds that a document is kept on, so that a server whose clock is ahead drops none early
_COLLECTION = "windows"


@final
class MongoDBStore(WindowsOnly):
    """Windows in MongoDB.

    Args:
        uri: `mongodb://host:27017/name`, or `mongodb+srv://`, with any options that its clients know; `name` is the
            database, `apigate` if there is none.
        deadline_ms: Milliseconds that an answer may take, a whole number from 1 to 60,000.
        host_time: Whether this host's wall clock counts. Tests turn it off, to go by the time that is handed in.

    Raises:
        ConfigurationError: No client for MongoDB is installed, or the deadline is no such number.
    """

    def __init__(self, uri: str, deadline_ms: int = DEFAULT_DEADLINE_MS, *, host_time: bool = True) -> None:
        """Connect to nothing yet."""
        need_package("mongodb", "pymongo", "motor")
        deadline_ms = checked_deadline_ms(deadline_ms, "MongoDBStore")
        super().__init__(uri, _Documents(uri, deadline_ms), deadline_ms, host_time=host_time)


@final
class _Documents:
    """The documents of a collection; its clients are those of the storages of `limits`."""

    def __init__(self, uri: str, deadline_ms: int) -> None:
        self._uri = uri
        self._deadline_ms = deadline_ms
        self._connections = Connections(self._connect, _close, _close_async)
        self._clock = SystemClock()
        self._indexed = False  # whether a thread of ours has seen to the index; `limits` sees to it under a loop

    def check(self, window: Window) -> None:
        """Every window can be kept: a document holds 16 megabytes."""

    def read(self, name: str) -> Any:
        """The numbers of a document, and its version."""
        storage, waits = self._connections.storage()
        if waits:
            return self._read_async(storage, name)
        if not self._indexed:
            storage.windows.create_index("expireAt", expireAfterSeconds=0)
            self._indexed = True
        return _numbers(storage.windows.find_one({"_id": name}))

    async def _read_async(self, storage: Any, name: str) -> tuple[list[int], str | None]:
        await storage.create_indices()
        return _numbers(await storage.database[_COLLECTION].find_one({"_id": name}))

    def write(self, limit: Limit, name: str, numbers: Sequence[int], seen: Any, life_ms: int) -> Any:
        """Insert a document, or replace one of this version."""
        storage, waits = self._connections.storage()
        document = {
            "_id": name,
            "limit": kept_prefix(limit),
            "numbers": list(numbers),
            "version": token_hex(12),
            "expireAt": datetime.fromtimestamp(self._clock.wall() + life_ms / 1_000 + _SPARE, UTC),
        }
        if waits:
            return self._write_async(storage, document, seen)
        if seen is not None:
            return storage.windows.replace_one({"_id": name, "version": seen}, document).matched_count == 1
        try:
            storage.windows.insert_one(document)
        except storage.lib_errors.DuplicateKeyError:
            return False
        return True

    async def _write_async(self, storage: Any, document: dict[str, Any], seen: Any) -> bool:
        windows = storage.database[_COLLECTION]
        if seen is not None:
            replaced = await windows.replace_one({"_id": document["_id"], "version": seen}, document)
            return bool(replaced.matched_count == 1)
        try:
            await windows.insert_one(document)
        except storage.lib_errors.DuplicateKeyError:
            return False
        return True

    def drop(self, name: str) -> Any:
        """Delete a document."""
        return self._delete({"_id": name})

    def drop_all(self, limit: Limit) -> Any:
        """Delete every document of a limit."""
        return self._delete({"limit": kept_prefix(limit)})

    def _delete(self, which: dict[str, str]) -> Any:
        storage, waits = self._connections.storage()
        if waits:
            return storage.database[_COLLECTION].delete_many(which)
        storage.windows.delete_many(which)
        return None

    def close(self) -> None:
        """Close the connections of threads."""
        self._connections.close()

    async def close_async(self) -> None:
        """Close those of the running loop."""
        await self._connections.close_async()

    def _connect(self, for_loop: bool) -> Any:
        from limits.storage import storage_from_string

        names = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS", "timeoutMS")
        options: dict[str, Any] = dict.fromkeys(names, self._deadline_ms)
        options |= {"retryReads": False, "retryWrites": False}  # the deadline is for the whole answer
        uri = f"async+{self._uri}" if for_loop else self._uri
        storage: Any = storage_from_string(uri, database_name=_database(self._uri), **options)
        if not for_loop:  # what `limits` would do at first use: each thread for itself, and with a lock or not, waiting
            storage._storage = storage._init_mongo_client(self._uri, **options)  # noqa: SLF001
        return storage


def _numbers(document: Any) -> tuple[list[int], str | None]:
    return (document["numbers"], document["version"]) if document else ([], None)


def _database(uri: str) -> str:
    """The database that an address names."""
    path = uri.partition("://")[2].partition("?")[0].partition("/")[2]
    return path or "apigate"


def _close(storage: Any) -> None:
    storage.storage.close()


async def _close_async(storage: Any) -> None:
    storage.storage.close()
