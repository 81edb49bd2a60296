"""What buckets and windows are called in Redis and Valkey: by namespace, limit, kind, and whose they are.

Rule: no two of them have the same name, whatever namespaces, limits and clients are called. What separates the parts is
quoted within them; only the kind of a window is joined by `@`, so that a bucket and a window never meet.
"""

from urllib.parse import quote

from apigate.throttling.keys import Key

__all__ = ["named", "parts", "pattern", "tag"]

_PLAIN = ":/<> "  # what stays readable in the name of a limit


def parts(name: str, kind: str = "", *, spread: bool = False) -> tuple[bytes, bytes]:
    """What comes before and after whose it is: the namespace is the hash tag, alone or with that.

    Before it nothing is left of `=` and `#`, after it nothing of `}`, so it is told from both whatever it holds.

    Args:
        name: The limit's, which begins with its namespace and a colon.
        kind: The kind of a window, empty for buckets.
        spread: Whether each client has a slot of its own.

    >>> parts("shop:client:prod"), parts("shop:client:prod", "moving", spread=True)
    ((b'apigate:{shop}:client:prod', b''), (b'apigate:{shop', b'}:client:prod@moving'))
    """
    namespace, colon, rest = name.partition(":")
    head = quote(namespace, safe="", errors="surrogatepass")
    tail = quote(rest, safe=_PLAIN if spread else _PLAIN + "{}", errors="surrogatepass")
    if kind:
        tail += f"@{kind}"
    if spread:
        return f"apigate:{{{head}".encode(), f"}}{colon}{tail}".encode()
    return f"apigate:{{{head}}}{colon}{tail}".encode(), b""


def named(around: tuple[bytes, bytes], key: Key) -> bytes:
    r"""The name of one bucket or window: a digest comes after `#`, any other key as it is after `=`.

    >>> named(parts("shop:client", "fixed"), "ip:192.0.2.1"), named(parts("shop:client"), b"\xab")
    (b'apigate:{shop}:client@fixed=ip:192.0.2.1', b'apigate:{shop}:client#ab')
    """
    head, tail = around
    whose = b"=" + key.encode("utf-8", "surrogatepass") if isinstance(key, str) else b"#" + key.hex().encode()
    return head + whose + tail


def pattern(around: tuple[bytes, bytes]) -> bytes:
    """What matches all of a limit; quoting has left nothing in its name that would need to be escaped."""
    head, tail = around
    return head + b"[=#]*" + tail


def tag(name: bytes) -> bytes:
    """What decides the slot of a name (Redis cluster specification, "Hash tags")."""
    return name[name.index(b"{") + 1 : name.index(b"}")]
