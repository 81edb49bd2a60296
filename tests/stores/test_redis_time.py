"""Whose clock counts, when buckets expire, and what is written: by a real server."""

import subprocess
import sys

import pytest
from redis.exceptions import ResponseError

from apigate.stores.memory import MemoryStore
from tests.servers import ROOT, until
from tests.stores.asking import Asked, limits

HOUR_US = 3_600_000_000


def expiry(server, name):
    """The milliseconds of the server at which a bucket expires, at the earliest and at the latest; None without it."""
    if not server.command("EXISTS", name):
        return None
    try:
        exact = server.command("PEXPIRETIME", name)
    except ResponseError:  # before Redis 7
        script = "local time = redis.call('TIME') return time[1] * 1000 + time[2] / 1000 + redis.call('PTTL', KEYS[1])"
        about = server.command("EVAL", script, 1, name)
        return about - 1, about + 1
    return None if exact == -2 else (exact, exact)  # it may have expired since it was looked for


# ---- expiry


@pytest.mark.parametrize(
    ("rate", "cost", "full_ms"),
    [
        ("1/minute; burst=10", 1, 60_000),
        ("1/minute; burst=10", 10, 600_000),
        ("100/second; burst=10", 1, 10),
        ("3/7 second; burst=3", 2, 4_667),
        ("1/week; burst=3", 3, 3 * 604_800_000),
    ],
)
def test_a_bucket_expires_when_it_is_full(redis_server, caller, stores, rate, cost, full_ms):
    asked = Asked(caller, stores(redis_server.uri), limits(rate))
    before = server_ms(redis_server)
    asked.acquire(cost=cost)
    expires = expiry(redis_server, "apigate:{shop}:level-0=a")
    after = server_ms(redis_server)
    if expires is None:
        assert after - before >= full_ms
    else:
        assert expires[0] <= after + full_ms + 1
        assert expires[1] >= before + full_ms


def server_ms(server):
    seconds, microseconds = server.command("TIME")
    return int(seconds) * 1_000 + int(microseconds) // 1_000


def test_a_rate_so_fast_that_buckets_are_full_within_a_millisecond_holds(redis_server, caller, stores):
    """A peer's expiry comes out as 0 there, so that it admits everybody."""
    asked = Asked(caller, stores(redis_server.uri, server_time=False), limits("1000000/second; burst=5"))
    assert [asked.acquire(now=1_000).allowed for _ in range(7)] == [True] * 5 + [False] * 2
    by_its_own_clock = Asked(caller, stores(redis_server.uri), limits("1000000/second; burst=5", owner="own"))
    assert by_its_own_clock.acquire(cost=5).allowed
    assert redis_server.command("PTTL", "apigate:{own}:level-0=a") in {1, 0, -2}  # -2 where it has expired


def test_an_expired_bucket_is_a_full_one(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("50/second; burst=5"))
    asked.acquire(cost=5)
    until(lambda: not redis_server.command("EXISTS", "apigate:{shop}:level-0=a"), "it expires")
    assert asked.left() == [5]
    assert asked.acquire(cost=5).allowed


def test_nothing_stays_that_does_not_expire(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("5/minute", "7/hour"))
    asked.acquire("a", "b", cost=2)
    asked.adjust("c", "d", tokens=20)
    asked.adjust("a", "d", tokens=-1)
    asked.acquire("e", "f", patience=HOUR_US)
    names = redis_server.command("KEYS", "*")
    assert len(names) == 6
    assert all(redis_server.command("PTTL", name) > 0 for name in names)


def test_what_is_given_back_in_full_is_kept_no_longer(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("5/hour", "7/hour"))
    asked.acquire(cost=2)
    asked.adjust(tokens=-2)
    assert redis_server.command("KEYS", "*") == []


# ---- what writes


def writes(server, call):
    """How many commands that write a call has run at the server."""
    before = server.commands()
    call()
    counted = server.commands() - before
    return counted["set"] + counted["del"]


def test_a_look_writes_nothing(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("5/hour", "7/hour"))
    asked.acquire()
    assert writes(redis_server, lambda: asked.left("a", "b")) == 0


