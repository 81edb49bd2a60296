"""Token buckets in a file that the processes of one host share: exact limits for all workers, and no server.

The file is mapped into memory, and a lock of the kernel lets one decision at a time through, over all processes and
threads. Whoever is killed, at whatever moment, leaves each decision wholly made or not made at all. The file is opened
at first use, and anew by each process: a fork shares nothing with its parent but the file.

Rule: nothing that is not apigate's is ever overwritten, and what is damaged starts anew; no limit is read from garbage.
How buckets lie in the file is `apigate.stores.file_table`.
"""

import os
from collections.abc import Callable, Sequence
from logging import getLogger
from mmap import mmap
from pathlib import Path
from typing import cast, final

from apigate.core.errors import ConfigurationError, StoreError, StoreTimeoutError
from apigate.core.forks import renew_after_fork
from apigate.stores.deadline import checked_deadline_ms
from apigate.stores.file_header import SLOT, Header, is_foreign, publish, read_header, start_anew, write_header
from apigate.stores.file_kernel import SharedFile, has_locks, machine
from apigate.stores.file_opened import FOREIGN, OpenedFile, exposed, problem_of, stranger
from apigate.stores.file_table import MOST_CHANGES, Shelf, Table
from apigate.stores.memory import DEFAULT_MAX_KEYS
from apigate.throttling.algorithms import State, decide, owed_at, settled, written
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

__all__ = ["DEFAULT_DEADLINE_MS", "FileBuckets", "FileStore"]

DEFAULT_DEADLINE_MS = 50
"""A thousand times what a decision takes: only a process that was stopped while it decided is waited for so long."""

_MOST_KEYS = 100_000_000
_REPORTED_EACH_US = 3_600_000_000
_TAKEN_OVER = (
    "it was taken over by another machine, whose clock is another one; give each machine a file of its own, then start "
    "this process anew"
)
_LARGEST_ERA = 2**32 - 1


