"""The store in a file under processes that contend for it, beside what it was chosen over, SQLite, and memory.

Every process takes from the same three levels. Paced, each sleeps until it asks the next of 2,000 times a second, so
the caches are cold; the store in memory, in one process, shows what that alone makes of a decision. Saturated, each
asks as often as it can. After each run the buckets must have paid exactly what was admitted.

Killed, three at a time ask as often as they can until `kill -9` comes at a random moment, again and again. Then all
three levels must have paid the same, and no more than was reported but for the last decision of each that was killed.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from threading import Lock

import apigate
from apigate import Rate, StoreError, Throttle
from apigate.stores.file import DEFAULT_DEADLINE_MS, FileStore
from apigate.stores.memory import MemoryStore
from apigate.throttling.algorithms import FRESH, State, decide, written
from apigate.throttling.decision import Decision
from apigate.throttling.limit import Limit
from apigate.throttling.store import ThrottleStore
from benchmarks.measure import Batch, Case, Figure, Group, Plan

__all__ = ["figures", "groups"]

PROCESSES = (1, 2, 4)
PACE = 2_000
SECONDS = 5.0
KILLS = 300
KILLED_WITHIN = 0.02
"""Seconds: at most so long after it began is a process killed."""

BURST = 600_000
LEVELS = {level: Rate(1, per=3_600, burst=BURST) for level in ("global", "method", "client")}
KEYS = {"method": "GET /pets", "client": "ip:192.0.2.1"}
ROOM = 1 << 30
"""Bytes that a file system in memory must have free."""

HEADING = "One host, several processes (`python -m benchmarks --only file-store`)"
KILLED = "One host, processes killed by `kill -9` (all levels paid the same)"


class SQLiteStore:
    """The rival: a row for each bucket, a transaction for each decision, which SQLite's own log keeps whole."""

    shared = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = Lock()
        self.connection = sqlite3.connect(
            path, timeout=DEFAULT_DEADLINE_MS / 1_000, isolation_level=None, check_same_thread=False
        )
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = OFF")  # as the other: safe from its processes, not from the power
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS buckets (name TEXT, key TEXT, owed INTEGER, last INTEGER, "
            "PRIMARY KEY (name, key)) WITHOUT ROWID"
        )

    def open(self, limits: Sequence[Limit], now: int) -> "SQLiteBuckets":
        return SQLiteBuckets(self, limits)


class SQLiteBuckets:
    """Only what is measured: `acquire`, and `peek` to see that it was exact."""

    def __init__(self, store: SQLiteStore, limits: Sequence[Limit]) -> None:
        self.store = store
        self.limits = limits

    def acquire(self, keys: Sequence[str], costs: Sequence[int], now: int, patience: int = 0) -> Decision:
        execute = self.store.connection.execute
        with self.store.lock:
            execute("BEGIN IMMEDIATE")
            states = self.states(keys)
            decision = decide(self.limits, states, costs, now, patience)
            if decision.allowed:
                for limit, key, state in zip(self.limits, keys, written(decision, states, now), strict=True):
                    execute("REPLACE INTO buckets VALUES (?, ?, ?, ?)", (limit.name, key, *state))
            execute("COMMIT")
        return decision

    def peek(self, keys: Sequence[str], costs: Sequence[int], now: int) -> Decision:
        with self.store.lock:
            return decide(self.limits, self.states(keys), costs, now)

    def states(self, keys: Sequence[str]) -> list[State]:
        found = []
        for limit, key in zip(self.limits, keys, strict=True):
            row = self.store.connection.execute(
                "SELECT owed, last FROM buckets WHERE name = ? AND key = ?", (limit.name, key)
            ).fetchone()
            found.append(row or FRESH)
        return found


STORES: dict[str, Callable[[str], ThrottleStore]] = {
    "file store": FileStore,
    "SQLite": SQLiteStore,
    "memory store": lambda _path: MemoryStore(),
}
SHARED = ("file store", "SQLite")


def groups(plan: Plan) -> tuple[Group, ...]:
    """A decision of one process that does nothing else: nobody contends, and all caches are warm."""
    return (
        Group("One process, one after the other", tuple(Case(name, lambda name=name: _alone(name)) for name in STORES)),
    )


def _alone(name: str) -> Batch:
    folder = tempfile.TemporaryDirectory(dir=_folder())
    throttle = _throttle(name, Path(folder.name, "state"))

    def batch(times: int, _kept_until_here: object = folder) -> None:
        for _ in repeat(None, times):
            throttle.acquire(KEYS)

    return batch


def _folder() -> str | None:
    """A file system in memory, if there is one with room: a container often has 64 MB, and each file takes 17."""
    memory = "/dev/shm"
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM else None


def figures(plan: Plan) -> Iterator[Figure]:
    """Latency and throughput of both, for each number of processes; in memory if there is a file system there."""
    seconds = max(0.2, SECONDS * plan.scale)
    with tempfile.TemporaryDirectory(dir=_folder()) as directory:
        runs = [(name, number, pace) for name in SHARED for number in PROCESSES for pace in (PACE, 0)]
        for name, number, pace in [*runs, ("memory store", 1, PACE)]:
            yield from _run(name, Path(directory, f"{name} {number} {pace}"), number, pace, seconds)
        for name in SHARED:
            yield from _killed(name, Path(directory, f"{name} killed"), max(3, int(KILLS * plan.scale)))


