"""The store in a file: shared by stores, processes and forks; bounded, and never longer than promised."""

import json
import os
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import pytest

from apigate import ConfigurationError, Gateway, Rate, StoreTimeoutError, Throttle
from apigate.stores import file_opened
from apigate.stores.file import FileStore
from apigate.testing import FakeClock
from apigate.throttling.store import is_shared
from tests.threads import in_threads

HOUR = 3_600
DAY = 86_400
ROOT = Path(__file__).parents[3]
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # other tests may have left threads
NUMBERS = count()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "apigate.state"


def throttle(path, levels=None, clock=None, **settings):
    settings.setdefault("max_keys", 100)
    settings.setdefault("deadline_ms", 20_000)
    levels = levels or {"global": Rate(10, per=HOUR), "client": Rate(3, per=HOUR)}
    return Throttle(levels, clock=clock or FakeClock(), store=FileStore(path, **settings), name="shop")


def admitted(limits, client="alice", times=20):
    return sum(limits.acquire({"client": client}).allowed for _ in range(times))


@pytest.mark.parametrize("max_keys", [0, -1, 1.5, "100", None, 10**9])
def test_the_bound_is_a_whole_number(path, max_keys):
    with pytest.raises(ConfigurationError, match=r"max_keys.*from 1 to 100,000,000"):
        FileStore(path, max_keys=max_keys)


@pytest.mark.parametrize("deadline_ms", [0, -1, "50", None, True, 1.5, 50.0, 60_001, float("nan")])
def test_the_deadline_is_a_whole_number_of_milliseconds(path, deadline_ms):
    with pytest.raises(ConfigurationError, match=r"deadline_ms.*from 1 to 60,000"):
        FileStore(path, deadline_ms=deadline_ms)


def test_too_many_limits_for_one_decision_are_refused_when_they_are_opened(path):
    rates = [Rate(1)] * 801
    with pytest.raises(ConfigurationError, match="801 limits"):
        Throttle({"client": rates}, store=FileStore(path), name="shop")


def test_800_limits_are_one_decision(path):
    limits = throttle(path, {"client": [Rate(2, per=HOUR)] * 800}, max_keys=10_000)
    assert admitted(limits) == 2


# ---- sharing


def test_other_processes_use_it_so_a_name_is_needed(path):
    assert is_shared(FileStore(path))
    with pytest.raises(ConfigurationError, match=r"FileStore\(.*name='shop'"):
        Gateway(store=f"file://{path}")
    Gateway(store=f"file://{path}", name="shop")


def test_the_file_is_made_at_first_use_for_its_owner_only(path):
    limits = throttle(path)
    assert not path.exists()
    limits.acquire({"client": "alice"})
    assert path.stat().st_mode & 0o777 == 0o600


def test_stores_on_one_file_share_their_buckets(path):
    one, other = throttle(path), throttle(path)
    assert admitted(one, times=2) == 2
    assert admitted(other) == 1
    assert one.peek({"client": "bob"}, cost=0).levels["global"].remaining == 7


def test_while_one_process_makes_the_file_no_other_waits(path, monkeypatch):
    """Making it takes many times as long as a decision: workers that start together would be past their deadline."""
    at_work, go_on, allocate = threading.Event(), threading.Event(), os.posix_fallocate

    def slow(fd, offset, size):
        if not at_work.is_set():
            at_work.set()
            assert go_on.wait(60)
        allocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", slow)
    slow_one, other = throttle(path), throttle(path, deadline_ms=1_000)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(admitted(slow_one)))
    thread.start()
    assert at_work.wait(60)
    assert admitted(other, times=2) == 2
    go_on.set()
    thread.join()
    assert seen == [1]
    assert list(path.parent.iterdir()) == [path]


