"""Counters that are exact under threads and cost a tenth of a lock."""

from collections.abc import Iterator
from itertools import count
from threading import Lock
from typing import final

__all__ = ["Counters"]


@final
class Counters:
    """Counts by kind.

    >>> counters = Counters()
    >>> counters.add("admitted")
    >>> counters.counts()
    {'admitted': 1}
    """

    __slots__ = ("_by_kind", "_lock", "_withdrawn")

    def __init__(self) -> None:
        """Start with no kind."""
        self._by_kind: dict[str, count[int]] = {}
        self._lock = Lock()
        self._withdrawn: dict[str, int] = {}

    def add(self, kind: str) -> None:
        """Count one of this kind: `next` on an `itertools.count` is one atomic step."""
        try:
            next(self._by_kind[kind])
        except KeyError:
            next(self.counter(kind))

    def counter(self, kind: str) -> Iterator[int]:
        """The counter of a kind: each `next` counts one."""
        with self._lock:
            return self._by_kind.setdefault(kind, count())

    def withdraw(self, kind: str) -> None:
        """Count one less of this kind: it turned out to be of another."""
        with self._lock:
            self._withdrawn[kind] = self._withdrawn.get(kind, 0) + 1

    def counts(self) -> dict[str, int]:
        """How many of each kind there were."""
        counted = {
            kind: int(repr(counter)[6:-1]) - self._withdrawn.get(kind, 0)
            for kind, counter in self._by_kind.copy().items()
        }  # "count(7)"
        return {kind: number for kind, number in counted.items() if number}
