"""What an address of responses stands for, and what is said of one that stands for nothing."""

import pytest

from apigate import ConfigurationError
from apigate.caching.store import Invalidation
from apigate.stores.cache_address import open_response_store
from apigate.stores.cache_file import FileResponses
from apigate.stores.cache_redis import RedisResponses
from apigate.stores.file import FileStore
from apigate.stores.memory import MemoryStore
from apigate.stores.redis import RedisStore
from apigate.testing import FakeClock
from tests.response_stores import LoggedStore


def opened(store, name="shop", stage="prod", **settings):
    return open_response_store(store, name=name, stage=stage, clock=FakeClock(), **settings)


def test_a_file_is_opened_with_its_options(tmp_path):
    store = opened(f"file://{tmp_path}/a%20cache?max_bytes=8388608&deadline_ms=70").store
    assert isinstance(store, FileResponses)
    assert (store.path, store.deadline_ms) == (f"{tmp_path}/a cache", 70)
    store.put(bytes(32), b"x", 60)
    assert 4 << 20 < (tmp_path / "a cache").stat().st_size <= 8 << 20


@pytest.mark.parametrize("kind", ["redis", "rediss", "valkey", "redis+unix"])
def test_redis_and_its_kin_are_opened_with_their_options(kind):
    place = "/run/redis.sock" if kind.endswith("unix") else "localhost:1/2"
    store = opened(f"{kind}://{place}?deadline_ms=70", max_lag=2, max_item_bytes=5_000).store
    assert isinstance(store, RedisResponses)
    assert (store.connections.uri, store.connections.deadline_ms) == (f"{kind}://{place}", 70)
    assert (store.max_lag_us, store.max_item_bytes) == (2_000_000, 5_000)


def test_responses_lie_beside_the_buckets_of_a_gateways_store(tmp_path):
    file = FileStore(tmp_path / "state", deadline_ms=70)
    beside = opened(file).store
    assert (beside.path, beside.deadline_ms) == (f"{tmp_path}/state.cache", 70)
    redis = RedisStore("redis://localhost:1/0")
    assert opened(redis, max_lag=3).store.connections is redis.connections


def test_a_store_of_ones_own_is_taken_as_it_is():
    store = LoggedStore()
    assert opened(store).store is store


def test_names_and_stages_keep_apart_whatever_they_are_called(tmp_path):
    names = [("shop", "prod"), ("shop:prod", ""), ("", "shop:prod"), ("shop", "dev"), ("shop%3Aprod", "")]
    stores = [opened(f"file://{tmp_path}/cache", *name) for name in names]
    for number, store in enumerate(stores):
        store.learn(b"", [Invalidation("scope", f"tag:{number}")])
    told = [[each.record.text for each in store.learn(b"").records] for store in stores]
    assert told == [[f"tag:{number}"] for number in range(len(names))]


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("memory://", "'memory://' is unknown; allowed are file:///path, redis://"),
        ("fil:///run/x", "did you mean 'file://'"),
        ("file://run/x", "file:// needs an absolute path: file:///run/x"),
        ("file:///tmp/x?max_keys=3", "'max_keys' is no option"),
        ("file:///tmp/x?max_bytes=1", "max_bytes: 1 is not a whole number"),
        ("redis://", "is no address of a store"),
        ("redis://me:secret@localhost:1/0?deadline_ms=x", "'deadline_ms' is not a whole number"),
        (MemoryStore(), "keeps no responses, as it has no has_news and no learn and no get"),
        (7, "7 keeps no responses"),
    ],
    ids=["memory", "near", "relative", "other option", "size", "nobody", "number", "buckets", "no store"],
)
def test_what_is_no_store_is_an_error_that_says_what_is(store, message):
    with pytest.raises(ConfigurationError) as error:
        opened(store)
    assert message in str(error.value)
    assert "secret" not in str(error.value)
