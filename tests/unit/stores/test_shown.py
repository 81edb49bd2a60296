"""No password is shown: not by a store, not by an error about its address, not in the log or an event."""

import pytest

from apigate import ConfigurationError, Throttle
from apigate.core.clock import SystemClock
from apigate.stores.address import open_store
from apigate.stores.guarded import GuardedStore
from apigate.stores.shown import shown

SECRET = "hunter2"


def nobody(kept):
    raise AssertionError(kept)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hunter2@localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://me:hunter2@localhost", "redis://localhost"),
        ("redis://hunter2@localhost", "redis://localhost"),
        ("redis://localhost:6379/0?password=hunter2", "redis://localhost:6379/0"),
        ("redis://localhost/0?username=a@b&password=x@hunter2", "redis://localhost/0"),
        ("redis://:hunter2@localhost/0?password=x@hunter2", "redis://localhost/0"),
        ("redis://me:p%40%2Fhunter2@local%2Dhost/0", "redis://local%2Dhost/0"),
        ("redis://me:hunter2/a#b@c@localhost/0", "redis://localhost/0"),
        ("rediss://localhost/0#hunter2", "rediss://localhost/0"),
        ("redis+unix://:hunter2@/run/redis.sock?db=1", "redis+unix:///run/redis.sock"),
        ("redis+cluster://me:hunter2@a:1,b:2,[::1]:3", "redis+cluster://a:1,b:2,[::1]:3"),
        ("valkey+sentinel://:hunter2@a:1,b:2/mymaster", "valkey+sentinel://a:1,b:2/mymaster"),
        ("memcached://me:hunter2@a:1,b:2", "memcached://a:1,b:2"),
        ("memcached:///run/memcached.sock", "memcached:///run/memcached.sock"),
        ("mongodb+srv://me:hunter2@host/shop?authSource=a@hunter2", "mongodb+srv://host/shop"),
        ("mongodb://me:hunter2@%2Frun%2Fmongo.sock/shop", "mongodb://%2Frun%2Fmongo.sock/shop"),
        ("redis:me:hunter2@localhost/0", "redis:localhost/0"),
        ("redis:/me:hunter2@localhost:6379/0", "redis:localhost:6379/0"),
        ("redis:/localhost:6379/0", "redis:/localhost:6379/0"),
        ("hunter2@localhost:6379", "localhost:6379"),
        ("postgres?password=hunter2", "postgres"),
        ("", ""),
    ],
)
def test_an_address_is_shown_by_its_scheme_hosts_and_path(address, text):
    assert shown(address) == text


@pytest.mark.parametrize(
    "address",
    [
        "redis://me:hunter2@localhost:6379/0?password=x@hunter2",
        "redis+cluster://:hunter2@a:1,b:2",
        "valkey+sentinel://:hunter2@a:1,b:2/mymaster",
        "memcached://me:hunter2@a:1,b:2",
        "mongodb://me:hunter2@a:1,b:2/shop?authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
    ],
)
def test_a_store_shows_no_password(address):
    store = open_store(address, nobody)
    assert SECRET not in repr(store)
    assert shown(address) in repr(store)
    assert SECRET not in repr(GuardedStore(store, name="shop", clock=SystemClock()))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("redis://me:hunter2@localhost?password=hunter2&lease=many", "each a whole number"),
        ("redis://me:hunter2@localhost?password=hunter2&spread=1", "is no cluster"),
        ("redis://me:hunter2@localhost?password=hunter2&colour=red", "colour"),
        ("memcached://me:hunter2@host:1?password=hunter2", "the one option is deadline_ms"),
        ("mongodb://me:hunter2@host?password=hunter2&deadline_ms=soon", "the one option is deadline_ms"),
        ("postgres://me:hunter2@host?password=hunter2", "is unknown"),
        ("redis://me:hunter2@[host", "is no address"),
        ("redis://me:hunter2@ho\u2100st", "is no address"),
    ],
)
def test_an_error_about_an_address_shows_no_password(address, why):
    with pytest.raises(ConfigurationError, match=why) as raised:
        open_store(address, nobody)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None or SECRET not in repr(raised.value.__cause__)


def test_the_log_and_the_event_of_an_outage_show_no_password(caplog):
    events = []
    within = open_store("redis+unix://me:hunter2@/nowhere/redis.sock?password=hunter2", nobody)
    store = GuardedStore(within, name="shop", clock=SystemClock(), on_event=events.append)
    assert Throttle({"client": "1/minute"}, store=store, name="shop").acquire({"client": "alice"}).local
    (event,) = events
    assert event.store == "<RedisStore redis+unix:///nowhere/redis.sock>"
    assert event.store in caplog.text
    assert SECRET not in repr(event) + caplog.text
