"""Which store an address stands for."""

import pytest

from apigate import ConfigurationError
from apigate.stores.address import open_store
from apigate.stores.file import DEFAULT_DEADLINE_MS, FileStore
from apigate.stores.memory import DEFAULT_MAX_KEYS, MemoryStore
from apigate.stores.redis import RedisStore


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
        ("", "'' is unknown; allowed are memory://, file:///path, redis://host:6379/0 and valkey://"),
        ("redys://host", "'redys://host' is unknown; did you mean 'redis://'\\? allowed are memory://"),
        ("memcache://host:11211", "did you mean 'memcached://'"),
        ("redis://", "no address of a store; write it as 'redis://localhost:6379/0'"),
        ("redis:/10.9.9.9:6399/0", "'redis:/10.9.9.9:6399/0' is no address of a store; write it as 'redis://localhost"),
        ("valkeys:localhost:6391", "'valkeys:localhost:6391' is no address of a store; write it as 'valkeys://local"),
        ("redis+unix:/run/redis.sock", "write it as 'redis\\+unix:///run/redis.sock'"),
        ("redis://localhost/0#1", "'redis://localhost/0': a '#' in an address is written as '%23'"),
        (
            "memcached:host:11211",
            "'memcached:host:11211' is no address of a store; write it as 'memcached://host:11211'",
        ),
        ("memcached:/host:11211", "write it as 'memcached://host:11211'"),
        ("memcached:///host:11211", "'memcached:///host:11211' is no address of a store"),
        ("mongodb:/host:27017/name", "write it as 'mongodb://host:27017/name'"),
        ("mongodb:///host:27017", "write it as 'mongodb://host:27017/name'"),
        ("mongodb://host/name/else", "write it as 'mongodb://host:27017/name'"),
        ("file:/run/apigate.state", "file:// needs an absolute path: file:///run/apigate.state"),
        ("file:///run/a#b/apigate.state", "a '#' in an address is written as '%23'"),
        ("memory:", "write it as 'memory://'"),
        (
            "redis://localhost?leese=20",
            "'leese' is no option \\(did you mean 'lease'\\?\\); apigate's options are deadline_ms",
        ),
        ("valkey://localhost?leese=20", "the client library valkey, to which others go, has no such one"),
        ("rediss://localhost?ssl_cert_reqs=maybe", "the client library redis cannot use its host, port or options"),
        ("redis://localhost:port/0", "the client library redis cannot use its host, port or options"),
        ("redis://localhost?deadline_ms=fast", "each a whole number, are deadline_ms, lease, spread, denial_cache"),
        ("redis://localhost?deadline_ms=0", "RedisStore deadline_ms: 0 is not a whole number from 1 to 60,000"),
        ("redis://localhost?lease=0", "lease: 0 is not a whole number from 1 to 10,000"),
        ("redis://user:secret@localhost?deadline=50", "'redis://localhost': 'deadline' is no option.*'deadline_ms'"),
        ("redis://user:secret@localhost?spread=1", "'redis://localhost' is no cluster"),
        ("redis://localhost/0?spread=1&password=a@b", "'redis://localhost/0' is no cluster"),
        ("redis://localhost/?socket_timeout=soon", "the value of the option 'socket_timeout'"),
        ("file://tmp/x", "file:// needs an absolute path: file:///tmp/x"),
        ("file://host/apigate.state", "file:// needs an absolute path: file:///host/apigate.state"),
        ("file:apigate.state", "file:// needs an absolute path: file:///apigate.state"),
        ("file:///tmp/", "no address of a store; write it as 'file:///run/app/apigate.state'"),
        (
            "file:///tmp/apigate.state?keys=5",
            "the options, each a whole number, are max_keys, deadline_ms, as in 'file:",
        ),
        ("file:///tmp/apigate.state?deadline_ms=0.5", "each a whole number"),
        ("file:///tmp/apigate.state?deadline_ms=0", "FileStore deadline_ms: 0 is not a whole number from 1 to 60,000"),
        ("file:///nowhere/apigate.state", "there is no directory '/nowhere'; make it"),
        ("memory://host", "no address of a store; write it as 'memory://'"),
        ("memory:///path", "no address of a store"),
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


