"""What buckets are called in Redis: by the gateway, the limit and the key, none of which can be forged by another."""

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from apigate import ConfigurationError, Gateway, Throttle
from apigate.stores.redis import RedisBuckets, RedisStore
from apigate.stores.redis_names import parts, pattern, tag
from apigate.throttling.limit import Limit
from apigate.throttling.rate import Rate
from tests.stores.asking import Asked, limits
from tests.strategies import UNHURRIED

SEPARATORS = "".join("{}=#:%[]*?^\\/'\" -~\x00\r\nä€")
DIGEST = b"\xab" * 16


def names_at(server):
    return sorted(server.command("KEYS", "*"))


def test_a_gateways_name_is_the_tag_of_all_its_buckets(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("9/hour", "9/hour", owner="shop"))
    asked.acquire("alice", "")
    assert names_at(redis_server) == ["apigate:{shop}:level-0=alice", "apigate:{shop}:level-1="]


def test_gateways_of_different_names_do_not_meet(redis_server, caller, stores):
    shop, bank = (Asked(caller, stores(redis_server.uri), limits("1/hour", owner=name)) for name in ("shop", "bank"))
    assert [shop.acquire().allowed, bank.acquire().allowed, shop.acquire().allowed] == [True, True, False]


def test_gateways_of_one_name_share_their_buckets(redis_server, caller, stores):
    first, second = (Asked(caller, stores(redis_server.uri), limits("1/hour")) for _ in range(2))
    assert [first.acquire().allowed, second.acquire().allowed] == [True, False]


def test_one_that_forgets_all_its_buckets_leaves_those_of_others(redis_server, caller, stores):
    shop, shops = (Asked(caller, stores(redis_server.uri), limits("1/hour", owner=name)) for name in ("shop", "shop2"))
    shop.acquire("a")
    shop.acquire("*")
    shops.acquire("a")
    shop.reset()
    assert names_at(redis_server) == ["apigate:{shop2}:level-0=a"]


@pytest.mark.parametrize("kind", [Gateway, Throttle])
def test_a_name_is_required(redis_server, kind):
    given = {"throttle": "1/hour"} if kind is Gateway else {"levels": {"global": "1/hour"}}
    with pytest.raises(ConfigurationError, match=r"name: .* is shared with other processes, so a name is needed"):
        kind(store=RedisStore(redis_server.uri), **given)


@pytest.mark.parametrize("name", ["sh}op", "a:b", "a b", "{a}", ""])
def test_a_name_cannot_hold_what_separates(redis_server, name):
    with pytest.raises(ConfigurationError, match="is no name"):
        Gateway(store=redis_server.uri, name=name, throttle="1/hour")


HARD_TEXTS = ["a", "a=", "a#", "a}", "}:level-0", "{b}", "%7D", "a:b", "*", "[ab]", '"', "'", "\\", "\r\n", "\x00", "ä"]
HARD_KEYS = [*HARD_TEXTS, "\ud800", "", DIGEST, DIGEST.hex(), f"#{DIGEST.hex()}", DIGEST.hex().encode()]


@pytest.mark.parametrize("layout", ["redis", "cluster", "spread"])
def test_hard_keys_are_kept_apart(request, caller, stores, layout):
    server = request.getfixturevalue("redis_server" if layout == "redis" else "redis_cluster")
    asked = Asked(caller, stores(server.uri, spread=layout == "spread"), limits("1/hour"))
    assert [asked.acquire(key).allowed for key in HARD_KEYS] == [True] * len(HARD_KEYS)
    assert [asked.acquire(key).allowed for key in HARD_KEYS] == [False] * len(HARD_KEYS)
    asked.reset("a")
    assert [key for key in HARD_KEYS if asked.left(key) == [1]] == ["a"]
    asked.reset()
    assert [asked.left(key) for key in HARD_KEYS] == [[1]] * len(HARD_KEYS)


texts = st.text(st.sampled_from(SEPARATORS + "ab") | st.characters() | st.just("\ud800"), max_size=12)
names = st.builds("{}:{}".format, texts, texts) | texts
keys = texts | st.binary(max_size=16) | st.binary(max_size=3).map(bytes.hex)
places = st.tuples(names, keys)


class Server:
    """Stands in where only names are made."""

    shared = True
    generation = 0
    leases = None

    def __init__(self, spread):
        self.spread = spread
        self.limits = {}


def name_of(place, spread):
    limit_name, key = place
    store = Server(spread)
    store.limits[limit_name] = Limit(limit_name, "level", "level", Rate(1))
    return RedisBuckets(store, [limit_name])._key(0, key)


@pytest.mark.parametrize("spread", [False, True], ids=["one slot", "spread"])
@UNHURRIED
@given(one=places, other=places)
@example(one=("shop:t", "a}:client:prod/{x"), other=("shop:client:prod/{x}:t", "a"))
@example(one=("shop", "a"), other=("shop:", "a"))
@example(one=("shop:a", "b"), other=("shop", ":a=b"))
@example(one=("shop:a", DIGEST), other=("shop:a", "#" + DIGEST.hex()))
@example(one=("shop:a#2", "b"), other=("shop:a", "2=b"))
def test_different_places_never_have_the_same_name(spread, one, other):
    assume(one != other)
    assert name_of(one, spread) != name_of(other, spread)


@pytest.mark.parametrize("spread", [False, True], ids=["one slot", "spread"])
@UNHURRIED
@given(one=places, other=places)
@example(one=("shop:t", "a}:x"), other=("shop:x", "a"))
def test_what_forgets_a_limit_matches_its_buckets_and_no_others(spread, one, other):
    matching = pattern(parts(one[0], spread=spread)).decode("latin-1")
    assert not re.search(r"\[(?!=#\])|\?|\\", matching)  # so that it means the same to Redis and to fnmatch
    assert fnmatchcase(name_of(one, spread).decode("latin-1"), matching)
    assert fnmatchcase(name_of(other, spread).decode("latin-1"), matching) == (one[0] == other[0])


@UNHURRIED
@given(one=places, other=places)
def test_all_buckets_of_an_owner_have_one_tag_and_no_other_owner_has_it(one, other):
    tags = [tag(name_of(place, spread=False)) for place in (one, other)]
    owners = [name.partition(":")[0] for name, _ in (one, other)]
    assert (tags[0] == tags[1]) == (owners[0] == owners[1])
