"""What an address of Redis or Valkey may look like, checked before a client is made of it.

Rule: a slip of the pen is an error that names it, when the store is built; the clients of clusters and of Sentinel take
no options from an address, and would not say so.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from apigate.core.errors import ConfigurationError
from apigate.core.names import nearest
from apigate.stores.address import REDIS_OPTIONS, are_hosts
from apigate.stores.shown import shown

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["check_redis_address", "refused_by_client"]

_OURS = f"apigate's options are {', '.join(REDIS_OPTIONS)}"
_SLASH = ", and a '/' in a password as '%2F'"


def check_redis_address(uri: str) -> None:
    """See that an address without our options can be one.

    Args:
        uri: The address.

    Raises:
        ConfigurationError: It has our options, options that nobody would read, a host without a port, or a path that is
            no database, socket or master.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(uri)
    except ValueError:  # which may tell what is secret
        raise ConfigurationError(f"store: {shown(uri)!r} is no address: no host has such a name") from None
    names = _options(uri)
    for name in names:
        if name in REDIS_OPTIONS:
            raise ConfigurationError(
                f"store: {shown(uri)!r}: options in an address, as {name!r} here, are read by Gateway(store=); give "
                f"them to RedisStore as arguments, {name}=..."
            )
    if parts.scheme.endswith(("+cluster", "+sentinel")):
        _check_several(uri, parts, names)
    elif parts.scheme.endswith("+unix"):
        if parts.netloc.rpartition("@")[2] or parts.path.endswith("/") or not parts.path.startswith("/"):
            raise ConfigurationError(
                f"store: {shown(uri)!r} names no socket; write its whole path, as '{parts.scheme}:///run/redis.sock'"
            )
    elif not (parts.path.strip("/") or "0").isdecimal():
        raise ConfigurationError(
            f"store: {shown(uri)!r}: the path after the host is the number of a database; write it as "
            f"'{parts.scheme}://localhost:6379/0'{_SLASH if '@' in parts.path else ''}"
        )


def refused_by_client(uri: str, library: str, error: Exception) -> ConfigurationError:
    """What to raise where the client library does not take an address.

    Args:
        uri: The address.
        library: The client library.
        error: What it raised, which may tell what is secret.
    """
    name = next((name for name in _options(uri) if name in str(error)), None)
    if name is None:
        return ConfigurationError(
            f"store: {shown(uri)!r}: the client library {library} cannot use its host, port or options"
        )
    if isinstance(error, TypeError):
        problem = (
            f"{name!r} is no option{_meant(name)}; {_OURS}, and the client library {library}, to which others go, has "
            f"no such one"
        )
    else:
        problem = f"the client library {library} cannot use the value of the option {name!r}"
    return ConfigurationError(f"store: {shown(uri)!r}: {problem}")


def _check_several(uri: str, parts: "SplitResult", names: Sequence[str]) -> None:
    """The same of a cluster or of Sentinel, which has several hosts and leaves its client no options."""
    kind = "a cluster" if parts.scheme.endswith("+cluster") else "Sentinel"
    if names:
        raise ConfigurationError(
            f"store: {shown(uri)!r}: {names[0]!r} is no option for {kind}{_meant(names[0])}; {_OURS}, and the client "
            f"library takes none there"
        )
    if kind == "Sentinel" and not parts.path.strip("/"):
        raise ConfigurationError(
            f"store: {shown(uri)!r} names no master; add the name that Sentinel has for it, as in "
            f"'{parts.scheme}://host:26379/mymaster'"
        )
    if kind == "Sentinel" and "/" in parts.path.strip("/"):
        raise ConfigurationError(
            f"store: {shown(uri)!r}: the path is the name of a master alone, as in "
            f"'{parts.scheme}://host:26379/mymaster'; the database is 0"
        )
    if kind == "a cluster" and parts.path not in ("", "/", "/0"):
        raise ConfigurationError(f"store: {shown(uri)!r}: a cluster has no database but 0, so leave the path away")
    if not are_hosts(parts.netloc):
        raise ConfigurationError(f"store: {shown(uri)!r}: each host of {kind} comes with its port, as host:7000")


def _options(uri: str) -> Sequence[str]:
    from urllib.parse import parse_qsl

    return [name for name, _ in parse_qsl(uri.partition("?")[2].partition("#")[0], keep_blank_values=True)]


def _meant(name: str) -> str:
    close = nearest(name, REDIS_OPTIONS)
    return "" if close is None else f" (did you mean {close!r}?)"