def _killed(name: str, path: Path, kills: int) -> Iterator[Figure]:
    _throttle(name, path).peek(KEYS)  # makes the file
    answer = subprocess.run(_command("kill", name, path, kills), env=_environ(), check=True, capture_output=True)
    reported = int(answer.stdout)
    paid = {BURST - level.remaining for level in _throttle(name, path).peek(KEYS, cost=0).levels.values()}
    assert len(paid) == 1, f"{name}: of {reported} decisions and a few that were cut off, the levels paid {paid}"
    unreported = paid.pop() - reported
    assert 0 <= unreported <= kills, f"{name}: {unreported} decisions more than reported, after {kills} kills"
    yield Figure(f"{name}, {kills} kills: decisions reported", reported, "decisions", KILLED)
    yield Figure(f"{name}, {kills} kills: made, but killed before the report", unreported, "decisions", KILLED)


def _run(name: str, path: Path, number: int, pace: int, seconds: float) -> Iterator[Figure]:
    command = _command("work", name, path, pace, seconds)
    workers = []
    for _ in range(number):
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environ())
        assert worker.stdout.read(5) == b"ready"  # before the next: only one can make a file of SQLite
        workers.append(worker)
    for worker in workers:
        worker.stdin.write(b"go")
        worker.stdin.close()
    took = array("d")
    failed = 0
    for worker in workers:
        answer = array("d", worker.stdout.read())
        assert worker.wait() == 0
        failed += int(answer.pop())
        took += answer
    if name in SHARED:
        levels = _throttle(name, path).peek(KEYS, cost=0).levels.values()
        paid = {BURST - level.remaining for level in levels}
        assert paid == {len(took) - failed}, f"{name}: {len(took) - failed} were admitted, the buckets paid {paid}"
    ordered = sorted(took)
    what = f"{name}, {number} process{'es' * (number > 1)}, {f'{pace:,}/s each' if pace else 'saturated'}"
    yield Figure(f"{what}: p50", ordered[len(ordered) // 2] * 1e6, "us", HEADING)
    yield Figure(f"{what}: p99", ordered[len(ordered) * 99 // 100] * 1e6, "us", HEADING)
    if failed:
        yield Figure(f"{what}: past the deadline", failed, "decisions", HEADING)
    if not pace:
        yield Figure(f"{what}: all together", len(took) / seconds, "decisions/s", HEADING)


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", __name__, *map(str, arguments)]


def _environ() -> dict[str, str]:
    root = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": f"{Path(apigate.__file__).parents[1]}{os.pathsep}{root}"}


def _throttle(name: str, path: Path) -> Throttle:
    return Throttle(LEVELS, store=STORES[name](str(path)), name="bench")


def work(name: str, path: str, pace: str, seconds: str) -> None:
    """One process: say that it is ready, wait, ask, and write how long each decision took, then how many failed."""
    throttle = _throttle(name, Path(path))
    acquire, clock = throttle.acquire, time.perf_counter
    throttle.peek(KEYS)
    sys.stdout.write("ready")
    sys.stdout.flush()
    sys.stdin.read()
    took, failed = array("d"), 0
    start = due = clock()
    end = start + float(seconds)
    while not took or (start := clock()) < end:  # once at least, however late it begins
        if int(pace):
            due += 1 / int(pace)
            if due > start:
                time.sleep(due - start)
            start = clock()
        try:
            assert acquire(KEYS)
        except (StoreError, sqlite3.OperationalError):
            failed += 1
        took.append(clock() - start)
    took.append(failed)
    sys.stdout.buffer.write(took.tobytes())


def kill(name: str, path: str, kills: str) -> None:
    """Fork processes that ask, kill each at a random moment, and write how many admissions they reported."""
    heard, said = os.pipe()
    os.set_blocking(heard, False)
    moments = random.Random(kills)
    alive: list[tuple[float, int]] = []
    reported = 0
    for number in range(int(kills) + 2):
        if number < int(kills):
            child = os.fork()
            if child == 0:
                ask(name, Path(path), said)
            alive.append((time.monotonic() + moments.uniform(0, KILLED_WITHIN), child))
        if number >= 2:
            due, child = alive.pop(0)
            time.sleep(max(0, due - time.monotonic()))
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            reported += _read(heard)
    print(reported)


def ask(name: str, path: Path, said: int) -> None:
    """Report each admission by a byte, until killed."""
    throttle: Throttle | None = None
    while True:
        try:
            throttle = throttle or _throttle(name, path)
            if throttle.acquire(KEYS):
                os.write(said, b"+")
        except (StoreError, sqlite3.OperationalError):
            pass  # past the deadline, with two others asking


def _read(heard: int) -> int:
    read = 0
    while True:
        try:
            read += len(os.read(heard, 1 << 16))
        except BlockingIOError:
            return read


if __name__ == "__main__":
    {"work": work, "kill": kill}[sys.argv[1]](*sys.argv[2:])