@pytest.mark.parametrize(
    "address",
    [
        "redis://localhost",
        "redis://localhost:6379/",
        "redis://:secret@localhost:6379/1",
        "redis:///1",
        "redis+unix://:secret@/run/redis.sock?db=1",
        "redis+cluster://:secret@localhost:7000,localhost:7001/",
        "redis+cluster://localhost:7000/0",
        "redis+sentinel://:secret@localhost:26379,localhost:26380/mymaster/",
        "memcached://localhost:11211,localhost:11212",
        "memcached:///run/memcached.sock",
        "mongodb://me:secret@localhost:27017/",
        "mongodb://a:1,b:2/name?replicaSet=rs0",
        "mongodb+srv://host/name",
    ],
)
def test_what_limits_takes_for_an_address_is_one(address):
    assert "secret" not in repr(open_store(address))


UNUSABLE = {
    # an address, of a store or of a gateway's: what is said of it
    "redis+cluster://a:1,b:2?leese=20": "'leese' is no option for a cluster (did you mean 'lease'?)",
    "redis+cluster://a:1,b:2?password=hunter2": "'password' is no option for a cluster; apigate's options are",
    "valkey+sentinel://:hunter2@a:1/mymaster?db=1": "'db' is no option for Sentinel; apigate's options are",
    "redis+sentinel://host": "names no master; add the name that Sentinel has for it, as in 'redis+sentinel://host:",
    "valkey+sentinel://host:26379/": "as in 'valkey+sentinel://host:26379/mymaster'",
    "redis+sentinel://host/mymaster": "each host of Sentinel comes with its port",
    "redis+cluster://a:1,b": "each host of a cluster comes with its port",
    "redis+cluster://[": "is no address",
    "redis:///10.9.9.9:6399": "'redis:///10.9.9.9:6399': the path after the host is the number of a database; write it",
    "rediss://host/zero": "write it as 'rediss://localhost:6379/0'",
    "redis://host/0/1": "is the number of a database",
    "valkey://me:x/hunter2@host/0": "as 'valkey://localhost:6379/0', and a '/' in a password as '%2F'",
    "redis+unix://relative.sock": "names no socket; write its whole path, as 'redis+unix:///run/redis.sock'",
    "valkey+unix://host/run/redis.sock": "write its whole path, as 'valkey+unix:///run/redis.sock'",
    "redis+unix:///run/": "names no socket",
    "redis+cluster://a:1,b:2/1": "a cluster has no database but 0, so leave the path away",
    "redis+sentinel://host:26379/mymaster/0": "the name of a master alone, as in 'redis+sentinel://host:26379/mymaster'",
}


@pytest.mark.parametrize("made", [RedisStore, open_store])
@pytest.mark.parametrize("address", UNUSABLE)
def test_what_the_clients_would_not_say_is_said_at_once(made, address):
    with pytest.raises(ConfigurationError) as raised:
        made(address)
    assert UNUSABLE[address] in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("kind", ["redis://host", "valkey+cluster://host:1", "redis+sentinel://host:1/mymaster"])
@pytest.mark.parametrize("option", ["deadline_ms=5", "lease=20", "spread=1", "denial_cache=0"])
def test_a_store_that_is_made_by_hand_takes_its_options_as_arguments(kind, option):
    name = option.partition("=")[0]
    with pytest.raises(ConfigurationError, match=rf"read by Gateway\(store=\).*as arguments, {name}=\.\.\."):
        RedisStore(f"{kind}?{option}")


def test_a_port_that_is_part_of_a_password_is_not_shown():
    with pytest.raises(ConfigurationError) as raised:
        open_store("redis://me:hunt/er2@localhost/0")
    assert "hunt" not in str(raised.value)


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
