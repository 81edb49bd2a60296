"""What the file store asks of the kernel: a lock between processes, whether a file is whole, and which machine this is.

The rule of this file: while the lock is held, no call lets go of the interpreter's own lock. `fcntl.flock` and
`os.fstat` do, and in a process of busy threads the caller then waits 5 ms and more until it may go on, with every other
process behind it. The same calls through `ctypes.PyDLL` keep it; they take a microsecond and never block.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import final

__all__ = ["SharedFile", "allocate", "has_locks", "machine"]

_EXCLUSIVE = 2 | 4  # LOCK_EX, LOCK_NB
_UNLOCK = 8
_LINKS_AND_SIZE = Struct("<16xI20xQ").unpack_from  # of `struct statx`, which is laid out alike on every processor
_NO_PATH = 0x1000  # AT_EMPTY_PATH: the descriptor itself
_WANTED = 0x4 | 0x200  # STATX_NLINK, STATX_SIZE
_STATX = 256
_CHUNK = 1 << 20


def has_locks() -> bool:
    """Whether this system locks files so that several processes can share one; Windows does not."""
    from importlib.util import find_spec

    return find_spec("fcntl") is not None


@final
class SharedFile:
    """An open file and its lock.

    The lock belongs to this very opening of the file: two stores of one process exclude each other too. The file is
    closed when the last thread lets go of this, so that none finds another file under the same number.

    Args:
        fd: The descriptor; closing it is left to this object from now on.

    Attributes:
        fd: The descriptor.
        pid: The process that opened it.
        lock: Take the lock if nobody has it: 0 if so.
        unlock: Give the lock back.
    """

    __slots__ = ("_look", "_seen", "fd", "lock", "pid", "unlock")

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        self.pid: int = os.getpid()
        from ctypes import PyDLL, c_char, c_char_p, c_int, c_uint

        library = PyDLL(None)
        self.lock: Callable[[], int] = partial(library.flock, c_int(fd), c_int(_EXCLUSIVE))
        self.unlock: Callable[[], int] = partial(library.flock, c_int(fd), c_int(_UNLOCK))
        self._look: Callable[[], int] | None = None
        self._seen = bytearray(_STATX)
        if hasattr(library, "statx"):
            into = (c_char * _STATX).from_buffer(self._seen)
            self._look = partial(library.statx, c_int(fd), c_char_p(b""), c_int(_NO_PATH), c_uint(_WANTED), into)

    def __del__(self, getpid: Callable[[], int] = os.getpid, close: Callable[[int], None] = os.close) -> None:
        """Unlock and close it; in a fork only close, as the lock is the parent's. `os` may be gone at exit."""
        unlock = getattr(self, "unlock", None)
        if unlock is not None and getpid() == self.pid:
            unlock()
        close(self.fd)

    def why_locked(self) -> None:
        """Ask for the lock once more, and raise what forbids it.

        Raises:
            OSError: The file cannot be locked; a `BlockingIOError` if another process has it.
        """
        import fcntl

        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def holds(self, size: int) -> bool:
        """Whether the file is still there, and has at least so many bytes."""
        if self._look is not None and self._look() == 0:
            links, found = _LINKS_AND_SIZE(self._seen)
        else:
            links, found = self.links_and_size()
        return bool(links) and found >= size

    def links_and_size(self) -> tuple[int, int]:
        """Under how many names the file is known, none if it was deleted, and its size in bytes."""
        found = os.fstat(self.fd)
        return found.st_nlink, found.st_size


def allocate(fd: int, size: int) -> None:
    """Make a file at least so large, with every block of it on the disk, and keep what it holds.

    Raises:
        OSError: There is no room.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except (AttributeError, OSError) as error:  # macOS and some file systems cannot
        if getattr(error, "errno", errno.EOPNOTSUPP) not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise
        for start in range(os.fstat(fd).st_size, size, _CHUNK):
            os.pwrite(fd, bytes(min(_CHUNK, size - start)), start)


def machine() -> bytes:
    """What tells this machine, since it was started, from all others: the same for all processes that see one clock.

    On Linux that is the boot id of the kernel, and how far a container's clock is set off from it; elsewhere the name
    of the host.
    """
    from hashlib import blake2b

    known = _read("/proc/sys/kernel/random/boot_id") or os.uname().nodename.encode()
    offsets = [line.split()[1:] for line in _read("/proc/self/timens_offsets").splitlines() if b"monotonic" in line]
    if any(any(map(int, offset)) for offset in offsets):
        known += repr(offsets).encode()
    return blake2b(known, digest_size=16).digest()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib would be loaded for this alone
            return file.read()
    except OSError:
        return b""
