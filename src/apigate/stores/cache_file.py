"""Responses and invalidations in a file that the processes of one host share: no server, and no lag.

What one process has invalidated, every other knows at its next hit, for one short read of the file. Values are read
without a lock, and written under one of the kernel's. Whoever is killed, at whatever moment, leaves a value wholly
written or not there.

Rule: nothing that is not apigate's is ever overwritten; what is damaged, or smaller than is asked for, starts anew, and
no file gets smaller, so that two who ask for different sizes agree. No response is made of garbage. How all lies in the
file is `apigate.stores.cache_layout`.
"""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from logging import getLogger
from pathlib import Path
from struct import error as struct_error
from typing import Final, final

from apigate.caching.store import MARK_BYTES, Found, Invalidation, Mark, News, log_of, position_of
from apigate.core.errors import ConfigurationError, StoreError, StoreTimeoutError
from apigate.core.forks import renew_after_fork
from apigate.stores.cache_layout import MARK, CacheHeader, CacheTable, is_foreign, namespace_digest, read_header
from apigate.stores.deadline import checked_deadline_ms
from apigate.stores.file import DEFAULT_DEADLINE_MS
from apigate.stores.file_kernel import SharedFile, has_locks
from apigate.stores.file_opened import OpenedFile, exposed, problem_of, stranger

__all__ = ["DEFAULT_MAX_BYTES", "FileResponses"]

DEFAULT_MAX_BYTES: Final = 64 << 20

_LEAST_BYTES = 4 << 20
_MOST_BYTES = 1 << 40
_SHARE = 8  # a value takes no more than this part of the room for values
_LOOK_EACH_US = 1_000_000
_HARM = "put any response into the cache"
_FOREIGN = (
    "it holds something else than responses of this version of apigate, and is left as it is; name another file, or "
    "delete this one if nobody needs it"
)


