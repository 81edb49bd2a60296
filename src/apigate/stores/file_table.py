"""How buckets lie in the file of a `FileStore`: a journal, and a table of 64-byte slots in sets of 16.

The rule of this file: whoever calls holds the lock of the file. Nothing in here waits, opens or closes.

A key's bucket is in one set, found by a keyed digest of its limit and itself, and any slot of the set may hold it. A
slot is taken from nobody to whom anything is owed: a new key gets an empty slot, a damaged one, or one that equals a
fresh bucket by now; where all 16 owe, it shares an overflow bucket. So whoever was refused stays refused, whatever
comes.

What one decision changes is written to the journal first, under a checksum, then to the slots, then the journal is
cleared. Whoever is killed in between leaves a journal that is whole, which the next one carries out, or one that is
not, which the next one drops.

Source: apigate, see docs/explanation/file-store.md.
"""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from itertools import chain
from mmap import mmap
from struct import Struct
from struct import error as struct_error
from typing import TypeAlias, final
from zlib import crc32

from apigate.core.errors import StoreError
from apigate.stores.file_header import COMMON_SETS, JOURNAL, OVERFLOW, REGIONS, SLOT, TABLE, WAYS, Header
from apigate.throttling.algorithms import FRESH, State, owed_at, rescaled
from apigate.throttling.keys import Key, crowd_of
from apigate.throttling.limit import Limit
from apigate.throttling.rate import Rate

__all__ = ["MOST_CHANGES", "Changes", "Found", "Shelf", "Slot", "Table"]

MOST_CHANGES = 800
"""How many slots one entry of the journal can hold, so how many limits one decision can have."""

_STRETCH = 512  # slots that are looked at under one lock where a limit is reset
_REMEMBERED = 4_096  # keys of each limit whose digest this process keeps in mind, at about 250 bytes

_SLOT = Struct("<16s4sIQqQQI")  # digest, tag, burst, owed, last, n, p, era; the checksum of it and its place follows
_WHOLE = 0x2144DF1C  # the CRC-32 of anything that ends with its own CRC-32
_MARK = Struct("<II")  # how many changes, and their checksum
_UNCHECKED = SLOT - 4
_CHANGE = Struct(f"<Q{_UNCHECKED}s")
_CLEAR = bytes(4)
_EMPTY = bytes(SLOT)
_LOW = 2**32 - 1
_LARGEST_CAPACITY = 2**51


@final
class Shelf:
    """What is worked out once for a limit in one file.

    Attributes:
        limit: The limit.
        tag: What marks its slots, so that all of them can be found.
        burst: The burst as the slots have it, which tells a changed one.
        known: Digest and last known slot of the keys asked lately.
    """

    __slots__ = ("_hasher", "burst", "known", "limit", "tag")

    def __init__(self, limit: Limit, salt: bytes) -> None:
        self.limit: Limit = limit
        self.burst: int = limit.capacity // limit.p & _LOW
        self.known: dict[Key, tuple[bytes, int]] = {}
        name = limit.name.encode("utf-8", "surrogatepass")
        self._hasher = blake2b(len(name).to_bytes(4, "little") + name, digest_size=16, key=salt)
        self.tag: bytes = self.digest("tag", "")[:4]

    def digest(self, purpose: str, key: Key) -> bytes:
        """16 bytes that stand for the key, and that nobody can foretell who does not know the salt."""
        hasher = self._hasher.copy()
        kind, raw = ("b", key) if isinstance(key, bytes) else ("s", key.encode("utf-8", "surrogatepass"))
        hasher.update(f"{purpose}:{kind}:".encode() + raw)
        return hasher.digest()

    def learn(self, key: Key) -> tuple[bytes, int]:
        """The digest of a key that was not asked lately, and 0 for its slot."""
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        known = self.known[key] = self.digest("key", key), 0
        return known


Found: TypeAlias = tuple[State, int, bool, bytes]
"""A bucket: its state, the slot it has (0 for none of its own), whether that has another rate, the key's digest."""

Changes: TypeAlias = dict[int, bytes]
"""Which slots are to be written, and how."""

Slot: TypeAlias = tuple[bytes, int, State, int, int]
"""What a slot says: the tag of its limit, then burst, state, `n` and `p` as they were when it was written."""


