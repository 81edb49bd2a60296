"""A guarded store keeps the contract of the store within, while that answers and while only shares are left.

A single process has all of it as its share.
"""

from apigate.core.clock import SystemClock
from apigate.stores.guarded import GuardedStore
from apigate.testing import FakeClock, ThrottleStoreContract
from tests.outages import FailingStore


def guarded(way):
    return GuardedStore(FailingStore(way), name="shop", clock=SystemClock(), workers=1)


class TestGuardedStore(ThrottleStoreContract):
    def make_store(self):
        return guarded("at once")


class TestGuardedStoreThatIsAwaited(ThrottleStoreContract):
    def make_store(self):
        return guarded("awaited")


class TestGuardedStoreInAnOutage(ThrottleStoreContract):
    def make_store(self):
        store = FailingStore()
        store.fail()
        return GuardedStore(store, name="shop", clock=FakeClock(), workers=1)
