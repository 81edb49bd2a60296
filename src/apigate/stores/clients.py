"""What the clients of Redis and Valkey are made of, loaded when a store is built.

Rule: no call waits for a module. A process loads about two hundred of them, which takes as long as a whole deadline,
and would have the first request to a server that is well be the start of an outage.
"""

from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

from apigate.core.errors import ConfigurationError

__all__ = ["load_clients"]

_STORAGES = ("redis", "valkey", "coredis")
"""What the storages of `limits` look for before they take the one that is asked for: each that is installed."""

_CONNECTING = ("limits.storage", "concurrent.futures.thread", "encodings.idna", "secrets", "apigate.stores.line")
"""What else is loaded by whoever connects. Threads need no line, but asyncio is loaded by the clients in any case."""


def load_clients(library: str) -> None:
    """Load the client library, for threads and for tasks, and all that connecting needs; connects to nothing.

    Args:
        library: `redis` or `valkey`.

    Raises:
        ConfigurationError: It is not installed.
    """
    if find_spec(library) is None:
        raise ConfigurationError(
            f"store: {library} addresses need the package {library!r}; pip install 'apigate[{library}]'"
        )
    for module in (library, *_CONNECTING):
        import_module(module)
    for module in _STORAGES:
        with suppress(ImportError):  # as limits does it
            import_module(module)
