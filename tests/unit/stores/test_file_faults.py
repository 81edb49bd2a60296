"""Files that are not what they should be: a clear error or a clean start, and never a limit read from garbage."""

import errno
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate import ConfigurationError, Gateway, Rate, StoreError, Throttle
from apigate.stores import file as file_module
from apigate.stores import kernel
from apigate.stores.file import FileStore
from apigate.stores.header import JOURNAL, TABLE, Header
from apigate.testing import FakeClock
from tests.strategies import UNHURRIED

HOUR = 3_600
ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "apigate.state"


def throttle(path, clock=None, **settings):
    levels = {"global": Rate(10, per=HOUR), "client": Rate(3, per=HOUR)}
    store = FileStore(path, max_keys=100, deadline_ms=20_000, **settings)
    return Throttle(levels, clock=clock or FakeClock(), store=store, name="shop")


def admitted(limits, client="alice", times=20):
    return sum(limits.acquire({"client": client}).allowed for _ in range(times))


@pytest.fixture
def lines(caplog):
    """What was logged, as text."""
    return lambda: [record.getMessage() for record in caplog.records if record.name == "apigate"]


# ---- what is seen when the gateway is built


def make_state(path, mode):
    """A file of ours that others may use too."""
    with closing(FileStore(path, max_keys=10)) as store:
        Throttle({"global": Rate(1)}, store=store, name="shop").acquire()
    path.chmod(mode)


def link_state(path):
    make_state(path, 0o600)
    os.link(path, path.with_name("another"))


def make_foreign(path):
    path.write_bytes(b"SQLite format 3\0" + bytes(10_000))


FAULTS = {
    "a file that others may lock": (lambda path: make_state(path, 0o644), "others may use it too .mode 644.*chmod 600"),
    "a file that others may write": (lambda path: make_state(path, 0o666), "others may use it too .mode 666"),
    "a file with two names": (link_state, "another name too"),
    "somebody's file": (make_foreign, "holds something else.* is left as it is; name another file, or delete this one"),
    "a short file": (lambda path: path.write_bytes(b"x"), "holds something else"),
    "a file of zeros": (lambda path: path.write_bytes(bytes(100_000)), "holds something else"),
    "a directory": (lambda path: path.mkdir(), "is no regular file; name another"),
    "a pipe": (os.mkfifo, "is no regular file"),
    "a link": (lambda path: path.symlink_to(path.with_name("other")), "symbolic link, and none is followed"),
    "a file as a directory": (lambda path: path.parent.joinpath("x").touch(), "Not a directory; name a file"),
    "no directory": (lambda path: None, "there is no directory '.*'; make it, writable for the user of the app"),
}
ELSEWHERE = {"a file as a directory": "x/apigate.state", "no directory": "none/apigate.state"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used_is_refused_when_the_gateway_is_built(path, fault):
    make, why = FAULTS[fault]
    make(path)
    before = path.read_bytes() if path.is_file() else None
    there = path.parent / ELSEWHERE.get(fault, path.name)
    with pytest.raises(ConfigurationError, match=f"file store: '{there}': .*{why}"):
        Gateway(store=f"file://{there}", name="shop")
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ELSEWHERE])
def test_the_same_seen_at_a_request_is_a_store_error_and_takes_nothing(path, fault):
    limits = throttle(path)
    make, why = FAULTS[fault]
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for ask in (lambda: admitted(limits), lambda: limits.peek({"client": "alice"}), limits.reset):
        with pytest.raises(StoreError, match=f"'{path}': .*{why}"):
            ask()
    assert (path.read_bytes() if path.is_file() else None) == before
    path.rmdir() if path.is_dir() else path.unlink()
    assert admitted(limits) == 3


