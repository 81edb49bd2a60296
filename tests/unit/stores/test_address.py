"""Which store an address stands for."""

import pytest

from apigate import ConfigurationError
from apigate.stores.address import open_store
from apigate.stores.file import DEFAULT_DEADLINE_MS, FileStore
from apigate.stores.memory import DEFAULT_MAX_KEYS, MemoryStore


def nobody(kept):
    raise AssertionError(kept)


@pytest.mark.parametrize(
    ("address", "max_keys"),
    [
        ("memory://", DEFAULT_MAX_KEYS),
        ("memory://?max_keys=5", 5),
        ("memory://?max_keys=1000000", 1_000_000),
    ],
)
def test_memory_with_and_without_a_bound(address, max_keys):
    store = open_store(address, nobody)
    assert isinstance(store, MemoryStore)
    assert store.max_keys == max_keys


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "is unknown; allowed are 'memory://'"),
        ("redis://", "is unknown"),
        ("redis://localhost?deadline_ms=fast", "each a whole number, are deadline_ms, lease, spread, denial_cache"),
        ("redis://localhost?deadline_ms=0", "RedisStore deadline_ms: 0 is not a whole number from 1 to 60,000"),
        ("redis://localhost?lease=0", "lease: 0 is not a whole number from 1 to 10,000"),
        ("redis://user:secret@localhost?deadline=50", "'redis://localhost': .*deadline"),
        ("redis://user:secret@localhost?spread=1", "'redis://localhost' is no cluster"),
        ("redis://localhost/0?spread=1&password=a@b", "'redis://localhost/0' is no cluster"),
        ("redis://localhost/?socket_timeout=soon", "socket_timeout"),
        ("file://host/apigate.state", "is unknown; allowed are .*'file:///run/app/apigate.state'"),
        ("file:apigate.state", "is unknown"),
        ("file:///tmp/", "is unknown"),
        (
            "file:///tmp/apigate.state?keys=5",
            "the options, each a whole number, are max_keys, deadline_ms, as in 'file:",
        ),
        ("file:///tmp/apigate.state?deadline_ms=0.5", "each a whole number"),
        ("file:///tmp/apigate.state?deadline_ms=0", "FileStore deadline_ms: 0 is not a whole number from 1 to 60,000"),
        ("file:///nowhere/apigate.state", "there is no directory '/nowhere'; make it"),
        ("memory://host", "is unknown"),
        ("memory:///path", "is unknown"),
        ("memory://[", "is no address"),
        ("memory://?max_keys", "the one option is max_keys"),
        ("memory://?max_keys=", "the one option is max_keys"),
        ("memory://?max_keys=-1", "the one option is max_keys"),
        ("memory://?max_keys=1e6", "the one option is max_keys"),
        ("memory://?max_keys=" + "9" * 5_000, "the one option is max_keys"),
        ("memory://?maxkeys=5", "the one option is max_keys"),
        ("memory://?max_keys=0", "whole number of at least 1"),
        ("postgres://user:secret@host/", "'postgres://host/' is unknown"),
    ],
)
def test_what_stands_for_no_store_is_refused(address, why):
    with pytest.raises(ConfigurationError, match=why):
        open_store(address, nobody)


def test_a_file_with_its_options(tmp_path):
    store = open_store(f"file://{tmp_path}/of%20buckets?max_keys=5&deadline_ms=7", nobody)
    assert isinstance(store, FileStore)
    assert (store.path, store.max_keys, store.deadline_ms) == (f"{tmp_path}/of buckets", 5, 7)
    assert store.on_fill is nobody
    assert open_store(f"file://{tmp_path}/x", nobody).deadline_ms == DEFAULT_DEADLINE_MS


@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_addresses_of_redis_go_to_the_client_without_our_options(server):
    for address in (
        f"{server}://user:p%40ss@host:1/2",
        f"{server}s://host",
        f"{server}+unix:///run/redis.sock?db=1",
        f"{server}+cluster://a:1,b:2",
        f"{server}+sentinel://:secret@host:1/mymaster",
    ):
        store = open_store(f"{address}{'&' if '?' in address else '?'}deadline_ms=7&lease=3", nobody)
        assert store.connections.uri == address
        assert store.connections.deadline_ms == 7
        assert store.leases.tolerance == 2
        assert "secret" not in repr(store)
        assert "p%40ss" not in repr(store)


@pytest.mark.parametrize("store", [None, 5, b"memory://", [], object])
def test_what_is_no_store_is_refused(store):
    with pytest.raises(ConfigurationError, match="neither an address nor a store"):
        open_store(store, nobody)


def test_a_store_is_itself_and_keeps_whom_it_tells():
    own = MemoryStore(on_fill=print)
    assert open_store(own, nobody) is own
    assert own.on_fill is print
    silent = MemoryStore()
    assert open_store(silent, nobody).on_fill is nobody
