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
from typing import TYPE_CHECKING, NoReturn, final

if TYPE_CHECKING:
    from ctypes import PyDLL

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

    __slots__ = ("_look", "_pread", "_pwrite", "_seen", "fd", "lock", "pid", "unlock")

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        self.pid: int = os.getpid()
        from ctypes import PyDLL, c_char, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_uint, c_void_p

        library = PyDLL(None, use_errno=True)
        self.lock: Callable[[], int] = partial(library.flock, c_int(fd), c_int(_EXCLUSIVE))
        self.unlock: Callable[[], int] = partial(library.flock, c_int(fd), c_int(_UNLOCK))
        self._look: Callable[[], int] | None = None
        self._seen = bytearray(_STATX)
        if hasattr(library, "statx"):
            into = (c_char * _STATX).from_buffer(self._seen)
            self._look = partial(library.statx, c_int(fd), c_char_p(b""), c_int(_NO_PATH), c_uint(_WANTED), into)
        self._pread, self._pwrite = library[_wide(library, "pread")], library[_wide(library, "pwrite")]
        for call in (self._pread, self._pwrite):
            call.argtypes, call.restype = (c_int, c_void_p, c_size_t, c_int64), c_ssize_t

    def read(self, at: int, size: int) -> bytes:
        """So many bytes, fewer where the file ends before; what a mapping would answer there is a fatal signal.

        Raises:
            OSError: They cannot be read.
        """
        from ctypes import create_string_buffer

        into = create_string_buffer(size)
        found: int = self._pread(self.fd, into, size, at)
        if found < 0:
            self._fail()
        return into.raw if found == size else into.raw[:found]

    def write(self, at: int, raw: bytes) -> None:
        """Write some bytes at a place.

        Raises:
            OSError: There is no room for all of them, or they cannot be written.
        """
        done: int = self._pwrite(self.fd, raw, len(raw), at)
        if done < 0:
            self._fail()
        if done < len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def watch(self, at: int, size: int) -> tuple[Callable[[], int], bytes | bytearray]:
        """What reads some bytes of the file again and again, and tells how many there were; and where they are then.

        It takes half as long as `read`.
        """
        from ctypes import PyDLL, c_char, c_int, c_int64, c_size_t

        library = PyDLL(None)
        call = library[_wide(library, "pread")]
        into = bytearray(size)
        place = (c_char * size).from_buffer(into)
        return partial(call, c_int(self.fd), place, c_size_t(size), c_int64(at)), into

    def _fail(self) -> NoReturn:
        from ctypes import get_errno

        raise OSError(get_errno(), os.strerror(get_errno()))

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


def _wide(library: "PyDLL", name: str) -> str:
    """The name of a call whose offsets have 64 bits, which is another where those of the plain one have 32."""
    return f"{name}64" if hasattr(library, f"{name}64") else name


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
