"""Which store of responses an address such as `file:///run/app/cache` stands for.

The rule of this file: as in `apigate.stores.address`, a kind of store is a row of a table.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from apigate.caching.store import ResponseStore
from apigate.core.clock import Clock
from apigate.core.errors import ConfigurationError
from apigate.stores.address import AddressKind, Options, open_address, uri_of
from apigate.stores.breaker import StoreChange
from apigate.stores.cache_guarded import GuardedResponses
from apigate.throttling.store import ThrottleStore

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["keeps_responses", "open_response_store"]

_BESIDE = ".cache"
"""What comes after the name of a file of buckets, for that of the responses beside it."""

_METHODS = ("has_news", "learn", "get", "put", "delete")


def open_response_store(
    store: "ResponseStore | ThrottleStore | str",
    *,
    name: str,
    stage: str,
    clock: Clock,
    on_event: Callable[[StoreChange], None] | None = None,
    bodies: bool = True,
    max_lag: float | None = None,
    max_item_bytes: int | None = None,
) -> GuardedResponses:
    """The store of responses for one stage, which outlives its outages.

    Args:
        store: An address, `file:///run/app/cache?max_bytes=268435456` or `redis://host:6379/0` and its kin; a
            `FileStore` or `RedisStore` of the gateway's, to have the responses beside its buckets; or any
            `ResponseStore`.
        name: The gateway's name, which keeps apps apart.
        stage: The stage's name.
        clock: The clock that requests go by.
        on_event: Told of each outage and each recovery; must not raise.
        bodies: Whether there will be responses in it; without, a file is made for invalidations only.
        max_lag: Seconds after which what others invalidated is known at the latest; for Redis, 1 if it is not given.
        max_item_bytes: The longest value, which is a response with its fields; for Redis, 1 MiB and 64 KiB if it is not
            given.

    Raises:
        ConfigurationError: It is none of these, or cannot be used.
    """
    namespace = f"{quote(name, safe='')}:{quote(stage, safe='')}"
    remote = {"max_lag": max_lag, "max_item_bytes": max_item_bytes}
    given: Options = {key: value for key, value in remote.items() if value is not None}
    found = (
        open_address(store, _kinds(namespace, given, bodies=bodies), _ALLOWED, "cache shared")
        if isinstance(store, str)
        else _beside(store, namespace, given, bodies=bodies)
    )
    return GuardedResponses(found, clock, on_event)


def keeps_responses(store: object) -> bool:
    """Tell whether a gateway's store can have responses beside its buckets."""
    from apigate.stores.file import FileStore
    from apigate.stores.redis import RedisStore

    return isinstance(store, (FileStore, RedisStore))


def _beside(store: ResponseStore | ThrottleStore, namespace: str, given: Options, *, bodies: bool) -> ResponseStore:
    """The store beside the buckets of another, or the store itself."""
    from apigate.stores.file import FileStore

    if isinstance(store, FileStore):
        from apigate.stores.cache_file import FileResponses

        return FileResponses(f"{store.path}{_BESIDE}", name=namespace, deadline_ms=store.deadline_ms, bodies=bodies)
    connections = getattr(store, "connections", None)
    if connections is not None and not hasattr(store, "learn"):
        from apigate.stores.cache_redis import RedisResponses

        return RedisResponses(connections, name=namespace, **given)
    missing = [method for method in _METHODS if not callable(getattr(store, method, None))]
    if missing:
        raise ConfigurationError(
            f"cache shared: {store!r} keeps no responses, as it has no {' and no '.join(missing)}; {_ALLOWED}"
        )
    return store  # type: ignore[return-value]  # it has what a ResponseStore has


def _kinds(namespace: str, given: Options, *, bodies: bool) -> Mapping[str, AddressKind[ResponseStore]]:
    file = AddressKind[ResponseStore](
        "file:///run/app/cache?max_bytes=268435456",
        ("max_bytes", "deadline_ms"),
        partial(_file, namespace, bodies=bodies),
    )
    return {
        "file": file,
        **{
            f"{server}{kind}": AddressKind[ResponseStore](
                f"{server}{kind}://{place}?deadline_ms=50",
                ("deadline_ms",),
                partial(_redis, namespace, given),
                others=True,
            )
            for server in ("redis", "valkey")
            for kind, place in _PLACES.items()
        },
    }


def _file(namespace: str, parts: "SplitResult", options: Options, *, bodies: bool) -> ResponseStore | None:
    from urllib.parse import unquote

    from apigate.stores.cache_file import FileResponses

    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
        return None
    return FileResponses(unquote(parts.path), name=namespace, bodies=bodies, **options)


def _redis(namespace: str, given: Options, parts: "SplitResult", options: Options) -> ResponseStore | None:
    if not (parts.netloc or parts.path.strip("/")):
        return None
    from apigate.stores.cache_redis import RedisResponses

    return RedisResponses(uri_of(parts), name=namespace, **given, **options)


_PLACES = {
    "": "localhost:6379/0",
    "s": "localhost:6379/0",
    "+unix": "/run/redis.sock",
    "+cluster": "localhost:7000",
    "+sentinel": "localhost:26379/mymaster",
}

_ALLOWED = (
    "allowed are file:///path, redis://host:6379/0 and valkey://host:6379/0 (both also with s, +unix, +cluster, "
    "+sentinel), the gateway's own store where that is one of these, and an object with the methods of a ResponseStore"
)