@final
class FileStore:
    """Buckets in a file, for all processes of one host; exact under processes, threads and tasks.

    Args:
        path: The file, made at first use with the rights of its owner only. Best on a file system in memory, such as
            under `/run`; never on one that several machines share.
        max_keys: For how many buckets a new file has places, at least 1; it takes 128 bytes for each and 4 MB. Beyond
            that, keys that find no place share 4,096 overflow buckets of each limit. A file that is there stays as it
            is: delete it to have it made with another number.
        deadline_ms: How many milliseconds a decision may wait for other processes: a whole number from 1 to 60,000.
        on_fill: Called with `max_keys` when a key finds no place, at most once an hour; with no lock held.

    Raises:
        ConfigurationError: The file cannot be used, or a number is out of bounds; or this system has no locks for
            files, as Windows.

    >>> FileStore("/run/app/apigate.state", max_keys=1_000)
    Traceback (most recent call last):
    apigate.core.errors.ConfigurationError: file store: '/run/app/apigate.state': there is no directory '/run/app'; \
make it, writable for the user of the app, or name another file
    """

    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
        on_fill: Callable[[int], None] | None = None,
    ) -> None:
        """Check that the file can be used; it is not opened yet."""
        if not isinstance(max_keys, int) or not 1 <= max_keys <= _MOST_KEYS:
            raise ConfigurationError(f"FileStore max_keys: {max_keys!r} is not a whole number from 1 to {_MOST_KEYS:,}")
        self.path: str = str(Path(path).absolute())
        self.max_keys: int = max_keys
        self.deadline_ms: int = checked_deadline_ms(deadline_ms, "FileStore")
        self.on_fill: Callable[[int], None] | None = on_fill
        if not has_locks():
            raise ConfigurationError("file store: this system has no locks for files (fcntl); use 'memory://'")
        problem = problem_of(Path(self.path))
        if problem:
            raise ConfigurationError(f"file store: {self.path!r}: {problem}")
        self.limits: dict[str, Limit] = {}
        self.version: object = object()  # another one whenever a limit changes: buckets opened before are bound anew
        self._opened: OpenedFile[Table] | None = None
        self._machine = b""
        self._now = 0
        self._had = False  # whether this process, or the one it was forked from, has used the file
        self._reported: int | None = None
        self._told_of_damage = False
        renew_after_fork(self)

    def __repr__(self) -> str:
        """Its file."""
        return f"FileStore({self.path!r})"

    def open(self, limits: Sequence[Limit], now: int) -> "FileBuckets":
        """The buckets of these limits; those that have another rate change when they are next used.

        Raises:
            ConfigurationError: There are more than 800.
        """
        if len(limits) > MOST_CHANGES:
            raise ConfigurationError(f"file store: {len(limits)} limits in one decision; up to {MOST_CHANGES} are kept")
        self._now = now
        for limit in limits:
            self.limits[limit.name] = limit
        self.version = object()
        return FileBuckets(self, [limit.name for limit in limits])

    def close(self) -> None:
        """Let go of the file, which stays as it is; whoever asks again opens it again."""
        self._opened = None

    def renew(self) -> None:
        """In a forked child: let go of the parent's opening of the file, whose lock would be one with the parent's."""
        self.close()

    def report(self, now: int) -> None:
        """Tell that a key found no place; called with no lock held."""
        if self._reported is None or not 0 <= now - self._reported < _REPORTED_EACH_US:
            self._reported = now
            if self.on_fill is not None:
                self.on_fill(self.max_keys)

    def hold(self, operation: str, now: int | None = None) -> OpenedFile[Table]:
        """The file, locked and sound. Whoever gets it calls its `release`.

        Raises:
            StoreError: It cannot be had.
        """
        try:
            while True:
                opened = self._opened
                if opened is None or opened.file.pid != os.getpid():
                    opened = self._opened = self._open(self._now if now is None else now)
                if opened.enter():
                    return opened
                opened.wait(self.deadline_ms)
                if opened.is_sound() or self._mend(opened, self._now if now is None else now):
                    return opened
                opened.release()
                self._opened = None  # it was deleted: another one takes its place
        except TimeoutError as error:
            raise StoreTimeoutError(
                operation, f"another process kept {self.path!r} locked for {self.deadline_ms} ms"
            ) from error
        except _Unusable as error:
            raise StoreError(operation, f"{self.path!r}: {error}") from error
        except (OSError, ValueError) as error:
            raise StoreError(operation, f"{self.path!r}: {problem_of(Path(self.path)) or error}") from error

    def let_go(self, error: BaseException) -> None:
        """Give the file back after an error.

        One that came from outside, as a signal's, may have struck between taking the lock and knowing of it. Then the
        file is closed, which gives the lock back whatever was so.
        """
        opened = self._opened
        if opened is not None and not opened.release_mine() and not isinstance(error, StoreError):
            self._opened = None

    def _open(self, now: int) -> OpenedFile[Table]:
        """Open the file, or make one; never through a symbolic link."""
        self._machine = self._machine or machine()
        if not os.path.lexists(self.path):
            publish(self.path, Header.new(self.max_keys, self._machine, now))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        opened = OpenedFile[Table](SharedFile(os.open(self.path, flags, 0o600)))
        problem = stranger(os.fstat(opened.file.fd))
        if problem:
            raise _Unusable(problem)
        return opened

    def _mend(self, opened: OpenedFile[Table], now: int) -> bool:
        """Bring a locked file in order, and learn what it has become; False if it was deleted."""
        links, size = opened.file.links_and_size()
        if not links:
            return False
        header = self._header(opened.file.fd, size, now)
        table = opened.table
        if table is None or table.header != header:
            opened.table = table = Table(mmap(opened.file.fd, header.size), header, self._damaged)
        table.recover()
        return True

    def _header(self, fd: int, size: int, now: int) -> Header:
        """The header of a locked file, made or put right where there is need."""
        header, in_order = read_header(fd)
        problem = FOREIGN if header is None and is_foreign(fd) else exposed(os.fstat(fd))
        if problem:
            raise _Unusable(problem)
        if header is None or size < header.size:
            header = Header.new(self.max_keys, self._machine, now)
            start_anew(fd, size, header)
            if size > SLOT:
                getLogger("apigate").warning("%s was damaged: all buckets in it start anew", self.path)
        elif header.machine != self._machine:
            if self._had:
                raise _Unusable(_TAKEN_OVER)
            header = header._replace(era=header.era + 1 & _LARGEST_ERA, began=now, machine=self._machine)
            write_header(fd, header)
        elif not in_order:
            write_header(fd, header)
        self._had = True
        return header

    def _damaged(self) -> None:
        if not self._told_of_damage:
            self._told_of_damage = True
            getLogger("apigate").warning("%s was damaged: the buckets at these places start anew", self.path)


