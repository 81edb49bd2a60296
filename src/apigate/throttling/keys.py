"""Who is counted: the client's address behind a number of trusted proxies, and how an identity becomes a bucket's key.

The trust rule: nothing in a request says who sent it. The peer's address does; a forwarding field does only for as
many hops, counted from the right, as the operator says are proxies of their own. What stands further left was written
by somebody else and is never read.

Source: RFC 7239, section 5.2 and 8.1; the /64 of an IPv6 address is what one subscriber is given (RFC 6177).
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["LONGEST_KEY", "Key", "address_of", "bucket_key", "crowd_of", "forwarded_for", "hop_address", "network_of"]

Key = str | bytes
"""Whose bucket it is: empty for a bucket that all share; long keys come as a digest of 16 bytes."""

LONGEST_KEY = 32


def bucket_key(identity: str) -> Key:
    """The key of an identity's bucket: itself if it is short and ASCII, else a digest of 16 bytes.

    So that no client can make the store keep a long text.

    >>> bucket_key("alice"), len(bucket_key("x" * 33))
    ('alice', 16)
    """
    if len(identity) <= LONGEST_KEY and identity.isascii():
        return identity
    from hashlib import blake2b

    return blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def address_of(text: str) -> "IPv4Address | IPv6Address | None":
    """The address in a peer's name or one member of a forwarding field: without port, brackets and zone.

    An IPv4 address mapped into IPv6 is the IPv4 address. None where there is no address, as in `unknown` or the path
    of a unix socket.

    >>> address_of("[2001:db8::1]:443"), address_of("192.0.2.1:80"), address_of("_hidden")
    (IPv6Address('2001:db8::1'), IPv4Address('192.0.2.1'), None)
    """
    from ipaddress import IPv6Address, ip_address

    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def network_of(address: "IPv4Address | IPv6Address") -> str:
    """What is counted as one client: an IPv4 address, or the /64 of an IPv6 address.

    >>> network_of(address_of("2001:db8:1:2:3:4:5:6"))
    '2001:db8:1:2::/64'
    """
    if address.version == 4:
        return str(address)
    return f"{type(address)(int(address) >> 64 << 64)}/64"


def forwarded_for(values: Sequence[str], most: int) -> list[str]:
    """The `for` parameters of a `Forwarded` field, in order; an element without one, or with two, counts as unknown.

    Read from the right, as only the right end was written by proxies of ours: a quote that a client left open on the
    left can then not swallow what they appended, nor does what it wrote there cost time.

    Args:
        values: The field's values.
        most: How many elements are read, from the right.

    >>> forwarded_for(['for=192.0.2.1;proto=https, for="[2001:db8::1]:80";host="a,for=198.51.100.1"'], 2)
    ['192.0.2.1', '[2001:db8::1]:80']
    """
    found: list[str] = []
    for element in islice(_unquoted_split(",".join(values), ","), most):
        parameters = [part.partition("=") for part in _unquoted_split(element, ";")]
        names = [value.strip().strip('"') for name, _, value in parameters if name.strip().lower() == "for"]
        found.append(names[0] if len(names) == 1 else "unknown")
    return found[::-1]


def _unquoted_split(text: str, separator: str) -> Iterator[str]:
    """What stands between separators outside of quoted strings (RFC 9110, section 5.6.4), from the right."""
    end = len(text)
    quoted = False
    for place in range(len(text) - 1, -1, -1):
        character = text[place]
        if character == '"':
            first = place
            while first and text[first - 1] == "\\":
                first -= 1
            escaped = (place - first) % 2 == 1
            quoted = quoted if escaped and quoted else not quoted
        elif character == separator and not quoted:
            yield text[place + 1 : end]
            end = place
    yield text[:end]


def crowd_of(key: Key) -> Key:
    """Whom a key is counted with where there is no room for a bucket of its own: for an IPv6 /64 its /48.

    A subscriber may have 65,536 of these; they must not spoil 65,536 overflow buckets.

    >>> crowd_of("ip:2001:db8:7:9::/64"), crowd_of("ip:192.0.2.1")
    ('ip:2001:db8:7', 'ip:192.0.2.1')
    """
    if isinstance(key, str) and key.startswith("ip:") and key.endswith("/64"):
        return ":".join(key.split(":")[:4])
    return key


def hop_address(peer: str | None, chain: Sequence[str], trusted_hops: int) -> "IPv4Address | IPv6Address | None":
    """The address of the client as the outermost trusted proxy saw it.

    Args:
        peer: The other end of the connection; with one trusted hop that is the proxy.
        chain: The members of the forwarding field, as they were sent: each proxy appended whom it heard.
        trusted_hops: How many proxies of the operator stand in front; at least 0.

    Returns:
        The member that the outermost trusted proxy wrote. If the chain is shorter, its leftmost member; if a proxy
        wrote no address, that of the proxy nearer to us; None if not even the peer has one.

    >>> str(hop_address("10.0.0.1", ["203.0.113.9", "198.51.100.7"], trusted_hops=1))
    '198.51.100.7'
    """
    seen = address_of(peer) if peer else None
    for member in list(reversed(chain))[:trusted_hops]:
        address = address_of(member)
        if address is None:
            break
        seen = address
    return seen
