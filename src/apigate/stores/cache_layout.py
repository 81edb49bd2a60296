"""How the file of a `FileResponses` is laid out: header, mark, log of invalidations, index, and the values in a ring.

Rule: nothing in here locks or waits. Whoever writes holds the lock of the file; whoever reads needs none, as all that
is read ends with a checksum over itself and its place: what somebody writes meanwhile, or was killed while writing, is
not there. The file is read and never mapped, as one that is cut off ends a process that has it mapped.

A value is written at the head of the ring, over the oldest ones; then the index says where. Whoever is killed between
has written nothing.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final, Literal, NamedTuple, final
from zlib import crc32

from apigate.caching.store import LOG_BYTES, MOST_TEXT, Invalidation, Mark, News, Published, mark_of, position_of
from apigate.stores.file_kernel import SharedFile, allocate

__all__ = ["HEADER", "MARK", "RECORDS", "CacheHeader", "CacheTable", "is_foreign", "namespace_digest", "read_header"]

HEADER: Final = 64
MARK: Final = 4_096
RECORDS: Final = 4_096
"""How many invalidations the log keeps, of all namespaces together: whoever is further behind takes all for invalid."""

_MAGIC = b"apicach1"  # its last character is the version of the layout
_COPY = MARK - HEADER
_HEADER = Struct("<8sQQ16s20x")
_CRC = Struct("<I")
_HEAD = Struct("<Q")
_HEAD_AT = MARK + 64
_LOG = 8_192
_RECORD = 512
_RECORD_HEAD = Struct("<Q8sBH")
_INDEX = _LOG + RECORDS * _RECORD
_WAYS = 8
_SLOT = Struct("<16sQI4x")
_SET = _WAYS * _SLOT.size
_VALUE = Struct("<32sQI")
_MEAN = 512  # bytes for values to one place in the index; most have more, and so hardly a set is ever full
_KINDS: tuple[Literal["all", "scope", "prefix"], ...] = ("all", "scope", "prefix")
_TRIES = 3


class CacheHeader(NamedTuple):
    """What all that share the file have to agree on.

    Attributes:
        capacity: Bytes for values.
        sets: Sets of the index, each of eight places.
        salt: Keys the digests of the index, so that nobody outside knows which keys meet.
    """

    capacity: int
    sets: int
    salt: bytes

    @classmethod
    def new(cls, max_bytes: int) -> "CacheHeader":
        """The header of a new file of so many bytes in all, or of the least there can be."""
        sets = max(1, (max_bytes - _INDEX) // (_MEAN * _WAYS + _SET))
        return cls(sets * _MEAN * _WAYS, sets, os.urandom(16))

    @classmethod
    def read(cls, raw: bytes) -> "CacheHeader | None":
        """The header in 64 bytes; None if that is none, or is damaged."""
        if len(raw) < HEADER or raw[:8] != _MAGIC or _CRC.pack(crc32(raw[:-4])) != raw[-4:]:
            return None
        return cls(*_HEADER.unpack_from(raw)[1:])

    def pack(self) -> bytes:
        """Its 64 bytes."""
        raw = _HEADER.pack(_MAGIC, *self)
        return raw + _CRC.pack(crc32(raw))

    @property
    def ring(self) -> int:
        """Where the values begin."""
        return _INDEX + self.sets * _SET

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.ring + self.capacity


def read_header(file: SharedFile) -> CacheHeader | None:
    """The header of a file, from whichever of its two places."""
    return CacheHeader.read(file.read(0, HEADER)) or CacheHeader.read(file.read(_COPY, HEADER))


def is_foreign(fd: int) -> bool:
    """Whether a file holds something, and that is not a cache of this version."""
    raw = os.pread(fd, HEADER, 0)
    return bool(raw) and _MAGIC not in {raw[:8], os.pread(fd, HEADER, _COPY)[:8]}


def namespace_digest(name: str) -> bytes:
    """What marks the records of one namespace."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@final
