"""Which store an address such as `memory://` or `file:///run/app/apigate.state` stands for.

The rule of this file: a kind of store is a row of the table. It says what its addresses look like, which options may
follow the `?`, each a whole number, and who opens it; options, and errors about them, are read in one place.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from apigate.core.errors import ConfigurationError
from apigate.core.names import nearest
from apigate.stores.memory import MemoryStore
from apigate.stores.shown import shown
from apigate.throttling.store import ThrottleStore

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["REDIS_OPTIONS", "AddressKind", "Options", "are_hosts", "open_address", "open_store", "uri_of"]

_FLAGS = ("spread", "denial_cache")
REDIS_OPTIONS = ("deadline_ms", "lease", *_FLAGS)
"""What may follow the `?` of an address of Redis or Valkey, beside what the client library takes."""

Options: TypeAlias = dict[str, Any]  # Any: whole numbers, which the stores' arguments of several types come from
"""The options of an address that are ours."""

T = TypeVar("T")

_DIGITS = 19  # no machine keeps more buckets, and Python does not read numbers of any length


class AddressKind(NamedTuple, Generic[T]):
    """How the addresses of one scheme are opened.

    `opener` is given the parts of the address, their query without these options, and the options that were written;
    it answers None for what is no such address. With `others`, options that are none of these stay in the query; else
    they are an error.
    """

    example: str
    options: tuple[str, ...]
    opener: "Callable[[SplitResult, Options], T | None]"
    others: bool = False


class _Fills(Protocol):
    """A store that can say when it is full."""

    on_fill: Callable[[int], None] | None


def open_store(store: ThrottleStore | str, on_fill: Callable[[int], None] | None = None) -> ThrottleStore:
    """The store itself, one that blocks with what keeps it off event loops, or a new one for its address.

    Args:
        store: A store, or an address: `memory://` or `file:///run/app/apigate.state`, with options as in
            `?max_keys=1000000`.
        on_fill: Told when a bounded store is full, if anybody, unless that store tells somebody else.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(store, str):
        store = MemoryStore() if store == "memory://" else open_address(store, _KINDS, _ALLOWED)
    if on_fill is not None and getattr(store, "on_fill", on_fill) is None:
        cast("_Fills", store).on_fill = on_fill
    if not callable(getattr(store, "open", None)):
        raise ConfigurationError(f"store: {store!r} is neither an address nor a store with an `open` method")
    if getattr(store, "offload", False):
        from apigate.stores.offloaded import OffloadedStore

        return OffloadedStore(store)
    return store


def open_address(address: str, kinds: Mapping[str, AddressKind[T]], allowed: str, setting: str = "store") -> T:
    """What is at an address, by its row of a table.

    Args:
        address: The address.
        kinds: The table, by scheme.
        allowed: Which there are, for an error.
        setting: What to call it in an error.

    Raises:
        ConfigurationError: No row takes it.
    """
    from urllib.parse import parse_qsl, urlencode, urlsplit

    try:
        parts = urlsplit(address)
        given = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:  # which may tell what is secret
        raise ConfigurationError(f"{setting}: {shown(address)!r} is no address: no host has such a name") from None
    kind = kinds.get(parts.scheme)
    if kind is None:
        raise ConfigurationError(f"{setting}: {shown(address)!r} is unknown; {_meant(parts.scheme, kinds)}{allowed}")
    for name, value in given:
        if not (_is_number(value) if name in kind.options else kind.others):
            raise ConfigurationError(f"{setting}: {shown(address)!r}: {_problem(name, kind)}, as in {kind.example!r}")
    if parts.fragment:
        raise ConfigurationError(f"{setting}: {shown(address)!r}: a '#' in an address is written as '%23'")
    is_whole = address.partition(":")[2].startswith("//")  # else the host would be taken for a path
    parts = parts._replace(query=urlencode([(name, value) for name, value in given if name not in kind.options]))
    options = {name: int(value) for name, value in given if name in kind.options}
    store = kind.opener(parts, options) if is_whole else None
    if store is None:
        raise ConfigurationError(f"{setting}: {shown(address)!r} is no address of a store; {_instead(parts, kind)}")
    return store


