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

store = MemoryStore()
throttle = Throttle({{"client": Rate(2, per=60)}}, store=store, clock=FakeClock())
throttle.acquire({{"client": "alice"}})
store.lock.acquire()  # as another thread that is just deciding about bob
states = store.table("throttle:client").young
states["bob"]
states["bob"] = (10**9, FakeClock().now_us())
child = os.fork()
if not child:
    kept = len(store)
    os._exit((kept, [throttle.acquire({{"client": "bob"}}).allowed for _ in range(3)]) != (1, [True, True, False]))
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@FORKS
def test_what_a_thread_of_the_parent_was_about_to_decide_is_undone_in_the_child():
    program = MIDST.format(path=sys.path)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, check=False)
    assert done.returncode == 0