@final
class Table:
    """The buckets in a mapped file.

    Args:
        data: The mapped file.
        header: Its header, which has been checked.
        on_damage: Called when a damaged bucket is met, which starts anew.
    """

    def __init__(self, data: mmap, header: Header, on_damage: Callable[[], None]) -> None:
        self.header: Header = header
        self.size: int = header.size
        self._raw_header = header.pack()
        self._data = data
        self._era = header.era
        self._on_damage = on_damage
        self._shelves: dict[str, Shelf] = {}

    def shelf(self, limit: Limit) -> Shelf:
        """The shelf of a limit."""
        shelf = self._shelves.get(limit.name)
        if shelf is None or shelf.limit is not limit:
            shelf = self._shelves[limit.name] = Shelf(limit, self.header.salt)
        return shelf

    def is_sound(self) -> bool:
        """Whether the header is as this process knows it, and no decision was cut short."""
        data = self._data
        return data[:SLOT] == self._raw_header and data[JOURNAL : JOURNAL + 4] == _CLEAR

    def read(self, shelves: Sequence[Shelf], keys: Sequence[Key], now: int) -> tuple[list[State], list[Found]]:
        """The buckets of these keys as they stand under the rates that their limits have now, and where they lie."""
        states: list[State] = []
        found: list[Found] = []
        for shelf, key in zip(shelves, keys, strict=True):
            digest, at = shelf.known.get(key) or shelf.learn(key)
            raw = self._data[at : at + SLOT]
            if not raw.startswith(digest):
                at = self._search(digest, key)
                shelf.known[key] = digest, at
                raw = self._data[at : at + SLOT]
            if not at:
                state, stale = self._read_shared(shelf, key, now)
            elif crc32(raw, at) != _WHOLE:
                at, state, stale = self._lost(at)
            else:
                _, _, burst, owed, last, n, p, era = _SLOT.unpack_from(raw)
                state = (owed, last if era == self._era else self.header.began)
                limit = shelf.limit
                stale = n != limit.n or p != limit.p or burst != shelf.burst
                if stale:
                    state = rescaled(state, _limit(n, p), limit, now)
            states.append(state)
            found.append((state, at, stale, digest))
        return states, found

    def keep(
        self, shelves: Sequence[Shelf], keys: Sequence[Key], found: Sequence[Found], states: Sequence[State], now: int
    ) -> bool:
        """Write all that differs from what was found, or nothing, should the process end meanwhile.

        Returns:
            Whether a key found no slot of its own.
        """
        changes: Changes = {}
        crowded = False
        for shelf, key, (before, own, stale, digest), state in zip(shelves, keys, found, states, strict=True):
            if state is before and not stale:
                continue
            at = own or self._room(digest, key, now, found, changes)
            if at:
                limit = shelf.limit
                try:
                    raw = _SLOT.pack(digest, shelf.tag, shelf.burst, *state, limit.n, limit.p, self._era)
                except struct_error as error:
                    raise StoreError("acquire", f"{limit}: more is booked ahead than can be kept") from error
                changes[at] = _sealed(raw, at)
            else:
                crowded = True
                self._share(shelf, key, state, now, changes)
        if changes:
            self._write(changes)
        return crowded

    def forget(self, shelves: Sequence[Shelf], keys: Sequence[Key | None]) -> None:
        """Empty the slots of these keys, or the overflow buckets that stand for them."""
        changes: Changes = {}
        for shelf, key in zip(shelves, keys, strict=True):
            if key is not None:
                at = self._search(shelf.digest("key", key), key) or self._overflow_at(shelf, key)
                if self._data[at + 16 : at + 20] == shelf.tag:
                    changes[at] = _EMPTY
        if changes:
            self._write(changes)

    def forget_all(self, shelves: Sequence[Shelf], start: int) -> int | None:
        """Empty the slots of these limits in the next stretch of the file.

        Returns:
            Where the next stretch starts; None after the last one.
        """
        start = max(start, TABLE)
        end = min(start + SLOT * _STRETCH, self.size)
        tags = {shelf.tag for shelf in shelves}
        stretch = self._data[start:end]
        changes = {start + at: _EMPTY for at in range(0, end - start, SLOT) if stretch[at + 16 : at + 20] in tags}
        if changes:
            self._write(changes)
        return end if end < self.size else None

    def recover(self) -> None:
        """Carry out what a process that was ended had decided to write; drop what it had not."""
        count, checksum = _MARK.unpack_from(self._data, JOURNAL)
        begin = JOURNAL + _MARK.size
        entries = self._data[begin : begin + _CHANGE.size * min(count, MOST_CHANGES)]
        if crc32(entries) == checksum:
            for at, raw in _CHANGE.iter_unpack(entries):
                if TABLE <= at <= self.size - SLOT and at % SLOT == 0:
                    self._data[at : at + SLOT] = _sealed(raw, at) if any(raw) else _EMPTY
        self._data[JOURNAL : JOURNAL + 4] = _CLEAR

    def _write(self, changes: Changes) -> None:
        """Write some slots, all or none of them."""
        data = self._data
        entries = _entries(len(changes)).pack(*chain.from_iterable(changes.items()))
        entry = _MARK.pack(len(changes), crc32(entries)) + entries
        data[JOURNAL : JOURNAL + len(entry)] = entry
        for at, raw in changes.items():
            data[at : at + SLOT] = raw
        data[JOURNAL : JOURNAL + 4] = _CLEAR

    def _slot(self, at: int, raw: bytes) -> Slot | None:
        """What a slot says; None if it is empty or damaged.

        What was written by another clock, before this era, is owed as it was, and paid off from the era's begin.
        """
        if crc32(raw, at) != _WHOLE:
            return None
        _, tag, burst, owed, last, n, p, era = _SLOT.unpack_from(raw)
        return tag, burst, (owed, last if era == self._era else self.header.began), n, p

    def _lost(self, at: int) -> tuple[int, State, bool]:
        """Empty a slot whose bucket was damaged, so that it starts anew, and that is said but once."""
        self._write({at: _EMPTY})
        self._on_damage()
        return 0, FRESH, False

    def _set_of(self, digest: bytes, key: Key) -> int:
        """Where the set begins in which a key's bucket may be."""
        number = int.from_bytes(digest[:8], "little")
        number = COMMON_SETS + number % self.header.sets if key else number % COMMON_SETS
        return TABLE + SLOT * WAYS * number

    def _search(self, digest: bytes, key: Key) -> int:
        """The slot with this digest, 0 if there is none."""
        start = self._set_of(digest, key)
        end = start + SLOT * WAYS
        at = self._data.find(digest, start, end)
        while at >= 0 and at % SLOT:
            at = self._data.find(digest, at + 1, end)
        return max(at, 0)

    def _room(self, digest: bytes, key: Key, now: int, found: Sequence[Found], changes: Changes) -> int:
        """A slot for a key that has none, and that this very decision does not use; 0 if all are owed something."""
        used = {*changes, *(at for _, at, *_ in found)}
        start = self._set_of(digest, key)
        for at in range(start, start + SLOT * WAYS, SLOT):
            if at in used:
                continue
            raw = self._data[at : at + SLOT]
            slot = self._slot(at, raw)
            if slot is None:
                if raw != _EMPTY:
                    self._on_damage()
                return at
            if not owed_at(slot[2], slot[3], now):
                return at
        return 0

    # ---- overflow buckets

    def _overflow_at(self, shelf: Shelf, key: Key) -> int:
        """The overflow bucket that stands for a key where there is no room.

        Buckets that all share have a region of their own, which no flood of keys can fill.
        """
        digest = shelf.digest("crowd", crowd_of(key))
        region = 1 + shelf.tag[0] % (REGIONS - 1) if key else 0
        number = region * OVERFLOW + int.from_bytes(digest[:8], "little") % OVERFLOW
        return self.header.overflow + SLOT * number

    def _read_shared(self, shelf: Shelf, key: Key, now: int) -> tuple[State, bool]:
        """What a key without a slot is owed, and whether that has another rate of its limit."""
        at = self._overflow_at(shelf, key)
        slot = self._slot(at, self._data[at : at + SLOT])
        if slot is None:
            return FRESH, False
        tag, burst, state, n, p = slot
        limit = shelf.limit
        if n == limit.n and p == limit.p and burst == shelf.burst:
            return state, False
        return rescaled(state, _limit(n, p), limit, now), tag == shelf.tag

    def _share(self, shelf: Shelf, key: Key, state: State, now: int, changes: Changes) -> None:
        """Note the change of an overflow bucket.

        Where two limits meet in one that still owes, the slower rate holds and nothing that is owed to either is lost,
        so that nobody whom one of them refused is let in early.
        """
        tag, burst, n, p = shelf.tag, shelf.burst, shelf.limit.n, shelf.limit.p
        at = self._overflow_at(shelf, key)
        slot = self._slot(at, changes.get(at) or self._data[at : at + SLOT])
        if slot is not None and slot[0] != tag and owed_at(slot[2], slot[3], now):
            other = _limit(*slot[3:])
            if other.n * p < n * other.p:
                tag, burst, _, n, p = slot
            both = _limit(n, p)
            state = max(rescaled(slot[2], other, both, now), rescaled(state, shelf.limit, both, now))
        raw = _SLOT.pack(tag * 4, tag, burst, *state, n, p, self._era)
        changes[at] = _sealed(raw, at)


def _sealed(raw: bytes, at: int) -> bytes:
    """A slot with its checksum, which holds at this place only."""
    return raw + crc32(raw, at).to_bytes(4, "little")


@cache
def _entries(count: int) -> Struct:
    """The journal's entry for so many changes: where, and what, without the checksums of the slots.

    A checksum over parts that each end with theirs would be the same whatever these hold.
    """
    return Struct("<" + f"Q{_UNCHECKED}s" * count)


def _limit(n: int, p: int) -> Limit:
    """A stand-in for the limit under which a slot was written, with the largest bucket of such a rate."""
    return Limit("", "", "", Rate(n, per=p / 1_000_000, burst=_LARGEST_CAPACITY // p))