def _problem(name: str, kind: AddressKind[T]) -> str:
    """What is wrong with an option, and which there are."""
    close = nearest(name, kind.options)
    meant = "" if close is None else f" (did you mean {close!r}?)"
    wrong = f"{name!r} is not a whole number" if name in kind.options else f"{name!r} is no option{meant}"
    allowed = "the one option is" if len(kind.options) == 1 else "the options, each a whole number, are"
    return f"{wrong}; {allowed} {', '.join(kind.options)}"


def _instead(parts: "SplitResult", kind: AddressKind[T]) -> str:
    """How to write an address of a kind."""
    path = f"{parts.netloc}{parts.path}"
    if parts.scheme == "file" and path.strip("/") and not path.endswith("/"):
        return f"file:// needs an absolute path: file:///{path.lstrip('/')}"
    return f"write it as {kind.example.partition('?')[0]!r}"


def _meant(scheme: str, kinds: Mapping[str, AddressKind[T]]) -> str:
    close = nearest(scheme, kinds)
    return "" if close is None else f"did you mean '{close}://'? "


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < _DIGITS


def _memory(parts: "SplitResult", options: Options) -> ThrottleStore | None:
    if parts.netloc or parts.path:
        return None
    return MemoryStore(**options)


def _file(parts: "SplitResult", options: Options) -> ThrottleStore | None:
    from urllib.parse import unquote

    from apigate.stores.file import FileStore

    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
        return None
    return FileStore(unquote(parts.path), **options)


def _redis(parts: "SplitResult", options: Options) -> ThrottleStore | None:
    if not (parts.netloc or parts.path.strip("/")):
        return None
    from apigate.stores.redis import RedisStore

    flags = {flag: bool(options[flag]) for flag in _FLAGS if flag in options}
    return RedisStore(uri_of(parts), **{**options, **flags})


def _memcached(parts: "SplitResult", options: Options) -> ThrottleStore | None:
    from apigate.stores.memcached import MemcachedStore

    path = parts.path.strip("/")
    if not (are_hosts(parts.netloc) and not path if parts.netloc else path and not are_hosts(path)):
        return None
    return MemcachedStore(uri_of(parts), **options)


def _mongodb(parts: "SplitResult", options: Options) -> ThrottleStore | None:
    from apigate.stores.mongodb import MongoDBStore

    if not parts.netloc or "/" in parts.path[1:]:
        return None
    return MongoDBStore(uri_of(parts), **options)


def uri_of(parts: "SplitResult") -> str:
    """The address without our options."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def are_hosts(netloc: str) -> bool:
    """Whether every host comes with its port.

    >>> are_hosts("me:secret@a:1,[::1]:2"), are_hosts("a:1,b")
    (True, False)
    """
    hosts = netloc.rpartition("@")[2].split(",")
    return all(host and port.isdecimal() for host, _, port in (each.rpartition(":") for each in hosts))


_MONGODB: AddressKind[ThrottleStore] = AddressKind(
    "mongodb://host:27017/name?deadline_ms=100", ("deadline_ms",), _mongodb, others=True
)

_KINDS: Mapping[str, AddressKind[ThrottleStore]] = {
    "memory": AddressKind("memory://?max_keys=1000000", ("max_keys",), _memory),
    "file": AddressKind("file:///run/app/apigate.state?deadline_ms=50", ("max_keys", "deadline_ms"), _file),
    **{
        f"{server}{kind}": AddressKind(f"{server}{kind}://{place}?deadline_ms=50", REDIS_OPTIONS, _redis, others=True)
        for server in ("redis", "valkey")
        for kind, place in {
            "": "localhost:6379/0",
            "s": "localhost:6379/0",
            "+unix": "/run/redis.sock",
            "+cluster": "localhost:7000",
            "+sentinel": "localhost:26379/mymaster",
        }.items()
    },
    "memcached": AddressKind("memcached://host:11211?deadline_ms=100", ("deadline_ms",), _memcached),
    "mongodb": _MONGODB,
    "mongodb+srv": _MONGODB,
}

_ALLOWED = (
    "allowed are memory://, file:///path, redis://host:6379/0 and valkey://host:6379/0 (both also with s, +unix, "
    "+cluster, +sentinel), memcached://host:11211, mongodb://host/name, and a store object"
)
