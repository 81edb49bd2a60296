r"""Stored responses as bytes, for whatever workers share, and the digests they are kept under.

Rule: no bytes make `decode` raise or build anything but a stored response: what is corrupt, cut off, foreign or of
another version is a miss. The format is lengths and contents, nothing that could name code.

========  =====================================================================================================
Bytes     What
========  =====================================================================================================
2         kind, `R` for a response and `V` for the names of a Vary; version
4         CRC-32 of all that follows
75        of `R`: status, whether it is shared, wall time in seconds, microseconds kept by then, initial age,
          lifetime and grace in seconds, the mark of the log of invalidations; numbers of fields, of Vary fields and of
          scopes, bytes of all texts
4 each    length of each text in characters, all ones for none: names and values of fields, of Vary, then scopes
...       the texts one after another, in UTF-8; then the body, up to the end
========  =====================================================================================================

Source: apigate, see docs/explanation/shared-cache.md.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import chain, pairwise
from math import isfinite
from struct import Struct
from struct import error as struct_error
from typing import NamedTuple, TypeAlias
from zlib import crc32

from apigate.caching.entry import CacheKey, StoredResponse
from apigate.caching.store import MARK_BYTES, Mark
from apigate.caching.variance import Selected

__all__ = ["Decoded", "Variance", "decode", "decode_variance", "encode", "encode_variance", "key_digest"]

_RESPONSE = b"R\x01"
_VARIANCE = b"V\x01"
_PREFIX = Struct(">2sI")
_HEAD = Struct(f">HBdQddd{MARK_BYTES}sIIII")
_COUNT = Struct(">I")
_NONE = 2**32 - 1
_LARGEST = 2**64 - 1
_MOST_TEXTS = 1 << 20


class Variance(NamedTuple):
    """What lies under a primary key whose responses vary.

    Attributes:
        names: The names of the request fields that select one (RFC 9111, section 4.1), in lower case, in order.
    """

    names: tuple[str, ...]


class Decoded(NamedTuple):
    """A stored response, and the mark of the log that it was put with."""

    response: StoredResponse
    mark: Mark


Texts: TypeAlias = Sequence[str | None]


def key_digest(key: CacheKey, vary: Selected = ()) -> bytes:
    """The 32 bytes that a response is kept under: of its primary key, and of what selected it.

    Each text is preceded by its length, so that no two keys are the same bytes.

    >>> key_digest(("a", "b")) == key_digest(("a", "b")), key_digest(("ab",)) == key_digest(("a", "b"))
    (True, False)
    """
    lengths, blob = _flat([*key, *chain.from_iterable(vary)])
    return sha256(b"%d %d\n%b%b" % (len(key), len(vary), lengths, blob)).digest()


def encode(response: StoredResponse, mark: Mark, wall: float, now_us: int) -> bytes:
    """A stored response as bytes.

    Args:
        response: The response.
        mark: Up to where the log of invalidations was known when the response was asked for.
        wall: Seconds since 1970, by which other machines continue its age.
        now_us: The gateway's monotonic microseconds.
    """
    texts: list[str | None] = [*chain.from_iterable(response.fields), *chain.from_iterable(response.vary)]
    texts += response.scopes
    lengths, blob = _flat(texts)
    kept_us = max(0, now_us - response.received_us)
    head = _HEAD.pack(
        response.status, response.shared, wall, min(kept_us, _LARGEST), response.initial_age, response.lifetime,
        response.grace, mark, len(response.fields), len(response.vary), len(response.scopes), len(blob),
    )  # fmt: skip
    return _sealed(_RESPONSE, b"".join((head, lengths, blob, response.body)))


def decode(raw: bytes, wall: float, now_us: int, epoch: Callable[[Mark], int | None] | None = None) -> Decoded | None:
    """The stored response in some bytes; None if there is none.

    Its age goes on where it was encoded, by the wall clock, which two machines may see a little differently.

    Args:
        raw: The bytes.
        wall: Seconds since 1970.
        now_us: The gateway's monotonic microseconds.
        epoch: The epoch of this process that a mark stands for, None where the response is not to be used; without it
            the epoch is 0.
    """
    content = _opened(_RESPONSE, raw)
    if content is None:
        return None
    try:
        return _decoded(content, wall, now_us, epoch)
    except (struct_error, UnicodeError, ValueError, OverflowError):
        return None


def encode_variance(names: Iterable[str]) -> bytes:
    """The names of the request fields that select a response, as bytes."""
    listed = list(names)
    lengths, blob = _flat(listed)
    return _sealed(_VARIANCE, b"".join((_COUNT.pack(len(listed)), lengths, blob)))


def decode_variance(raw: bytes) -> Variance | None:
    """The names in some bytes; None if there are none.

    >>> decode_variance(encode_variance(["accept", "accept-language"]))
    Variance(names=('accept', 'accept-language'))
    """
    content = _opened(_VARIANCE, raw)
    if content is None:
        return None
    try:
        (count,) = _COUNT.unpack_from(content)
        texts = _texts(content, _COUNT.size, count, None)[0]
    except (struct_error, UnicodeError, ValueError):
        return None
    names = tuple(text for text in texts if text is not None)
    return Variance(names) if len(names) == count else None


def _decoded(content: bytes, wall: float, now_us: int, epoch: Callable[[Mark], int | None] | None) -> Decoded | None:
    """The stored response in what follows the checksum."""
    status, shared, then, kept_us, initial_age, lifetime, grace, mark, *counts = _HEAD.unpack_from(content)
    fields, vary, scopes, size = counts
    texts, body = _texts(content, _HEAD.size, 2 * fields + 2 * vary + scopes, size)
    ends = 2 * fields, 2 * fields + 2 * vary
    plain = [text for text in (*texts[: ends[0]], *texts[ends[0] : ends[1] : 2], *texts[ends[1] :]) if text is not None]
    if len(plain) != len(texts) - vary or not all(map(isfinite, (then, initial_age, lifetime, grace))):
        return None
    known = 0 if epoch is None else epoch(mark)
    if known is None:
        return None
    pairs = plain[: ends[0]]
    if not 200 <= status <= 599 or not _can_be_sent(pairs):
        return None
    response = StoredResponse(
        status=status,
        fields=tuple(zip(pairs[::2], pairs[1::2], strict=True)),
        body=content[body:],
        initial_age=initial_age,
        received_us=now_us - kept_us - round(max(0.0, wall - then) * 1_000_000),
        lifetime=lifetime,
        grace=grace,
        vary=tuple(zip(plain[ends[0] : ends[0] + vary], texts[ends[0] + 1 : ends[1] : 2], strict=True)),
        scopes=tuple(plain[ends[0] + vary :]),
        shared=shared == 1,
        epoch=known,
    )
    return Decoded(response, mark)


def _can_be_sent(pairs: Sequence[str]) -> bool:
    """Tell whether names and values are field lines, none of which a server would send as several, or not at all."""
    text = "".join(pairs)
    return not ("\r" in text or "\n" in text or "\0" in text) and "".join(pairs[::2]).isascii()


def _flat(texts: Texts) -> tuple[bytes, bytes]:
    """The lengths of some texts, and the texts."""
    lengths = [_NONE if text is None else len(text) for text in texts]
    blob = "".join([text for text in texts if text is not None]).encode("utf-8", "surrogatepass")
    return _lengths(len(lengths)).pack(*lengths), blob


def _texts(content: bytes, at: int, count: int, size: int | None) -> tuple[Texts, int]:
    """So many texts at a place, and where they end; without a size they are all that is left.

    Raises:
        ValueError: There are none such.
    """
    if count > _MOST_TEXTS or at + 4 * count > len(content):
        raise ValueError(count)
    lengths = _lengths(count).unpack_from(content, at)
    begin = at + 4 * count
    end = len(content) if size is None else begin + size
    blob = content[begin:end].decode("utf-8", "surrogatepass")
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + (0 if length == _NONE else length))
    if end > len(content) or ends[-1] != len(blob):
        raise ValueError(size)
    spans = zip(pairwise(ends), lengths, strict=True)
    return [None if length == _NONE else blob[start:stop] for (start, stop), length in spans], end


def _sealed(kind: bytes, content: bytes) -> bytes:
    return _PREFIX.pack(kind, crc32(content)) + content


def _opened(kind: bytes, raw: bytes) -> bytes | None:
    """What follows the checksum, if that is right and the kind and version are ours."""
    if len(raw) < _PREFIX.size:
        return None
    found, checksum = _PREFIX.unpack_from(raw)
    content = raw[_PREFIX.size :]
    return content if found == kind and crc32(content) == checksum else None


@lru_cache(256)
def _lengths(count: int) -> Struct:
    return Struct(f">{count}I")
