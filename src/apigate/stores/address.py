"""Which store an address such as `memory://` stands for."""

from collections.abc import Callable

from apigate.core.errors import ConfigurationError
from apigate.stores.memory import DEFAULT_MAX_KEYS, MemoryStore
from apigate.throttling.store import ThrottleStore

__all__ = ["open_store"]

_DIGITS = 19  # no machine keeps more buckets, and Python does not read numbers of any length


def open_store(store: ThrottleStore | str, on_fill: Callable[[int], None]) -> ThrottleStore:
    """The store itself, or a new one for its address.

    Args:
        store: A store, `memory://`, or `memory://?max_keys=` and a number.
        on_fill: Told when a store in memory is full, unless that store tells somebody else.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(store, str):
        store = MemoryStore(_max_keys(store))
    if isinstance(store, MemoryStore) and store.on_fill is None:
        store.on_fill = on_fill
    if not callable(getattr(store, "open", None)):
        raise ConfigurationError(f"store: {store!r} is neither an address nor a store with an `open` method")
    return store


def _max_keys(address: str) -> int:
    if address == "memory://":
        return DEFAULT_MAX_KEYS
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(address)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise ConfigurationError(f"store: {address!r} is no address: {error}") from error
    if parts.scheme != "memory" or parts.netloc or parts.path:
        raise ConfigurationError(f"store: {address!r} is unknown; allowed are 'memory://' and a store object")
    if any(name != "max_keys" or not (value.isdecimal() and len(value) < _DIGITS) for name, value in options):
        raise ConfigurationError(f"store: {address!r}: the one option is max_keys, as in 'memory://?max_keys=1000000'")
    return int(dict(options).get("max_keys", DEFAULT_MAX_KEYS))