class CacheTable:
    """What is in a file, for one namespace.

    Args:
        file: The file.
        header: Its header, which has been checked.
        namespace: Whose values and records are meant.
    """

    def __init__(self, file: SharedFile, header: CacheHeader, namespace: bytes) -> None:
        self.header: CacheHeader = header
        self.size: int = header.size
        self._raw_header = header.pack()
        self._file = file
        self._namespace = namespace

    def is_sound(self) -> bool:
        """Whether the header is as this process knows it."""
        return self._file.read(0, HEADER) == self._raw_header

    def start_anew(self, size: int) -> None:
        """Make a locked file of `size` bytes an empty one, with a log that nobody knows.

        It begins like a cache at every moment, and never shrinks. Blocks of the disk are taken for the log and the
        index now, so that a full one keeps no invalidation from being told, and for values when these are written.
        """
        file = self._file
        if not size:
            file.write(0, self._raw_header)
        allocate(file.fd, self.header.ring)
        os.ftruncate(file.fd, max(size, self.size))
        file.write(MARK, mark_of(os.urandom(LOG_BYTES), 0))
        for start in range(_LOG, self.header.ring, 1 << 20):
            if size > start:
                file.write(start, bytes(min(1 << 20, self.header.ring - start)))
        file.write(_HEAD_AT, _HEAD.pack(0))
        file.write(_COPY, self._raw_header)
        file.write(0, self._raw_header)

    # ---- the log

    def append(self, records: Sequence[Invalidation]) -> None:
        """Publish some records; the lock is held."""
        mark = self._mark()
        position = position_of(mark)
        for record in records:
            position += 1
            self._file.write(_LOG + position % RECORDS * _RECORD, self._packed(position, record))
            self._file.write(MARK + LOG_BYTES, position.to_bytes(8, "big"))

    def news(self, known: Mark) -> News:
        """What the log holds beyond a mark, of this namespace; without a lock, so again where somebody writes."""
        mark = b""
        for _ in range(_TRIES):
            mark = self._mark()
            last = position_of(mark)
            begin = position_of(known) if known[:LOG_BYTES] == mark[:LOG_BYTES] else -1
            since = begin if max(0, last - RECORDS) <= begin <= last else max(0, last - RECORDS)
            found = self._records(since, last)
            if found is not None:
                return News(mark, found, since)
        return News(mark, (), position_of(mark))  # a record is damaged: everything before counts as invalidated

    def _mark(self) -> Mark:
        """The mark of the last record.

        Raises:
            OSError: The file was cut off.
        """
        mark = self._file.read(MARK, LOG_BYTES + 8)
        if len(mark) < LOG_BYTES + 8:
            raise OSError("it was cut off")
        return mark

    def _records(self, since: int, last: int) -> list[Published] | None:
        """The records of this namespace between two positions; None where one is not there."""
        found: list[Published] = []
        for position in range(since + 1, last + 1):
            raw = self._file.read(_LOG + position % RECORDS * _RECORD, _RECORD)
            if len(raw) < _RECORD or _CRC.pack(crc32(raw[:-4])) != raw[-4:]:
                return None
            at, namespace, kind, size = _RECORD_HEAD.unpack_from(raw)
            if at != position:
                return None
            if namespace == self._namespace:
                text = raw[_RECORD_HEAD.size : _RECORD_HEAD.size + size].decode("utf-8", "surrogatepass")
                found.append(Published(position, Invalidation(_KINDS[kind], text)))
        return found

    def _packed(self, position: int, record: Invalidation) -> bytes:
        text = record.text.encode("utf-8", "surrogatepass")
        if len(text) > MOST_TEXT:
            raise ValueError(f"a text of {len(text)} bytes; {MOST_TEXT} are kept, see `bounded`")
        head = _RECORD_HEAD.pack(position, self._namespace, _KINDS.index(record.kind), len(text))
        raw = (head + text).ljust(_RECORD - 4, b"\0")
        return raw + _CRC.pack(crc32(raw))

    # ---- the values

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; without a lock."""
        digest, at = self._place(key)
        places = self._file.read(at, _SET)
        for slot in range(0, len(places) - _SLOT.size + 1, _SLOT.size):
            if places.startswith(digest, slot):
                _, position, size = _SLOT.unpack_from(places, slot)
                return self._value(key, position, size)
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, in the place of the oldest ones; the lock is held."""
        header, file = self.header, self._file
        size = _VALUE.size + len(value) + _CRC.size
        head = self._head()
        left = header.capacity - head % header.capacity
        start = head if size <= left else head + left  # none lies across the end
        raw = _VALUE.pack(key, start, len(value)) + value
        file.write(_HEAD_AT, _HEAD.pack(start + size))
        file.write(header.ring + start % header.capacity, raw + _CRC.pack(crc32(raw)))
        digest, at = self._place(key)
        file.write(self._room(digest, at, start + size), _SLOT.pack(digest, start, size))

    def delete(self, key: bytes) -> None:
        """Forget the value of a key; the lock is held."""
        digest, at = self._place(key)
        places = self._file.read(at, _SET)
        for slot in range(0, len(places) - _SLOT.size + 1, _SLOT.size):
            if places.startswith(digest, slot):
                self._file.write(at + slot, bytes(_SLOT.size))

    def _head(self) -> int:
        raw = self._file.read(_HEAD_AT, _HEAD.size)
        head: int = _HEAD.unpack(raw)[0] if len(raw) == _HEAD.size else 0
        return head if head < 1 << 62 else 0  # damaged: what it was is of no importance

    def _place(self, key: bytes) -> tuple[bytes, int]:
        """What marks a key in the index, and where its set begins."""
        digest = blake2b(self._namespace + key, digest_size=16, key=self.header.salt).digest()
        return digest, _INDEX + int.from_bytes(digest[:8], "little") % self.header.sets * _SET

    def _room(self, digest: bytes, at: int, head: int) -> int:
        """Where the index says where a key lies: its own place, else the one with the oldest value, or with none."""
        places = self._file.read(at, _SET)
        oldest, found = head, 0
        for slot in range(0, _SET, _SLOT.size):
            other, position, _ = _SLOT.unpack_from(places, slot)
            if other == digest:
                return at + slot
            if position < oldest or position > head:  # beyond the head is damage
                oldest, found = (-1 if position > head else position), slot
        return at + found

    def _value(self, key: bytes, position: int, size: int) -> bytes | None:
        header = self.header
        at = position % header.capacity
        if not _VALUE.size + _CRC.size <= size <= header.capacity - at:
            return None
        raw = self._file.read(header.ring + at, size)
        if len(raw) < size or _CRC.pack(crc32(raw[:-4])) != raw[-4:]:
            return None
        found, where, length = _VALUE.unpack_from(raw)
        value = raw[_VALUE.size : -4]
        return value if (found, where, length) == (key, position, len(value)) else None
