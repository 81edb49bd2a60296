"""A file that processes share, in one of them: whether it can be used, said in words for people; opened; locked."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Lock, get_ident
from typing import Generic, Protocol, TypeVar, final

from apigate.core.clock import SystemClock, pause
from apigate.stores.file_header import is_foreign
from apigate.stores.file_kernel import SharedFile

__all__ = ["FOREIGN", "HARM", "OpenedFile", "Sound", "exposed", "problem_of", "stranger"]

FOREIGN = (
    "it holds something else than buckets of this version of apigate, and is left as it is; name another file, or "
    "delete this one if nobody needs it"
)

HARM = "lift all limits"
"""What others could do to buckets."""

_BUSY_TRIES = 20  # before each pause, about as long as a decision takes: most often the other needs no longer
_PAUSE = 0.000_05  # seconds; the kernel makes 100 microseconds of it
_CLOCK = SystemClock()


class Sound(Protocol):
    """What is in a file, and can tell whether it still is."""

    size: int

    def is_sound(self) -> bool:
        """Whether a file that is locked, and has this size, is as this process knows it."""
        ...


T = TypeVar("T", bound=Sound)


@final
class OpenedFile(Generic[T]):
    """The file as this process has opened it: one lock between its threads, one between processes.

    Attributes:
        file: The file.
        table: What is in it, once it has been found in order.
    """

    __slots__ = ("_holder", "_mutex", "file", "table")

    def __init__(self, file: SharedFile) -> None:
        self.file: SharedFile = file
        self.table: T | None = None
        self._mutex = Lock()
        self._holder = 0  # the thread that has it

    def enter(self) -> bool:
        """Lock the file if nobody else has, and if it is there and as this process knows it."""
        if self._mutex.acquire(blocking=False):
            self._holder = get_ident()
            if self.file.lock() == 0:
                if self.is_sound():
                    return True
                self.file.unlock()
            self._holder = 0
            self._mutex.release()
        return False

    def wait(self, deadline_ms: float) -> None:
        """Lock it once the others let go of it.

        Raises:
            TimeoutError: They do not within the deadline.
            OSError: The file cannot be locked at all.
        """
        until = _CLOCK.now_us() + round(deadline_ms * 1_000)
        if not self._mutex.acquire(timeout=deadline_ms / 1_000):
            raise TimeoutError("a thread of this process has it")
        self._holder = get_ident()
        try:
            tries = 0
            while self.file.lock() != 0:
                tries += 1
                if tries % _BUSY_TRIES == 0:
                    left = until - _CLOCK.now_us()
                    if left <= 0:
                        self.file.why_locked()
                    pause(max(0, min(_PAUSE, left / 1_000_000)))
        except BaseException as error:
            self._holder = 0
            self._mutex.release()
            if isinstance(error, BlockingIOError):
                raise TimeoutError("another process has it") from error
            raise

    def is_sound(self) -> bool:
        """Whether the locked file is still there, and as this process knows it."""
        # Its size comes first: what lies beyond the end of a file must not be touched.
        return self.table is not None and self.file.holds(self.table.size) and self.table.is_sound()

    def release(self) -> None:
        """Unlock it."""
        self._holder = 0
        self.file.unlock()
        self._mutex.release()

    def release_mine(self) -> bool:
        """Unlock it if this thread has locked it, as far as is known."""
        mine = self._holder == get_ident()
        if mine:
            self.release()
        return mine


def problem_of(
    path: Path,
    is_foreign: Callable[[int], bool] = is_foreign,
    foreign: str = FOREIGN,
    harm: str = HARM,
) -> str | None:
    """Why the file at this path cannot be used, and what to do about it; None if it can, or can be made.

    Args:
        path: Where it is.
        is_foreign: Whether an open file holds something else.
        foreign: What to say then.
        harm: What others could do who can use it.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return _problem_of_folder(path.parent)
    except OSError as error:
        return f"{error.strerror}; name a file that the user of the app can read and write"
    problem = stranger(found, harm)
    if problem is not None:
        return problem
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return f"{error.strerror}; give the user of the app the right to read and write it, or name another file"
    try:
        return foreign if is_foreign(fd) else exposed(os.fstat(fd), harm)
    finally:
        os.close(fd)


def _problem_of_folder(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"there is no directory {str(folder)!r}; make it, writable for the user of the app, or name another file"
    if not os.access(folder, os.W_OK | os.X_OK):
        return (
            f"this process may make no file in {str(folder)!r}; give the user of the app the right to, or name another"
        )
    return None


def stranger(found: os.stat_result, harm: str = HARM) -> str | None:
    """Why a file cannot be the store's, by its kind and owner."""
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link, and none is followed; name the file itself"
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file; name another"
    if found.st_uid not in {os.geteuid(), 0}:
        return f"it belongs to another user, uid {found.st_uid}, who could {harm}; name a file of the app's user"
    return None


def exposed(found: os.stat_result, harm: str = HARM) -> str | None:
    """Why a file that is the store's is of no use all the same: who else may use it."""
    if found.st_mode & 0o077:
        return (
            f"others may use it too (mode {stat.S_IMODE(found.st_mode):o}), and so could {harm}, or keep it "
            f"locked; chmod 600 it, or delete it to have it made anew"
        )
    if found.st_nlink > 1:
        return "it has another name too (a hard link); delete it to have it made anew, or name another"
    return None