class _Unusable(Exception):
    """The file cannot be used, for a reason that stands in the message."""


@final
class FileBuckets:
    """The buckets of some limits in a `FileStore`."""

    __slots__ = ("_limits", "_names", "_shelves", "_store", "_table", "_version")

    def __init__(self, store: FileStore, names: Sequence[str]) -> None:
        """Know the names; the file is opened at first use."""
        self._store = store
        self._names = names
        self._table: Table | None = None
        self._version: object = None
        self._limits: Sequence[Limit] = ()
        self._shelves: Sequence[Shelf] = ()

    def acquire(self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0) -> Decision:
        """Take the costs from every bucket or from none."""
        store = self._store
        try:
            opened = store.hold("acquire", now)
            table = self._bound(opened)
            states, found = table.read(self._shelves, keys, now)
            decision = decide(self._limits, states, costs, now, patience)
            crowded = table.keep(self._shelves, keys, found, written(decision, states, now), now)
            opened.release()
        except BaseException as error:
            store.let_go(error)
            raise
        if crowded:
            store.report(now)
        return decision

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision:
        """What `acquire` would answer, taking nothing."""
        store = self._store
        try:
            opened = store.hold("peek", now)
            states, _ = self._bound(opened).read(self._shelves, keys, now)
            decision = decide(self._limits, states, costs, now)
            opened.release()
        except BaseException as error:
            store.let_go(error)
            raise
        return decision

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> None:
        """Take more tokens or give some back without asking."""
        store = self._store
        try:
            opened = store.hold("adjust", now)
            table = self._bound(opened)
            states, found = table.read(self._shelves, keys, now)
            changed: list[State] = []
            for limit, state, number in zip(self._limits, states, tokens, strict=True):
                owed = owed_at(state, limit.n, now)
                wanted = max(0, min(owed + number * limit.p, max(owed, 2 * limit.capacity)))
                changed.append(state if wanted == owed else settled(state, wanted, now))
            crowded = table.keep(self._shelves, keys, found, changed, now)
            opened.release()
        except BaseException as error:
            store.let_go(error)
            raise
        if crowded:
            store.report(now)

    def reset(self, keys: Sequence[Key | None] | None = None) -> None:
        """Forget these buckets, or every bucket of the limits: then stretch by stretch, so that nobody waits for it."""
        store = self._store
        start: int | None = 0
        while start is not None:
            try:
                opened = store.hold("reset")
                table = self._bound(opened)
                if keys is None:
                    start = table.forget_all(self._shelves, start)
                else:
                    table.forget(self._shelves, keys)
                    start = None
                opened.release()
            except BaseException as error:
                store.let_go(error)
                raise

    def _bound(self, opened: OpenedFile[Table]) -> Table:
        """The table; with the limits as they are now, and where this process knows it, their shelves in it."""
        table, version = cast("Table", opened.table), self._store.version
        if table is not self._table or version is not self._version:
            self._limits = [self._store.limits[name] for name in self._names]
            self._shelves = [table.shelf(limit) for limit in self._limits]
            self._table, self._version = table, version
        return table
