"""A process that is forked off in the middle of other threads' work never waits for what they held."""

import os
import subprocess
import sys

import pytest

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PROGRAM = """
import os, signal, sys, threading
sys.path[:0] = {path!r}
from apigate import Rate, StoreError, Throttle, Window
from apigate.stores.memory import MemoryStore
from apigate.stores.guarded import GuardedStore
from apigate.testing import FakeClock

clock = FakeClock()
ALICE = {{"client": "alice"}}
{setup}
held, is_over = threading.Event(), threading.Event()

def hold():
    with {lock}:
        held.set()
        is_over.wait(20)

thread = threading.Thread(target=hold)
thread.start()
held.wait(20)
child = os.fork()
if not child:
    signal.alarm(10)  # ends it where it hangs
    os._exit([throttle.acquire(ALICE).allowed for _ in range(3)] != [True, False, False])
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
is_over.set()
thread.join()
os._exit(status or [throttle.acquire(ALICE).allowed for _ in range(2)] != [True, False])  # none is the child's
"""

BUCKETS = """
store = MemoryStore()
throttle = Throttle({"client": Rate(2, per=60)}, store=store, clock=clock)
throttle.acquire(ALICE)
"""
WINDOWS = """
store = MemoryStore()
throttle = Throttle({"client": Window("2/minute", kind="moving")}, store=store, clock=clock)
throttle.acquire(ALICE)
"""
OUTAGE = """
class Down:
    def open(self, limits, now):
        raise StoreError("open", "nobody is there")

store = GuardedStore(Down(), name="shop", clock=clock)
throttle = Throttle({"client": Rate(2, per=60)}, store=store, clock=clock)
throttle.acquire(ALICE)
"""


@FORKS
@pytest.mark.parametrize(
    ("setup", "lock"),
    [
        (BUCKETS, "store.lock"),
        (WINDOWS, "store.windows()"),
        (OUTAGE, "store._local.lock"),
        (OUTAGE, "store.breaker._lock"),
    ],
    ids=["buckets", "windows", "shares in an outage", "the breaker"],
)
def test_a_child_does_not_wait_for_a_thread_that_it_has_not(setup, lock):
    program = PROGRAM.format(path=sys.path, setup=setup, lock=lock)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, check=False)
    assert done.returncode == 0


MIDST = """
import os, sys
sys.path[:0] = {path!r}
from apigate import Rate, Throttle
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from apigate.throttling.limit import limits_of

store, clock = MemoryStore(), FakeClock()
throttle = Throttle({{"global": Rate(5, per=60), "client": Rate(2, per=60)}}, store=store, clock=clock)
throttle.acquire({{"client": "alice"}})
limits = [limit for level, count in (("global", 5), ("client", 2)) for limit in limits_of(
    f"throttle:{{level}}", level, [Rate(count, per=60)]
)]
buckets = store.open(limits, clock.now_us())


class Costs(list):  # as another thread forks while this one is just deciding about bob
    def __getitem__(self, place):
        if place == {place} and not os.fork():
            kept = len(store)
            verdicts = [throttle.acquire({{"client": "bob"}}).allowed for _ in range(3)]
            last = [throttle.acquire({{"client": name}}).allowed for name in ("carol", "dave", "erin")]
            os._exit((kept, verdicts, last) != (2, [True, True, False], [True, True, False]))
        return super().__getitem__(place)


buckets.acquire(["", "bob"], Costs([1, 1]), clock.now_us())
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@FORKS
@pytest.mark.parametrize("place", [0, 1])
def test_what_a_thread_of_the_parent_was_about_to_decide_is_undone_in_the_child(place):
    program = MIDST.format(path=sys.path, place=place)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, check=False)
    assert done.returncode == 0
