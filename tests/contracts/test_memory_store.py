"""The store in memory under the contract of stores; and the same behind awaitables, as a store over a network is."""

from apigate.stores.memory import MemoryBuckets, MemoryStore
from apigate.testing import ThrottleStoreContract


class TestMemoryStore(ThrottleStoreContract):
    def make_store(self):
        return MemoryStore()


class Awaitable:
    """A store whose every answer has to be awaited."""

    def __init__(self):
        self.store = MemoryStore()

    def open(self, limits, now):
        return AwaitableBuckets(self.store.open(limits, now))


class AwaitableBuckets:
    def __init__(self, buckets: MemoryBuckets):
        self.buckets = buckets

    async def acquire(self, keys, costs, now, patience=0):
        return self.buckets.acquire(keys, costs, now, patience)

    async def peek(self, keys, costs, now):
        return self.buckets.peek(keys, costs, now)

    async def adjust(self, keys, tokens, now):
        self.buckets.adjust(keys, tokens, now)

    async def reset(self, keys):
        self.buckets.reset(keys)


class TestAwaitableStore(ThrottleStoreContract):
    def make_store(self):
        return Awaitable()
