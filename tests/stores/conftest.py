"""Servers that start when a test first asks for one. Those that live as long as the session are emptied for each test.

A test that kills, pauses or fills a server takes one of its own: `own_redis`, `redis_sentinel`.
"""

from collections.abc import Iterator

import pytest

from tests.relay import Relay
from tests.servers import Memcached, MongoStandIn, RedisCluster, RedisSentinel, RedisServer
from tests.stores.asking import Caller, Stores, Tasks, Threads


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """A Redis without keys."""
    shared_redis.flush()
    return shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may do anything to."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def relay(own_redis: RedisServer) -> Iterator[Relay]:
    """A relay to `own_redis`."""
    with Relay(own_redis.port) as relay:
        yield relay


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(shared_cluster: RedisCluster) -> RedisCluster:
    """Three nodes without keys; a slot that a test moves stays where it is put."""
    shared_cluster.flush()
    return shared_cluster


@pytest.fixture
def redis_sentinel() -> Iterator[RedisSentinel]:
    """A primary, its replica and a Sentinel, that the test may do anything to."""
    with RedisSentinel() as sentinel:
        yield sentinel


@pytest.fixture(scope="session")
def shared_memcached() -> Iterator[Memcached]:
    if Memcached.PROGRAM is None:
        pytest.skip("memcached is not on the path")
    with Memcached() as server:
        yield server


@pytest.fixture
def memcached(shared_memcached: Memcached) -> Memcached:
    """A Memcached without keys."""
    shared_memcached.flush()
    return shared_memcached


@pytest.fixture(params=["threads", "tasks"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Who asks; a test that takes it runs for both."""
    return Threads() if request.param == "threads" else Tasks()


@pytest.fixture
def stores(caller: Caller) -> Iterator[Stores]:
    """Opens stores, and closes them in the end."""
    stores = Stores(caller)
    yield stores
    stores.close()


@pytest.fixture(scope="session")
def shared_mongodb() -> Iterator[MongoStandIn]:
    with MongoStandIn() as server:
        yield server


@pytest.fixture
def mongodb(shared_mongodb: MongoStandIn) -> MongoStandIn:
    """What stands in for a MongoDB, without documents."""
    shared_mongodb.flush()
    return shared_mongodb