def test_a_refusal_writes_nothing(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("5/hour", "1/hour"))
    asked.acquire()
    names = ["apigate:{shop}:level-0=a", "apigate:{shop}:level-1=a"]
    before = [expiry(redis_server, name)[1] for name in names]

    def refused():
        assert not any([asked.acquire().allowed, asked.acquire(cost=9).allowed, asked.acquire("c", "a").allowed])

    assert writes(redis_server, refused) == 0
    assert all(expiry(redis_server, name)[0] <= then for name, then in zip(names, before, strict=True))
    assert sorted(redis_server.command("KEYS", "*")) == names


# ---- the clock


def test_the_time_that_is_handed_in_does_not_count(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits("1/hour"))
    times = [0, HOUR_US, -HOUR_US, 2**60, 10**18]
    assert [asked.acquire(now=now).allowed for now in times] == [True] + [False] * 4


def test_unless_the_store_is_told_so(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri, server_time=False), limits("1/hour"))
    times = [0, HOUR_US - 1, HOUR_US, 2 * HOUR_US - 1, 2 * HOUR_US]
    assert [asked.acquire(now=now).allowed for now in times] == [True, False, True, False, True]


OTHER_PROCESS = """
import sys, time
time.monotonic_ns = lambda: {now}
time.time = lambda: {now} / 10**9
from apigate import Throttle
from apigate.stores.redis import RedisStore
throttle = Throttle({{"client": "3/hour"}}, store=RedisStore({uri!r}, deadline_ms=10_000), name="shop")
print(throttle.acquire({{"client": "a"}}).allowed)
"""


def test_processes_whose_clocks_differ_by_years_share_a_limit(redis_server):
    """As two hosts do, one of which has just started."""
    told = [
        subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS.format(now=now, uri=redis_server.uri)],
            check=True, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": "src"},
        ).stdout
        for now in (1, 10**18, 5 * 10**9, 4 * 10**18)
    ]  # fmt: skip
    assert told == ["True\n", "True\n", "True\n", "False\n"]


def tries(asked, moments):
    """Those of these moments, in microseconds, at which somebody is admitted who asks at each of them."""
    return [moment for moment in moments if asked.acquire(now=moment).allowed]


def tenths(seconds, offset=0.0):
    return [round((number / 10 + offset) * 1_000_000) for number in range(seconds * 10)]


BASE = 1_700_000_000_000_000


@pytest.mark.parametrize("caller", ["threads"], indirect=True)  # 24,000 calls; for tasks the script is the same
@pytest.mark.parametrize(
    ("what", "due"),
    [("steady", 32), ("back an hour", 31), ("forward an hour and back", 34), ("skewed", 33)],
)
def test_a_clock_that_steps_by_an_hour_admits_no_more_than_a_burst_beside_and_heals(
    redis_server, caller, stores, what, due
):
    """3 a minute, burst 3, ten tries a second for 10 minutes: the burst, and then one each 20 seconds."""
    asked = Asked(caller, stores(redis_server.uri, server_time=False), limits("3/minute; burst=3"))
    moments = [BASE + moment for moment in tenths(600)]
    half = len(moments) // 2
    if what == "back an hour":
        moments = moments[:half] + [moment - HOUR_US for moment in moments[half:]]
    elif what == "forward an hour and back":
        moments = [*moments[:half], moments[half] + HOUR_US, *moments[half:]]
    elif what == "skewed":
        moments = [moment + (500_000 if number % 2 else -500_000) for number, moment in enumerate(moments)]
    admitted = tries(asked, moments)
    assert admitted == tries(Asked(caller, MemoryStore(), limits("3/minute; burst=3"), moments[0]), moments)
    assert len(admitted) == due
    if what == "back an hour":
        healed = next(moment for moment in admitted if moment < moments[half - 1] - HOUR_US // 2)
        assert healed - moments[half] <= 20_000_000


def test_a_bucket_expires_no_earlier_where_the_time_is_handed_in(redis_server, caller, stores):
    """A test's clock may stand still while the server's goes on."""
    asked = Asked(caller, stores(redis_server.uri, server_time=False), limits("1000/second; burst=1"))
    asked.acquire(now=BASE)
    assert redis_server.command("PTTL", "apigate:{shop}:level-0=a") > 86_000_000