def test_where_a_file_cannot_be_made_out_of_sight_it_is_made_in_place(path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    assert admitted(throttle(path), times=2) == 2
    assert admitted(throttle(path)) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_owed_outlives_the_process(path):
    admitted(throttle(path))
    assert admitted(throttle(path)) == 0


def test_a_store_that_was_closed_opens_its_file_again(path):
    limits = throttle(path)
    admitted(limits)
    limits.store.close()
    assert admitted(limits) == 0


def test_names_keep_owners_apart(path):
    admitted(throttle(path))
    others = Throttle({"client": Rate(3, per=HOUR)}, clock=FakeClock(), store=FileStore(path), name="bar")
    assert admitted(others) == 3


def test_text_and_bytes_are_different_keys(path):
    buckets = throttle(path)._opened.buckets
    assert [buckets.acquire(["", key], [1, 3], 0).allowed for key in ("a", b"a", "a", b"a")] == [
        True,
        True,
        False,
        False,
    ]


def test_all_buckets_of_a_throttle_are_forgotten_and_no_others(path):
    one = throttle(path, {"client": Rate(1, per=HOUR)}, max_keys=9_000)
    other = Throttle({"client": Rate(1, per=HOUR)}, clock=FakeClock(), store=one.store, name="other")
    clients = [f"{number}" for number in range(2_000)]
    for limits in (one, other):
        assert sum(admitted(limits, client, 1) for client in clients) == len(clients)
    one.reset()
    assert sum(admitted(one, client, 1) for client in clients) == len(clients)
    assert sum(admitted(other, client, 1) for client in clients) == 0


def fork_and(work):
    """The exit status of a forked child that does this."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return child


def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@FORKS
def test_a_fork_of_a_process_that_used_the_file_has_a_lock_of_its_own(path):
    """With the parent's, parent and child would both hold it."""
    rates = {"global": Rate(1_000, per=HOUR), "client": Rate(200, per=HOUR)}
    limits = throttle(path, rates, deadline_ms=20_000)  # five processes ask for the lock without a pause
    admitted(limits, times=1)
    children = [fork_and(lambda: admitted(limits, times=100)) for _ in range(4)]
    mine = admitted(limits, times=100)
    assert mine + sum(map(status, children)) == 199


@FORKS
def test_a_fork_in_the_middle_of_another_threads_decision_neither_waits_nor_keeps_the_lock(path):
    limits = throttle(path)
    held = limits.store.hold("test")
    child = fork_and(lambda: 0 if limits.store._opened is None else 1)
    assert status(child) == 0
    held.release()
    assert status(fork_and(lambda: admitted(limits))) == 3


APP = """
from apigate import Throttle
from apigate.stores.file import FileStore
limits = Throttle({{"client": "50/day"}}, store=FileStore({path!r}, deadline_ms=20_000), name="shop")
limits.acquire({{"client": "alice"}})  # the parent uses it before it forks its workers
def app(environ, start_response):
    allowed = limits.acquire({{"client": "alice"}}).allowed
    start_response("200 OK" if allowed else "429 Too Many Requests", [("Content-Length", "0")])
    return [b""]
"""


def test_gunicorn_workers_that_were_preloaded_share_one_limit(path, tmp_path):
    import http.client
    import socket

    (tmp_path / "shop.py").write_text(APP.format(path=str(path)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [
            "gunicorn",
            "--preload",
            "--workers=4",
            "--threads=2",
            f"--bind=fd://{listener.fileno()}",
            "shop:app",
        ]
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            statuses = []

            def ask():
                for _ in range(25):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.request("GET", "/")
                    statuses.append(connection.getresponse().status)
                    connection.close()

            in_threads([ask] * 4)
        finally:
            server.terminate()
            server.wait(60)
    assert sorted(statuses) == [200] * 49 + [429] * 51


# ---- waiting

STOPPED = """
import os, signal
from apigate.stores.file import FileStore
store = FileStore({path!r})
store.hold("test", 0)
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


class OwnTime(threading.local):
    """A time for each thread, in microseconds, in which only waiting takes any."""

    us = 0

    def now_us(self):
        return self.us

    def pause(self, seconds):
        self.us += round(seconds * 1_000_000)


@pytest.mark.usefixtures("restless_interpreter")
def test_nobody_waits_longer_than_the_deadline_for_a_process_that_was_stopped(path, monkeypatch):
    """Eight threads at once: the lock between threads counts too. One after the other they would wait 0.8 s."""
    time = OwnTime()

    class Patient:
        """A lock that others let go of when half of the time that one may wait for it has passed, or not at all."""

        def __init__(self):
            self.lock = threading.Lock()
            self.release = self.lock.release

        def acquire(self, blocking=True, timeout=0):
            time.pause(timeout / 2)
            is_mine = self.lock.acquire(blocking=False)
            if not is_mine:
                time.pause(timeout / 2)
            return is_mine

    monkeypatch.setattr(file_opened, "Lock", Patient)
    monkeypatch.setattr(file_opened, "_CLOCK", time)
    monkeypatch.setattr(file_opened, "pause", time.pause)
    limits = throttle(path, {"client": Rate(10**6)}, deadline_ms=100)
    limits.acquire({"client": "alice"})
    holder = subprocess.Popen(
        [sys.executable, "-c", STOPPED.format(path=str(path))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
    )
    waits = []

    def ask():
        for _ in range(20):
            start = time.now_us()
            with pytest.raises(
                StoreTimeoutError, match=r"acquire: another process kept .* locked for 100 ms"
            ) as raised:
                limits.acquire({"client": "alice"})
            assert isinstance(raised.value.__cause__, TimeoutError)
            waits.append(time.now_us() - start)

    try:
        assert holder.stdout.readline() == b"held\n"
        in_threads([ask] * 8)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert waits == [100_000] * 8 * 20
    assert limits.acquire({"client": "alice"}).allowed


def test_whoever_goes_on_after_the_deadline_of_others_is_not_harmed(path):
    limits, other = throttle(path), throttle(path, deadline_ms=1)
    held = limits.store.hold("test")
    with pytest.raises(StoreTimeoutError):
        other.acquire({"client": "alice"})
    held.release()
    assert admitted(other) == 3


# ---- rates


def test_another_rate_is_taken_over_bucket_by_bucket_and_what_is_owed_stays(path):
    clock = FakeClock()
    limits = throttle(path, {"client": Rate(10, per=HOUR)}, clock)
    assert admitted(limits, times=6) == 6
    other = throttle(path, {"client": Rate(8, per=60)}, clock)
    assert other.peek({"client": "alice"}, cost=0).remaining == 2
    assert admitted(other) == 2
    clock.advance(7.5)
    assert admitted(other) == 1


# ---- the bound


def strangers(limits, number):
    return sum(limits.acquire({"client": f"stranger {next(NUMBERS)}"}).allowed for _ in range(number))


def test_a_flood_of_random_keys_stays_within_the_file_and_lets_nobody_in_who_was_refused(path):
    limits = throttle(path, {"global": Rate(10**9), "client": Rate(2, per=DAY)}, max_keys=500)
    refused = [f"victim {number}" for number in range(20)]
    for victim in refused:
        assert admitted(limits, victim, 3) == 2
    size = path.stat().st_size
    welcome = 0
    for _ in range(5):
        welcome += strangers(limits, 5_000)
        assert sum(admitted(limits, victim, 1) for victim in refused) == 0
        assert path.stat().st_size == size
    places = 2 * 500 + 16
    assert 500 - len(refused) <= welcome <= places + 2 * 4_096


def test_buckets_that_equal_a_fresh_one_make_room(path):
    clock = FakeClock()
    limits = throttle(path, {"client": Rate(1, per=10)}, clock, max_keys=200)  # of 416 places, which 1,500 need
    told = []
    limits.store.on_fill = told.append
    for _ in range(30):
        assert strangers(limits, 50) == 50
        clock.advance(10)
    assert told == []


def test_strangers_take_no_place_from_buckets_that_all_share(path):
    limits = throttle(path, {"client": Rate(1, per=DAY)}, max_keys=1)
    strangers(limits, 20_000)
    for number in range(100):  # wherever the digest of a name leads
        broad = Throttle({"global": Rate(2, per=DAY)}, clock=FakeClock(), store=limits.store, name=f"later-{number}")
        assert [broad.acquire().allowed for _ in range(3)] == [True, True, False]


def test_that_it_is_full_is_told_once_an_hour_with_no_lock_held(path):
    clock, told = FakeClock(), []
    limits = throttle(path, {"client": Rate(1, per=DAY)}, clock, max_keys=20)

    def fill(max_keys):
        told.append(max_keys)
        limits.acquire({"client": "from within"})

    limits.store.on_fill = fill
    strangers(limits, 200)
    assert told == [20]
    clock.advance(HOUR)
    strangers(limits, 200)
    assert told == [20, 20]


def test_a_gateway_is_told(path):
    events = []
    gateway = Gateway(client_throttle="1/day", store=f"file://{path}?max_keys=1", name="shop", on_event=events.append)
    gateway.store.store.on_fill(1)  # the store within the one that outlives its outages
    assert [json.dumps(event.buckets) for event in events] == ["1"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may strike in a `__del__`, too
def test_an_exception_from_a_signal_leaves_whole_decisions_and_no_lock(path):
    """A handler that raises may strike between taking the lock and knowing of it."""
    limits = throttle(path, {"global": Rate(10**5, per=HOUR), "client": Rate(10**5, per=HOUR)}, deadline_ms=2_000)

    armed = False

    def interrupt(signum, frame):
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for number in range(300):
            signal.setitimer(signal.ITIMER_REAL, 0.000_2 + number * 0.000_000_7)
            try:
                armed = True
                for _ in range(200):
                    limits.acquire({"client": "alice"})
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    left = limits.peek({"client": "alice"}, cost=0).levels
    assert interrupted > 250
    assert left["global"].remaining == left["client"].remaining
