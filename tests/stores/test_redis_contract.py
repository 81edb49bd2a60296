"""The contract of stores on a real Redis: every address, in threads and under an event loop, alone and as a cluster."""

import asyncio

import pytest

from apigate.stores.redis import RedisStore
from apigate.testing import ThrottleStoreContract
from apigate.throttling.limit import Limit
from tests.servers import RedisSentinel
from tests.stores.asking import PATIENT_MS


class RedisContract(ThrottleStoreContract):
    """By the time that is handed in, and without remembering refusals: the contract asks what the server says."""

    uri: str

    def make_store(self):
        store = RedisStore(self.uri, server_time=False, denial_cache=False, deadline_ms=PATIENT_MS, spread=self.spread)
        self.stores.append(store)
        return OneOfSeveral(store, f"app-{len(self.stores)}")

    spread = False

    @pytest.fixture(autouse=True)
    def serve(self, redis_server):
        self.use(redis_server.uri)

    def use(self, uri):
        self.stores = []
        self.uri = uri

    def teardown_method(self):
        for store in self.stores:
            store.close()
        super().teardown_method()


class OneOfSeveral:
    """A store without buckets on a server that has some: the limits are those of another owner."""

    def __init__(self, store, owner):
        self.store, self.owner = store, owner

    def open(self, limits, now):
        named = [Limit(f"{self.owner}:{x.name}", x.level, x.policy, x.rate, enforced=x.enforced) for x in limits]
        return self.store.open(named, now)


class UnderALoop:
    """The same store, asked where an event loop runs: every answer has to be awaited."""

    def make_store(self):
        return AskedInALoop(self, super().make_store())

    def teardown_method(self):
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        super().teardown_method()


class AskedInALoop:
    def __init__(self, contract, store):
        self.contract, self.store = contract, store

    def open(self, limits, now):
        return BucketsInALoop(self.store.open(limits, now))


class BucketsInALoop:
    def __init__(self, buckets):
        self.buckets = buckets

    async def _asked(self, operation, *asked):
        answer = getattr(self.buckets, operation)(*asked)
        assert asyncio.iscoroutine(answer)
        return await answer

    def acquire(self, *asked):
        return self._asked("acquire", *asked)

    def peek(self, *asked):
        return self._asked("peek", *asked)

    def adjust(self, *asked):
        return self._asked("adjust", *asked)

    def reset(self, *asked):
        return self._asked("reset", *asked)


class TestRedis(RedisContract):
    pass


class TestRedisUnderALoop(UnderALoop, RedisContract):
    pass


class TestUnixSocket(RedisContract):
    @pytest.fixture(autouse=True)
    def serve(self, redis_server):
        self.use(redis_server.unix_uri)


class TestUnixSocketUnderALoop(UnderALoop, TestUnixSocket):
    pass


class TestValkeyClient(RedisContract):
    @pytest.fixture(autouse=True)
    def serve(self, redis_server):
        self.use(redis_server.uri.replace("redis:", "valkey:"))


class TestValkeyClientUnderALoop(UnderALoop, TestValkeyClient):
    pass


class TestCluster(RedisContract):
    @pytest.fixture(autouse=True)
    def serve(self, redis_cluster):
        self.use(redis_cluster.uri)


class TestClusterUnderALoop(UnderALoop, TestCluster):
    pass


class TestSpreadCluster(TestCluster):
    spread = True


class TestSpreadClusterUnderALoop(UnderALoop, TestSpreadCluster):
    pass


class TestValkeyCluster(TestCluster):
    @pytest.fixture(autouse=True)
    def serve(self, redis_cluster):
        self.use(redis_cluster.uri.replace("redis+", "valkey+"))


class TestValkeyClusterUnderALoop(UnderALoop, TestValkeyCluster):
    pass


@pytest.fixture(scope="module")
def sentinel_of_the_contract():
    with RedisSentinel() as sentinel:
        yield sentinel


class TestSentinel(RedisContract):
    @pytest.fixture(autouse=True)
    def serve(self, sentinel_of_the_contract):
        sentinel_of_the_contract.primary.flush()
        self.use(sentinel_of_the_contract.uri)


class TestSentinelUnderALoop(UnderALoop, TestSentinel):
    pass
