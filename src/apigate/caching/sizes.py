"""Sizes in bytes, as they are written in a configuration.

Rule: a unit means what IEC 80000-13 says: `MB` is a million bytes, `MiB` is 1,048,576. So a budget is never exceeded by
a reader of the other habit; Amazon's "1 MB" for a cached response is `1MiB` here.
"""

import re

from apigate.core.errors import ConfigurationError

__all__ = ["parse_size"]

_TEXT = re.compile(
    r"(?P<whole>[0-9]{1,18})(?:\.(?P<part>[0-9]{1,9}))? ?(?P<unit>(?:[KMGT]I?)?B)?", re.ASCII | re.IGNORECASE
)

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}

_MOST = 2**50
"""A pebibyte: more is a slip of the pen, not a memory."""


def parse_size(size: str | int, setting: str = "size") -> int:
    """A size in whole bytes.

    Args:
        size: Bytes as a number, or a text of a number and a unit: `B`, `KB`, `MB`, `GB`, `TB` (powers of 1,000) or
            `KiB`, `MiB`, `GiB`, `TiB` (powers of 1,024), in any case; without a unit, bytes. From 1 byte to 1,024 TiB;
            what a fraction leaves below a byte is dropped.
        setting: What to call it in an error.

    Raises:
        ConfigurationError: It is nothing of the kind. `512M` is none: to some tools that is 512 MB, to some 512 MiB.

    Source: IEC 80000-13:2008, section 4.

    >>> parse_size("512MB"), parse_size("1.5 KiB"), parse_size(4096)
    (512000000, 1536, 4096)
    """
    found = _bytes(size)
    if found is None or not 1 <= found <= _MOST:
        raise ConfigurationError(
            f"{setting}: {size!r} is no size; give whole bytes or a text such as '512MB' or '512MiB', "
            "units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, from 1 byte to 1024TiB"
        )
    return found


def _bytes(size: object) -> int | None:
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    read = _TEXT.fullmatch(size) if isinstance(size, str) else None
    if read is None:
        return None
    part = read["part"] or ""
    parts: int = 10 ** len(part)
    return int(read["whole"] + part) * _UNITS[(read["unit"] or "b").lower()] // parts