def test_a_directory_that_is_gone_at_the_first_request_is_a_store_error(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    limits = throttle(folder / "apigate.state")
    folder.rmdir()
    with pytest.raises(StoreError, match=r"acquire: .*there is no directory") as raised:
        admitted(limits)
    assert isinstance(raised.value.__cause__, FileNotFoundError)
    folder.mkdir()
    assert admitted(limits) == 3


UNPRIVILEGED = """
import ctypes, fcntl, os
from apigate import ConfigurationError
from apigate.stores.file import FileStore
if os.geteuid() == 0:  # who may do anything; and nobody else may read where Python is, perhaps
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    FileStore({path!r})
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "why"),
    [
        (None, 0o555, "this process may make no file in"),
        (None, 0o666, "Permission denied"),
        (0o444, 0o755, "Permission denied; give the user of the app the right to read and write it|another user"),
        (0o666, 0o000, "Permission denied"),
    ],
    ids=["read-only directory", "directory that may not be searched", "read-only file", "hidden file"],
)
def test_what_the_user_of_the_app_may_not_use_is_refused_when_the_gateway_is_built(file_mode, folder_mode, why):
    """Root may do anything, so it is asked as somebody else."""
    import re
    import tempfile

    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer, "run")
        folder.mkdir()
        path = folder / "apigate.state"
        if file_mode is not None:
            path.touch()
            path.chmod(file_mode)
        folder.chmod(folder_mode)
        said = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED.format(path=str(path))],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        )
        folder.chmod(0o755)
    assert re.search(why, said.stdout), said


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    path.touch()
    os.chown(path, 12_345, -1) if os.geteuid() == 0 else None
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    with pytest.raises(ConfigurationError, match=r"belongs to another user, uid [0-9]+, who could lift all limits"):
        FileStore(path)


def test_a_system_without_locks_for_files_is_told(path, monkeypatch):
    """As Windows is."""
    monkeypatch.setattr(file_module, "has_locks", lambda: False)
    with pytest.raises(ConfigurationError, match="no locks for files"):
        FileStore(path)


# ---- what happens while it is in use


def test_a_file_that_is_deleted_is_made_anew(path):
    limits, other = throttle(path), throttle(path)
    assert admitted(limits) == 3
    path.unlink()
    assert admitted(other) == 3
    assert admitted(limits) == 0


def test_a_file_that_is_replaced_is_looked_at_anew(path, tmp_path):
    limits = throttle(path)
    assert admitted(limits) == 3
    other = tmp_path / "other.state"
    admitted(throttle(other), times=1)
    other.rename(path)
    assert admitted(limits) == 2


@pytest.mark.parametrize("size", [0, 5, 64, 4_096, JOURNAL + 10, TABLE, TABLE + 100_000, -1])
def test_a_file_that_is_truncated_starts_anew(path, lines, size):
    """Before it is opened, and while it is mapped: what lies beyond its end must not be touched."""
    limits = throttle(path)
    admitted(limits)
    whole = path.stat().st_size
    os.truncate(path, whole - 1 if size < 0 else size)
    if size == 5:
        with pytest.raises(StoreError, match="holds something else"):
            admitted(limits)
        return
    assert admitted(limits) == 3
    assert path.stat().st_size == whole
    os.truncate(path, whole - 1 if size < 0 else size)
    assert admitted(throttle(path)) == 3
    assert len(lines()) == (0 if size in {0, 64} else 2)
    assert all(line == f"{path} was damaged: all buckets in it start anew" for line in lines())


def scribble(path, at, raw):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(raw)


def test_one_of_two_headers_that_is_damaged_is_mended_and_nothing_lost(path, lines):
    limits = throttle(path)
    assert admitted(limits, times=2) == 2
    for at in (0, 9, 63, JOURNAL - 64, JOURNAL - 1):
        whole = path.read_bytes()[:JOURNAL]
        scribble(path, at, bytes([whole[at] ^ 0xFF]))
        assert limits.peek({"client": "alice"}, cost=0).remaining == 1
        assert path.read_bytes()[:64] == whole[:64]
        assert admitted(throttle(path), "bob", 1) >= 0
        assert path.read_bytes()[:JOURNAL] == whole
    assert lines() == []


def test_two_damaged_headers_are_a_clean_start(path, lines):
    limits, other = throttle(path), throttle(path)
    admitted(limits)
    admitted(other)
    scribble(path, 20, b"\xff\xff")
    scribble(path, JOURNAL - 64 + 30, b"\xff\xff")
    assert admitted(other) == 3
    assert admitted(limits) == 0
    assert lines() == [f"{path} was damaged: all buckets in it start anew"]


def test_a_file_that_somebody_overwrites_while_it_is_in_use_is_left_to_them(path):
    limits = throttle(path)
    admitted(limits)
    path.write_bytes(b"dear diary " * 1_000_000)
    with pytest.raises(StoreError, match="holds something else"):
        admitted(limits)
    assert path.read_bytes() == b"dear diary " * 1_000_000


def test_a_damaged_bucket_is_told_once(path, lines):
    limits = throttle(path)
    admitted(limits)
    raw = bytearray(path.read_bytes())
    for at in range(TABLE, len(raw), 64):
        if any(raw[at : at + 64]):
            raw[at + 40] ^= 0xFF
    path.write_bytes(raw)
    assert admitted(limits) == 3
    assert lines() == [f"{path} was damaged: the buckets at these places start anew"]


def test_another_number_of_keys_leaves_the_file_as_it_is(path):
    admitted(throttle(path))
    size = path.stat().st_size
    other = Throttle(
        {"client": Rate(3, per=HOUR)}, clock=FakeClock(), store=FileStore(path, max_keys=9_000), name="shop"
    )
    assert admitted(other) == 0
    assert path.stat().st_size == size


def test_a_full_disk_is_a_store_error_before_anything_is_written(path, monkeypatch):
    """Every block is there before the file is mapped, as a write to a map that finds none kills the process."""

    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    limits = throttle(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreError, match="No space left on device") as raised:
            admitted(limits)
        assert isinstance(raised.value.__cause__, OSError)
    assert admitted(limits) == 3
    assert path.stat().st_blocks * 512 >= path.stat().st_size


@pytest.mark.parametrize("cannot", ["raises", "is missing"])
def test_a_system_that_cannot_allocate_writes_zeros(path, monkeypatch, cannot):
    def unsupported(fd, offset, length):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if cannot == "raises":
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
    assert admitted(throttle(path)) == 3
    assert path.stat().st_blocks * 512 >= path.stat().st_size


def test_a_system_without_statx_looks_at_the_file_in_the_old_way(path, monkeypatch):
    """As macOS, and a container that forbids it."""
    limits = throttle(path)
    held = limits.store.hold("test")
    held.file._look = lambda: -1
    held.release()
    assert admitted(limits) == 3
    os.truncate(path, TABLE)
    assert admitted(limits) == 3
    path.unlink()
    assert admitted(limits) == 3


# ---- machines


def test_after_a_restart_of_the_machine_the_file_is_used_on_and_nothing_is_forgiven(path, monkeypatch):
    clock = FakeClock()
    clock.advance(500 * HOUR)
    limits = throttle(path, clock)
    admitted(limits)
    limits.store.close()
    monkeypatch.setattr(file_module, "machine", lambda: b"started  anew...")
    clock = FakeClock()
    limits = throttle(path, clock)
    assert admitted(limits) == 0
    clock.advance(HOUR / 3)
    assert admitted(limits) == 1


def test_a_machine_that_takes_the_file_over_stops_the_other_and_is_given_nothing(path, monkeypatch):
    """Their clocks differ by weeks: going by both in turn would pay everything off."""
    here, far = FakeClock(), FakeClock()
    far.advance(1_000 * HOUR)
    limits = throttle(path, here)
    assert admitted(limits) == 3
    monkeypatch.setattr(file_module, "machine", lambda: b"another machine!")
    others = throttle(path, far)
    assert admitted(others) == 0
    for _ in range(2):
        with pytest.raises(StoreError, match="taken over by another machine, whose clock is another one; give each"):
            admitted(limits)
    assert admitted(others) == 0


def test_all_processes_of_a_machine_see_the_same_machine():
    script = "from apigate.stores.kernel import machine; print(machine().hex())"
    said = subprocess.check_output(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, text=True
    )
    assert said.strip() == kernel.machine().hex()


@pytest.mark.parametrize(
    ("files", "same"),
    [
        ({}, True),
        ({"/proc/self/timens_offsets": b"monotonic           0         0\nboottime 0 0\n"}, True),
        ({"/proc/self/timens_offsets": b"monotonic          -5         0\nboottime 0 0\n"}, False),
        ({"/proc/sys/kernel/random/boot_id": b"another\n"}, False),
    ],
    ids=["the same", "no offset", "a container with a clock of its own", "another start"],
)
def test_a_clock_of_its_own_makes_a_machine(monkeypatch, files, same):
    real = {"/proc/sys/kernel/random/boot_id": b"this\n", "/proc/self/timens_offsets": b""}
    monkeypatch.setattr(kernel, "_read", real.__getitem__)
    usual = kernel.machine()
    monkeypatch.setattr(kernel, "_read", {**real, **files}.__getitem__)
    assert (kernel.machine() == usual) is same


# ---- garbage

BUCKETS = [("alice", 3), ("bob", 1), ("carol", 2)]
wheres = st.one_of(
    st.sampled_from([0, 8, 12, 24, JOURNAL - 64, JOURNAL, JOURNAL + 4, JOURNAL + 8, TABLE]),
    st.integers(0, 70_000),
    st.integers(0, Header(sets=13, era=1, began=0, salt=b"", machine=b"").size),
    st.tuples(st.just("bucket"), st.integers(0, 3), st.integers(0, 63)),
)
damages = st.lists(
    st.tuples(wheres, st.one_of(st.binary(min_size=1, max_size=300), st.sampled_from([b"\xff" * 5_000, bytes(5_000)]))),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file, and functions of what it holds and where something is owed in it: values would be printed."""
    path = tmp_path_factory.mktemp("garbage") / "apigate.state"
    limits = throttle(path)
    for client, times in BUCKETS:
        admitted(limits, client, times)
    raw = path.read_bytes()
    taken = [at for at in range(TABLE, len(raw), 64) if raw[at : at + 64] != bytes(64)]
    return path, lambda: raw, lambda place: taken[place]


@given(damages=damages, cut=st.none() | st.integers(0, 5_000_000), opened=st.booleans())
@UNHURRIED
def test_random_bytes_anywhere_are_an_error_of_the_store_or_a_bucket_within_its_bounds(whole, damages, cut, opened):
    path, raw, taken = whole
    path.write_bytes(raw())
    limits = throttle(path)
    if opened:
        limits.peek({"client": "alice"})
    for where, garbage in damages:
        scribble(path, taken(where[1]) + where[2] if isinstance(where, tuple) else where, garbage)
    if cut is not None and cut < len(raw()):
        os.truncate(path, cut)
    try:
        for client, times in BUCKETS:
            assert limits.peek({"client": client}, cost=0).levels["client"].remaining in {3, 3 - times}
            assert limits.peek({"client": client}, cost=3).wait_us <= HOUR * 1_000_000
            assert admitted(limits, client) <= 3
            limits.reset({"client": client})
            assert limits.peek({"client": client}, cost=0).levels["client"].remaining == 3
        limits.reset()
        assert admitted(limits) == 3
    except StoreError:
        limits.store.close()
