"""Windows on servers, under the contract of all stores of windows: in threads, and under an event loop."""

import pytest

from apigate.core.errors import StoreError
from apigate.stores.memcached import MemcachedStore
from apigate.stores.mongodb import MongoDBStore
from apigate.stores.redis import RedisStore
from tests.window_contract import WindowStoreContract, limit

DEADLINE_MS = 10_000  # none of these tests is about time, and the machine may be busy


class TestRedis(WindowStoreContract):
    @pytest.fixture
    def windows(self, redis_server):
        store = RedisStore(redis_server.uri, deadline_ms=DEADLINE_MS, server_time=False)
        yield store.windows()
        store.close()


class TestRedisAsync(TestRedis):
    in_loop = True


class TestValkey(WindowStoreContract):
    @pytest.fixture
    def windows(self, redis_server):
        uri = redis_server.uri.replace("redis", "valkey")
        store = RedisStore(uri, deadline_ms=DEADLINE_MS, server_time=False)
        yield store.windows()
        store.close()


class TestValkeyAsync(TestValkey):
    in_loop = True


class TestRedisCluster(WindowStoreContract):
    @pytest.fixture(params=[False, True], ids=["one slot", "spread"])
    def windows(self, request, redis_cluster):
        store = RedisStore(redis_cluster.uri, deadline_ms=DEADLINE_MS, server_time=False, spread=request.param)
        yield store.windows()
        store.close()


class TestRedisClusterAsync(TestRedisCluster):
    in_loop = True


class TestMemcached(WindowStoreContract):
    @pytest.fixture
    def windows(self, memcached):
        store = MemcachedStore(memcached.uri, DEADLINE_MS, host_time=False)
        yield store.windows()
        store.close()

    def test_forgets_all_keys_of_a_limit_and_no_others(self, ask):
        with pytest.raises(StoreError, match="cannot list the keys of 'shop:client'; reset them one by one"):
            ask.reset(limit(), None)


class TestMemcachedAsync(TestMemcached):
    in_loop = True


class TestMongoDB(WindowStoreContract):
    """On a stand-in, see `tests.mongo_stand_in`."""

    @pytest.fixture
    def windows(self, mongodb):
        store = MongoDBStore(mongodb.uri, DEADLINE_MS, host_time=False)
        yield store.windows()
        store.close()


class TestMongoDBAsync(TestMongoDB):
    in_loop = True