@final
class FileResponses:
    """A `ResponseStore` in a file, for all processes of one host.

    The oldest values make room for new ones. How long a value may live is not counted: whatever is stale is overwritten
    in its turn.

    Args:
        path: The file, made at first use with the rights of its owner only. Best on a file system in memory, such as
            under `/run`; never on one that several machines share.
        name: Whose values and invalidations these are: of the gateway and stage. Others may use the same file, and all
            share its room.
        max_bytes: How large the file may grow, from 4 MiB to 1 TiB; 2 MiB of it are for the log of invalidations. A
            file that is there and smaller starts anew, as one that was lost; one that is larger stays as it is: delete
            it to have it made with another number.
        deadline_ms: How many milliseconds a write may wait for other processes: a whole number from 1 to 60,000.
        bodies: Whether values are kept; without, a new file has the log and little else, 2 MiB.

    Attributes:
        max_lag_us: 0, as what others invalidate is known at once.
        max_item_bytes: The longest value, an eighth of the room for values.

    Raises:
        ConfigurationError: The file cannot be used, or a number is out of bounds; or this system has no locks for
            files, as Windows.
    """

    max_lag_us: int = 0

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str,
        max_bytes: int = DEFAULT_MAX_BYTES,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
        bodies: bool = True,
    ) -> None:
        """Check that the file can be used; it is not opened yet."""
        if not isinstance(max_bytes, int) or not _LEAST_BYTES <= max_bytes <= _MOST_BYTES:
            raise ConfigurationError(
                f"FileResponses max_bytes: {max_bytes!r} is not a whole number from {_LEAST_BYTES:,} to {_MOST_BYTES:,}"
            )
        self.path: str = str(Path(path).absolute())
        self.deadline_ms: int = checked_deadline_ms(deadline_ms, "FileResponses")
        if not has_locks():
            raise ConfigurationError(
                "cache: this system has no locks for files (fcntl); share it by Redis or not at all"
            )
        problem = problem_of(Path(self.path), is_foreign, _FOREIGN, _HARM)
        if problem:
            raise ConfigurationError(f"cache: {self.path!r}: {problem}")
        self._bytes = max_bytes if bodies else 0
        self._capacity = CacheHeader.new(self._bytes).capacity
        self.max_item_bytes: int = self._capacity // _SHARE
        self._namespace = namespace_digest(name)
        self._opened: OpenedFile[CacheTable] | None = None
        self._watch: tuple[Callable[[], int], bytes | bytearray] | None = None
        self._look_us = 0
        renew_after_fork(self)

    def __repr__(self) -> str:
        """Its file."""
        return f"FileResponses({self.path!r})"

    def close(self) -> None:
        """Let go of the file, which stays as it is; whoever asks again opens it again."""
        self._opened = self._watch = None

    def renew(self) -> None:
        """In a forked child: let go of the parent's opening of the file, whose lock would be one with the parent's."""
        self.close()

    def has_news(self, known: Mark, now_us: int) -> bool:
        """Whether anything was invalidated since; that the file was deleted shows within a second."""
        watch = self._watch
        if watch is None or now_us >= self._look_us:
            return self._looked(known, now_us)
        call, mark = watch
        return call() != MARK_BYTES or mark != known

    def learn(self, known: Mark, records: Sequence[Invalidation] = ()) -> News:
        """Append some records, and tell everything beyond a mark, these included."""
        if records:
            with self._held("invalidate") as opened:
                table = _table(opened)
                table.append(records)
        with self._raising("learn"):
            news = self._reading("learn").news(known)
        is_another = log_of(news.mark) != log_of(known)
        if not is_another and position_of(news.mark) >= position_of(known):
            return news
        with self._held("learn") as opened:  # so the file is looked at, which may have started anew
            table = _table(opened)
            if not is_another:  # the log was damaged, and does not know any more what was told
                table.start_anew(opened.file.links_and_size()[1])
            return table.news(known)

    def get(self, key: bytes, known: Mark) -> Found:  # noqa: ARG002 - what is news, `has_news` tells for less
        """The value of a key."""
        with self._raising("get"):
            return Found(self._reading("get").get(key), None)

    def put(self, key: bytes, value: bytes, seconds: float) -> None:  # noqa: ARG002 - see the class
        """Keep a value in the place of the oldest ones."""
        with self._held("put") as opened:
            table = _table(opened)
            if len(value) <= table.header.capacity // _SHARE:
                table.put(key, value)

    def delete(self, key: bytes) -> None:
        """Forget the value of a key."""
        with self._held("delete") as opened:
            _table(opened).delete(key)

    # ---- the file

    def _looked(self, known: Mark, now_us: int) -> bool:
        """`has_news` once a second, when it also looks whether the file is still there."""
        self._look_us = now_us + _LOOK_EACH_US
        opened = self._opened
        if opened is None or opened.table is None or not opened.file.holds(opened.table.size):
            self.close()
            return True
        call, mark = self._watch = opened.file.watch(MARK, MARK_BYTES)
        return call() != MARK_BYTES or mark != known

    def _reading(self, operation: str) -> CacheTable:
        """What is in the file, for whoever only reads: nobody else is waited for, unless it has to be made."""
        opened = self._opened
        if opened is None or opened.file.pid != os.getpid():
            opened = self._opened = self._open()
        if opened.table is None:
            header = read_header(opened.file)
            is_ready = header is not None and self._capacity <= header.capacity and opened.file.holds(header.size)
            if header is None or not is_ready or exposed(os.fstat(opened.file.fd), _HARM):
                with self._held(operation) as opened:
                    return _table(opened)
            opened.table = CacheTable(opened.file, header, self._namespace)
        return opened.table

    @contextmanager
    def _held(self, operation: str) -> Generator[OpenedFile[CacheTable]]:
        """The file, locked and sound."""
        with self._raising(operation):
            try:
                opened = self._hold()
                yield opened
                opened.release()
            except BaseException as error:
                self._let_go(error)
                raise

    @contextmanager
    def _raising(self, operation: str) -> Generator[None]:
        """Have whatever goes wrong with the file raised as a store says it."""
        try:
            yield
        except TimeoutError as error:
            text = f"another process kept {self.path!r} locked for {self.deadline_ms} ms"
            raise StoreTimeoutError(operation, text) from error
        except _Unusable as error:
            raise StoreError(operation, f"{self.path!r}: {error}") from error
        except (OSError, ValueError, struct_error) as error:
            if isinstance(error, OSError) and error.errno in {ENOSPC, EDQUOT}:
                raise StoreError(operation, f"{self.path!r}: {error}", blames_store=operation != "put") from error
            problem = problem_of(Path(self.path), is_foreign, _FOREIGN, _HARM)
            raise StoreError(operation, f"{self.path!r}: {problem or error}") from error

    def _hold(self) -> OpenedFile[CacheTable]:
        while True:
            opened = self._opened
            if opened is None or opened.file.pid != os.getpid():
                opened = self._opened = self._open()
            if opened.enter():
                return opened
            opened.wait(self.deadline_ms)
            if opened.is_sound() or self._mend(opened):
                return opened
            opened.release()
            self.close()  # it was deleted: another one takes its place

    def _let_go(self, error: BaseException) -> None:
        """Give the file back after an error, as `FileStore` does."""
        opened = self._opened
        if opened is not None and not opened.release_mine() and not isinstance(error, Exception):
            self.close()

    def _open(self) -> OpenedFile[CacheTable]:
        """Open the file, or make one; never through a symbolic link."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        opened = OpenedFile[CacheTable](SharedFile(os.open(self.path, flags, 0o600)))
        problem = stranger(os.fstat(opened.file.fd), _HARM)
        if problem:
            raise _Unusable(problem)
        self._watch = None
        return opened

    def _mend(self, opened: OpenedFile[CacheTable]) -> bool:
        """Bring a locked file in order, and learn what it has become; False if it was deleted."""
        file = opened.file
        links, size = file.links_and_size()
        if not links:
            return False
        header = read_header(file)
        problem = _FOREIGN if header is None and is_foreign(file.fd) else exposed(os.fstat(file.fd), _HARM)
        if problem:
            raise _Unusable(problem)
        is_small = header is not None and header.capacity < self._capacity
        if header is None or is_small:
            header = CacheHeader.new(self._bytes)
        table = CacheTable(file, header, self._namespace)
        if size < table.size or not table.is_sound():
            table.start_anew(size)
            if is_small:
                getLogger("apigate").info("%s was too small for %d bytes: it starts anew", self.path, table.size)
            elif size:
                getLogger("apigate").warning("%s was damaged: all responses in it are gone", self.path)
        opened.table = table
        return True


class _Unusable(Exception):
    """The file cannot be used, for a reason that stands in the message."""


def _table(opened: OpenedFile[CacheTable]) -> CacheTable:
    if opened.table is None:
        raise AssertionError("a file that is held has been found in order")
    return opened.table
