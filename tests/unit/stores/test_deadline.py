"""How long a store may take: one rule for all stores that wait for others."""

import pytest

from apigate import ConfigurationError
from apigate.stores.address import open_store
from apigate.stores.deadline import DEFAULT_DEADLINE_MS, checked_deadline_ms
from apigate.stores.file import FileStore
from apigate.stores.memcached import MemcachedStore
from apigate.stores.mongodb import MongoDBStore
from apigate.stores.redis import RedisStore


def nobody(kept):
    raise AssertionError(kept)


STORES = {
    "FileStore": lambda deadline_ms: FileStore("/tmp/apigate.state", deadline_ms=deadline_ms),
    "RedisStore": lambda deadline_ms: RedisStore("redis://host", deadline_ms=deadline_ms),
    "MemcachedStore": lambda deadline_ms: MemcachedStore("memcached://host:1", deadline_ms),
    "MongoDBStore": lambda deadline_ms: MongoDBStore("mongodb://host", deadline_ms),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("deadline_ms", [True, False, 0, -1, 60_001, 1.5, 50.0, float("nan"), "5", None])
def test_what_is_no_whole_number_of_milliseconds_is_refused(store, deadline_ms):
    with pytest.raises(ConfigurationError) as raised:
        STORES[store](deadline_ms)
    assert str(raised.value) == f"{store} deadline_ms: {deadline_ms!r} is not a whole number from 1 to 60,000"


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("deadline_ms", [1, 60_000])
def test_the_bounds_are_allowed(store, deadline_ms):
    STORES[store](deadline_ms)
    assert checked_deadline_ms(deadline_ms, store) == deadline_ms


@pytest.mark.parametrize(
    "address", ["file:///tmp/apigate.state", "redis://host", "memcached://host:1", "mongodb://host"]
)
def test_an_address_is_held_to_them_too(address):
    open_store(f"{address}?deadline_ms=60000", nobody)
    with pytest.raises(ConfigurationError, match="deadline_ms: 60001 is not a whole number from 1 to 60,000"):
        open_store(f"{address}?deadline_ms=60001", nobody)


def test_a_server_has_100_milliseconds_where_nobody_says():
    assert DEFAULT_DEADLINE_MS == 100
    assert RedisStore("redis://host").connections.deadline_ms == 100
