"""Parts of a representation: what Range asks for, and several parts in one body.

Source: RFC 9110, section 14.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

__all__ = ["MOST_RANGES", "ByteRange", "multipart_byteranges", "parse_range"]

ByteRange: TypeAlias = tuple[int, int]
"""The positions of the first and the last byte, both inclusive, counted from 0."""

MOST_RANGES = 8
"""How many ranges a request may ask for; with more it gets the whole. Source: own decision, after RFC 9110, section
17.15, which warns of many small ranges."""

# Texts, compiled at first use.
_RANGES = r"(?ai:bytes)=(.*)"
_SPEC = r"([0-9]*)-([0-9]*)"


def parse_range(text: str, length: int) -> tuple[ByteRange, ...] | None:
    """The byte ranges that a request asks of a representation.

    Args:
        text: The value of Range.
        length: Bytes of the representation.

    Returns:
        The ranges that can be satisfied, cut down to the representation, in the order sent; none where no range can
        be, which is answered with 416; None where Range is to be ignored: another unit, malformed, more than
        `MOST_RANGES`, overlapping ones, or a suffix of nothing at all.

    Source: RFC 9110, sections 14.1.1, 14.1.2 and 14.2.

    >>> parse_range("bytes=0-1, -1", 11), parse_range("bytes=11-", 11), parse_range("bytes=2-1", 11)
    (((0, 1), (10, 10)), (), None)
    """
    match = re.fullmatch(_RANGES, text.strip(" \t"))
    if match is None:
        return None
    specs = [spec for part in match[1].split(",") if (spec := part.strip(" \t"))]
    if not 1 <= len(specs) <= MOST_RANGES:
        return None
    ranges: list[ByteRange] = []
    for spec in specs:
        found = re.fullmatch(_SPEC, spec)
        if found is None or not _is_range(found[1], found[2]):
            return None
        first, last = _positions(found[1], found[2], length)
        if first <= last:
            ranges.append((first, last))
        elif not length and not found[1] and _number(found[2]):
            return None  # it can be satisfied, but Content-Range has no way to say so
    return None if _overlap(ranges) else tuple(ranges)


def multipart_byteranges(body: bytes, ranges: Sequence[ByteRange], content_type: str, boundary: str) -> bytes:
    r"""The body of a 206 with several ranges.

    Args:
        body: The whole representation.
        ranges: As `parse_range` gives them.
        content_type: That of the representation, Latin-1; empty where it has none.
        boundary: What separates the parts, and does not occur in them; ASCII.

    Source: RFC 9110, section 14.6.

    >>> multipart_byteranges(b"01234", [(0, 0)], "", "x")
    b'--x\r\nContent-Range: bytes 0-0/5\r\n\r\n0\r\n--x--\r\n'
    """
    typed = f"Content-Type: {content_type}\r\n" if content_type else ""
    parts: list[bytes] = []
    for first, last in ranges:
        head = f"--{boundary}\r\n{typed}Content-Range: bytes {first}-{last}/{len(body)}\r\n\r\n"
        parts += [head.encode("latin-1"), body[first : last + 1], b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode("latin-1")])


def _number(digits: str) -> int:
    """Nothing is that long: what has more than 18 digits is one of 19, as Python reads very long ones not at all."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= 18 else 10**18


def _is_range(first: str, last: str) -> bool:
    """Whether a range is valid, satisfiable or not; the texts are compared as numbers, however long."""
    if not first:
        return bool(last)
    return not last or _order(first) <= _order(last)


def _order(digits: str) -> tuple[int, str]:
    significant = digits.lstrip("0")
    return len(significant), significant


def _positions(first: str, last: str, length: int) -> ByteRange:
    """First and last byte within the representation; the last before the first where it has none of the range."""
    if not first:
        return max(0, length - _number(last)), length - 1
    return _number(first), min(_number(last), length - 1) if last else length - 1


def _overlap(ranges: Sequence[ByteRange]) -> bool:
    ordered = sorted(ranges)
    return any(earlier[1] >= later[0] for earlier, later in pairwise(ordered))
