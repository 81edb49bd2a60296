"""How the file of a `FileStore` begins, and how it is laid out: header, journal, table, overflow buckets.

The header stands there twice, so that what spoils the one does not spoil the file.
"""

import os
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from apigate.stores.file_kernel import allocate

__all__ = ["SLOT", "Header", "is_foreign", "publish", "read_header", "start_anew", "write_header"]

MAGIC = b"apigate1"
"""How a file begins; its last character is the version of the layout."""

SLOT = 64
"""Bytes of a header, and of a bucket."""

WAYS = 16
COMMON_SETS = 256
"""Sets of buckets that all share, such as a stage's, so that no flood of keys can fill these."""

OVERFLOW = 4_096
REGIONS = 16
"""Groups of overflow buckets: the first for buckets that all share, the limits are spread over the others."""

JOURNAL = 4_096
TABLE = 65_536

_COPY = JOURNAL - SLOT
_HEADER = Struct("<8sIIq16s16s4x")
_CRC = Struct("<I")
_CHUNK = 1 << 20


class Header(NamedTuple):
    """What all that share the file have to agree on.

    Attributes:
        sets: Sets for the buckets of single keys.
        era: Counts the machines, and starts of a machine, by whose clock the file was kept.
        began: The microsecond of the present clock at which this era began.
        salt: Keys all digests, so that nobody outside knows which keys meet.
        machine: The machine whose clock it is.
    """

    sets: int
    era: int
    began: int
    salt: bytes
    machine: bytes

    @classmethod
    def new(cls, max_keys: int, machine: bytes, now: int) -> "Header":
        """The header of a new file: with twice as many slots as keys, as these do not spread evenly over the sets."""
        return cls(-(-2 * max_keys // WAYS), 1, now, os.urandom(16), machine)

    @classmethod
    def read(cls, raw: bytes) -> "Header | None":
        """The header in 64 bytes; None if that is none, or is damaged."""
        if len(raw) < SLOT or raw[:8] != MAGIC or _CRC.pack(crc32(raw[:-4])) != raw[-4:]:
            return None
        return cls(*_HEADER.unpack_from(raw)[1:])

    def pack(self) -> bytes:
        """Its 64 bytes."""
        raw = _HEADER.pack(MAGIC, *self)
        return raw + _CRC.pack(crc32(raw))

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.overflow + SLOT * REGIONS * OVERFLOW

    @property
    def overflow(self) -> int:
        """Where the overflow buckets begin."""
        return TABLE + SLOT * WAYS * (COMMON_SETS + self.sets)


def read_header(fd: int) -> tuple[Header | None, bool]:
    """The header of a file, from whichever of its two places, and whether both are right."""
    raw, copy = os.pread(fd, SLOT, 0), os.pread(fd, SLOT, _COPY)
    return Header.read(raw) or Header.read(copy), raw == copy


def write_header(fd: int, header: Header) -> None:
    """Write it in both places, one after the other."""
    raw = header.pack()
    os.pwrite(fd, raw, _COPY)
    os.pwrite(fd, raw, 0)


def is_foreign(fd: int) -> bool:
    """Whether a file holds something, and that is not apigate's."""
    raw = os.pread(fd, SLOT, 0)
    return bool(raw) and MAGIC not in {raw[:8], os.pread(fd, SLOT, _COPY)[:8]}


def start_anew(fd: int, size: int, header: Header) -> None:
    """Make a file of `size` bytes an empty one.

    It begins like a file of apigate at every moment, and never shrinks: other processes may look at it. All its blocks
    are taken from the disk now, so that a full one is noticed here and not while a bucket is written.
    """
    if not size:
        os.pwrite(fd, header.pack(), 0)
    allocate(fd, header.size)
    for start in range(SLOT, size, _CHUNK):
        os.pwrite(fd, bytes(min(_CHUNK, size - start)), start)
    write_header(fd, header)


def publish(path: str, header: Header) -> None:
    """Make an empty file ready before anybody else sees it, so that nobody waits meanwhile.

    Where the system cannot (it is Linux that can), or another process is faster, or the disk is full, nothing is done.
    """
    try:
        fd = os.open(Path(path).parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):
        return
    try:
        with suppress(OSError):
            start_anew(fd, 0, header)
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)  # the directory only makes it follow the link in /proc
    finally:
        os.close(fd)
