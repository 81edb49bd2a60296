"""Bugs and complaints of other rate limiters, each as a test that apigate passes, named after where it was reported.

A name ends in what apigate does instead. Where a bug was only measured, it is named after the project and what was
seen.

| seen in | test |
| --- | --- |
| envoyproxy/ratelimit #1060 | `test_envoy_ratelimit_1060_`, `test_flask_limiter_and_slowapi_` |
| boinkor-net/governor #117 #156 #167, mailgun/gubernator #45 | `test_governor_156_` |
| dotnet/runtime #113314 #130114 | `test_dotnet_runtime_113314_`, `test_dotnet_runtime_130114_` |
| long2ice/fastapi-limiter #80 | `test_fastapi_limiter_80_` |
| alisaifee/limits #24 #234 #364 | `test_limits_24_` |
| alisaifee/limits #26 #71 #277, vutran1710/PyrateLimiter #300 | `test_limits_26_` |
| alisaifee/limits #352 (expiry threads and scans) | `test_limits_352_`, `test_pyrate_limiter_156_` |
| laurentS/slowapi #281, Morelitea/initiative #1799 | `test_slowapi_281_`, `test_initiative_1799_` |
| laurentS/slowapi #225 #249 #260 | `test_slowapi_249_`, `test_slowapi_260_` |
| laurentS/slowapi #59 #255 #306 | `test_slowapi_255_` |
| redis/fastapi-redis-sdk #39 | `test_fastapi_redis_sdk_39_`, `test_fastapi_limiter_the_leftmost_` |
| PyrateLimiter #136 #156 #180 | `test_pyrate_limiter_156_` |
| governor #171, BGPLite #423 | `test_governor_171_`, `test_throttled_py_a_refused_client_` |
| Flask-Limiter #62, django-ratelimit #165 | `test_flask_limiter_62_` |
| Flask-Limiter #99 #276 | `test_flask_limiter_99_` |
| limits #200 | `test_limits_200_` |
| jsocol/django-ratelimit #325 | `test_django_ratelimit_325_` |
| Flask-Limiter #234 #448 | `test_flask_limiter_448_`, `test_flask_limiter_234_` |
| envoyproxy/ratelimit #218 #293 | `test_envoy_ratelimit_218_` |
| Kong/kong #6835 | `test_kong_6835_` |
| dotnet/aspnetcore #42691 #53426 | `test_aspnetcore_53426_` |
| dotnet/aspnetcore #50391, governor #39 #273 | `test_aspnetcore_50391_`, `test_governor_273_` |
| slowapi #13 #206 | `test_slowapi_13_` |
| brandur/redis-cell #13 #14 #50 | `test_redis_cell_13_`, `test_redis_cell_50_` |
| Flask-Limiter #108 #337 | `test_flask_limiter_108_` |
| slowapi #217 | `test_slowapi_217_` |
| slowapi #174 #247 | `test_slowapi_247_` |
| django-ratelimit #293 | `test_django_ratelimit_293_` |
| praxis-proxy/ai #120, openlimit #20 | `test_openlimit_20_` |
| governor #152 #211 | `test_governor_152_` |
| bucket4j/bucket4j #51 #88 #220 | `test_bucket4j_51_`, `test_bucket4j_88_`, `test_bucket4j_220_` |
| limits #151 #152, Flask-Limiter #448 (cost above the limit) | `test_limits_151_` |
| governor #107 #249 #251 | `test_governor_107_` |

Come with the Redis store: limits #14 and django-ratelimit #255 (increment and expiry in two commands), slowapi #3 #55
#130 and local-deep-research #5853 (synchronous Redis on the event loop), slowapi #213 #253 and caura #410 (an outage
becomes a 500), django-ratelimit #333 and Flask-Limiter #319 (fail-open that does nothing; a stall for each request),
fastapi-limiter #19 #32 #68 and PyrateLimiter #182 (NOSCRIPT after a restart), throttled-py's key that expires at once
as Redis sees it, limits' `reset` by KEYS.

Come with the framework adapters: included routers of slowapi #281 as FastAPI has them, BaseHTTPMiddleware's part of
slowapi #260. Come with quotas: epam/ai-dial-core #1951 and apache/apisix #11880 (calendar windows), localstack #11393
(usage that lags). Flask-Limiter #282 (its share of a request) is a budget of the benchmarks.
"""

import asyncio
import re
import sys
import threading
from collections import Counter
from fractions import Fraction
from math import floor

import pytest

from apigate import Decision, Gateway, Method, Rate, Stage, Throttle, Throttled, asgi, wsgi
from apigate.core.events import WouldDeny
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock
from apigate.throttling import parse_rates
from tests.gateway.asking import Open, admitted, ask, ask_in_task, built, statuses, task_asks
from tests.threads import in_threads

HOUR = 3_600
DAY = 86_400
ALICE = {"client": "alice"}
BOB = {"client": "bob"}


def throttle(levels, **settings):
    return Throttle(levels, **{"clock": FakeClock(), **settings})


def left(limits, keys=None, level="client"):
    return limits.peek(keys, cost=0).levels[level].remaining


def asgi_answers(gateway, number, app=None, layers=1):
    """What an ASGI client gets: all messages of a response."""

    async def small(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = app or small
    for _ in range(layers):
        gate = asgi.GatewayMiddleware(gate, gateway)

    async def answer():
        messages = []

        async def send(message):
            messages.append(message)

        async def receive():
            return {"type": "http.request", "body": b""}

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
        await gate(scope, receive, send)
        return AsgiAnswer(messages)

    return [asyncio.run(answer()) for _ in range(number)]


class AsgiAnswer:
    def __init__(self, messages):
        self.messages = messages
        self.status = messages[0]["status"]
        self.names = Counter(name for name, _ in messages[0]["headers"])


# ---- several levels


def test_envoy_ratelimit_1060_refused_granular_limit_does_not_drain_the_broad_one():
    limits = throttle({"global": Rate(20, per=HOUR), "client": Rate(2, per=60)})
    assert [limits.acquire(ALICE).allowed for _ in range(30)].count(True) == 2
    assert left(limits, BOB, "global") == 18


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_flask_limiter_and_slowapi_a_refused_route_leaves_the_shared_limit_to_the_others(asking):
    """30 calls at a route of 2 a minute under a shared 20 an hour used up the 20: the others got 429 for an hour."""
    gateway = built(throttle=Rate(20, per=HOUR), methods={"GET /busy": Method(throttle=Rate(2, per=60))})
    assert [asking(gateway, "GET /busy").status for _ in range(30)].count(200) == 2
    assert [asking(gateway, "GET /other").status for _ in range(19)].count(200) == 18


def test_governor_156_limiters_are_combined_without_partial_spending():
    limits = throttle({"global": Rate(9, per=HOUR), "stage": Rate(7, per=HOUR), "client": Rate(5, per=HOUR)})
    keys = {"stage": "prod", **ALICE}
    assert not limits.acquire(keys, 6).allowed
    assert [state.remaining for state in limits.peek(keys, cost=0).buckets] == [9, 7, 5]
    assert limits.acquire(keys, 5).allowed
    assert [state.remaining for state in limits.peek(keys, cost=0).buckets] == [4, 2, 0]


def test_dotnet_runtime_113314_a_chained_limiter_charges_once_and_gives_all_of_it_back():
    limits = throttle({"global": Rate(5, per=HOUR), "client": Rate(5, per=HOUR)})
    with limits.reserve(ALICE) as reservation:
        assert (left(limits, ALICE, "global"), left(limits, ALICE)) == (4, 4)
        reservation.refund()
    assert (left(limits, ALICE, "global"), left(limits, ALICE)) == (5, 5)


def test_dotnet_runtime_130114_a_refusal_tells_which_limiter_refused():
    limits = throttle({"global": Rate(100), "stage": Rate(1, per=60), "client": Rate(1, per=HOUR)})
    keys = {"stage": "prod", **ALICE}
    limits.acquire(keys)
    decision = limits.acquire(keys)
    assert decision.violated == ("stage", "client")
    assert {name: state.retry_after for name, state in decision.levels.items()} == {
        "global": 0.0,
        "stage": 60.0,
        "client": 3_600.0,
    }


def test_pyrate_limiter_the_wait_is_the_longest_and_not_that_of_the_first_rate_that_fails():
    limits = throttle({"client": [Rate(1), Rate(2, per=60, burst=1)]})
    limits.acquire(ALICE)
    assert limits.acquire(ALICE).retry_after == 30.0


# ---- whose bucket


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_fastapi_limiter_80_every_client_has_a_bucket_of_its_own(asking):
    gateway = Gateway(client_throttle=Rate(1, per=60), clock=FakeClock())
    assert [asking(gateway, peer=peer).status for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1")] == [200, 200, 429]


def test_slowapi_255_the_clients_of_a_declared_proxy_are_told_apart():
    gateway = Gateway(client_throttle=Rate(1, per=60), trusted_hops=1, clock=FakeClock())
    asked = [ask(gateway, peer="10.0.0.1", x_forwarded_for=client).status for client in ("192.0.2.1", "192.0.2.2")]
    assert asked == [200, 200]
    assert ask(gateway, peer="10.0.0.2", x_forwarded_for="192.0.2.1").status == 429


def test_fastapi_redis_sdk_39_nobody_gets_a_new_bucket_by_forging_the_field():
    gateway = Gateway(client_throttle=Rate(1, per=60), clock=FakeClock())
    assert [ask(gateway, x_forwarded_for=f"192.0.2.{number}").status for number in range(3)] == [200, 429, 429]


def test_fastapi_limiter_the_leftmost_member_that_a_client_writes_itself_is_not_believed():
    gateway = Gateway(client_throttle=Rate(1, per=60), trusted_hops=1, clock=FakeClock())
    forged = [f"6.6.6.{number}, 192.0.2.1" for number in range(3)]
    assert [ask(gateway, peer="10.0.0.1", x_forwarded_for=value).status for value in forged] == [200, 429, 429]


def test_django_ratelimit_has_it_right_an_ipv6_subscriber_is_one_client():
    gateway = Gateway(client_throttle=Rate(1, per=60), clock=FakeClock())
    peers = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"]
    assert [ask(gateway, peer=peer).status for peer in peers] == [200, 429, 200]


def test_limits_keys_that_are_joined_by_a_slash_elsewhere_are_kept_apart():
    """There, ("u/1", "x") and ("u", "1/x") share a key."""
    limits = throttle({"user": Rate(1, per=60), "item": Rate(1, per=60)})
    assert limits.acquire({"user": "u/1", "item": "x"}).allowed
    assert limits.acquire({"user": "u", "item": "1/x"}).allowed


def test_limits_equal_limits_share_their_bucket_and_a_changed_one_forgets_nothing():
    """There, the rate is part of the key, so changing it lets everybody start afresh."""
    limits = throttle({"client": Rate(2, per=60)})
    limits.acquire(ALICE, 2)
    limits.update({"client": Rate(3, per=60)})
    assert left(limits, ALICE) == 1


def test_slowapi_217_path_parameters_make_no_keys():
    store = MemoryStore()
    gateway = built(store=store, methods={"GET /pets/{id}": Method(throttle=Rate(5, per=60))})
    assert admitted(gateway, "GET /pets/1") == 5
    assert statuses(gateway, *(f"GET /pets/{number}" for number in range(50))) == [429] * 50
    assert len(store) == 1


# ---- which limits hold


def test_slowapi_281_no_route_is_without_its_default_limit():
    """There, the default vanished without a word for the routes that an app includes."""
    gateway = built(methods={"*": Method(throttle=Rate(2, per=60)), "GET /named": Method(throttle=Rate(5, per=60))})
    assert statuses(gateway, "GET /included/by/a/router", "GET /named/below", "GET /") == [200, 200, 429]
    assert admitted(gateway, "GET /named") == 5


def test_initiative_1799_the_closest_route_wins_and_not_the_last():
    rates = {"GET /pets/{id}": 2, "GET /pets/mine": 3, "GET /{proxy+}": 4}
    for order in (list(rates), list(reversed(rates))):
        gateway = built(methods={name: Method(throttle=Rate(rates[name], per=60)) for name in order})
        assert [admitted(gateway, f"GET {path}") for path in ("/pets/7", "/pets/mine", "/cats")] == [2, 3, 4]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_flask_limiter_108_a_request_that_passes_two_gates_counts_once(kind):
    gateway = built(client_throttle=Rate(2, per=60))
    if kind == "wsgi":

        def app(environ, start_response):
            start_response("200 OK", [])
            return [b""]

        gate = wsgi.GatewayMiddleware(wsgi.GatewayMiddleware(app, gateway), gateway)
        found = []
        for _ in range(3):
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}
            gate(environ, lambda status, *rest: found.append(int(status[:3])))
    else:
        found = [answer.status for answer in asgi_answers(gateway, 3, layers=2)]
    assert found == [200, 200, 429]


# ---- streaming


def test_slowapi_249_a_response_is_started_once_whatever_the_app_streams():
    async def streaming(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 4})

    gateway = built(client_throttle=Rate(2, per=60), refund="5xx")
    (answer,) = asgi_answers(gateway, 1, streaming)
    assert [message["type"] for message in answer.messages] == ["http.response.start"] + ["http.response.body"] * 5
    assert set(answer.names.values()) == {1}
    assert b"".join(message["body"] for message in answer.messages[1:]) == b"01234"


def test_slowapi_260_a_chunk_is_sent_on_before_the_next_one_is_made():
    seen = []

    async def streaming(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            seen.append(f"made {number}")
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2})

    async def exchange():
        async def send(message):
            if message["type"] == "http.response.body":
                seen.append(f"sent {message['body'].decode()}")

        gate = asgi.GatewayMiddleware(streaming, built(client_throttle=Rate(2, per=60), client_in_flight=1))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
        await gate(scope, None, send)

    asyncio.run(exchange())
    assert seen == ["made 0", "sent 0", "made 1", "sent 1", "made 2", "sent 2"]


# ---- Retry-After


@pytest.mark.parametrize(
    ("rate", "retry_after"),
    [
        (Rate(1, per=60), "60"),
        (Rate(3, per=10, burst=1), "4"),
        (Rate(1_000, burst=1), "1"),
        (Rate(7, per=DAY), "12343"),
    ],
    ids=str,
)
def test_flask_limiter_62_retry_after_is_there_positive_whole_and_never_early(rate, retry_after):
    gateway = built(client_throttle=rate)
    for _ in range(rate.size):
        ask(gateway)
    refused = ask(gateway)
    assert refused.status == 429
    assert refused.fields["retry-after"] == retry_after
    gateway.clock.advance(int(retry_after))
    assert ask(gateway).status == 200


def test_flask_limiter_99_retry_after_counts_down():
    gateway = built(client_throttle=Rate(1, per=60))
    ask(gateway)
    told = []
    for _ in range(4):
        gateway.clock.advance(14.5)
        told.append(int(ask(gateway).fields["retry-after"]))
    assert told == [46, 31, 17, 2]


def test_limits_200_the_exact_wait_is_in_the_decision():
    limits = throttle({"client": Rate(3, per=10, burst=1)})
    limits.acquire(ALICE)
    assert limits.acquire(ALICE).retry_after == 3.333334


def test_fastapi_limiter_a_refusal_is_not_without_retry_after():
    gateway = built(client_throttle=Rate(1, per=60))
    assert "retry-after" not in ask(gateway).fields
    assert "retry-after" in ask(gateway).fields


def test_django_ratelimit_325_a_refusal_can_be_explained_to_the_client():
    gateway = built(client_throttle=Rate(1, per=60))
    ask(gateway)
    refused = ask(gateway)
    assert refused.fields["content-type"] == "application/problem+json"
    assert refused.fields["ratelimit"] == '"client";r=0;t=60'
    assert b'"violated-policies": ["client"]' in refused.body


def test_dotnet_the_wait_is_not_a_whole_period():
    limits = throttle({"client": Rate(1, per=10)})
    limits.acquire(ALICE)
    limits.clock.advance(5.8)
    assert limits.acquire(ALICE).retry_after == 4.2


def test_bucket4j_88_the_wait_counts_the_part_of_a_token_that_has_flowed_back():
    limits = throttle({"client": Rate(1)})
    limits.acquire(ALICE)
    limits.clock.advance(0.2)
    assert limits.acquire(ALICE).retry_after == 0.8


@pytest.mark.parametrize("burst", [3, 10])
def test_bucket4j_220_more_than_the_burst_is_never_and_not_later(burst):
    assert throttle({"client": Rate(burst, per=2)}).acquire(ALICE, burst + 1).retry_after is None


def test_limits_151_a_cost_above_the_limit_is_refused_and_costs_nothing():
    gateway = built(client_throttle=Rate(5, per=60), methods={"POST /bulk": Method(cost=6)})
    refused = ask(gateway, "POST /bulk")
    assert refused.status == 429
    assert "retry-after" not in refused.fields
    assert admitted(gateway, "GET /pets") == 5


def test_limits_a_refused_cost_of_10_does_not_block_a_cost_of_1():
    limits = throttle({"client": Rate(5, per=HOUR)})
    assert not limits.acquire(ALICE, 10).allowed
    assert [limits.acquire(ALICE).allowed for _ in range(6)] == [True] * 5 + [False]


# ---- arithmetic


def test_limits_24_rate_and_burst_are_two_numbers():
    limits = throttle({"client": Rate(1, burst=10)})
    assert [limits.acquire(ALICE).allowed for _ in range(11)] == [True] * 10 + [False]
    limits.clock.advance(2)
    assert [limits.acquire(ALICE).allowed for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("burst", [1, 2, 5])
def test_governor_107_a_burst_of_n_is_n(burst):
    limits = throttle({"client": Rate(1, per=60, burst=burst)})
    assert [limits.acquire(ALICE).allowed for _ in range(burst + 1)] == [True] * burst + [False]


@pytest.mark.parametrize("per", [0.000001, 0.001, 0.25, 0.5])
def test_redis_cell_13_periods_below_a_second_are_kept(per):
    limits = throttle({"client": Rate(1, per=per)})
    admitted_at = []
    for step in range(40):
        if limits.acquire(ALICE).allowed:
            admitted_at.append(step)
        limits.clock.advance(max(0.000001, per / 4))
    assert admitted_at == list(range(0, 40, 4 if per > 0.000001 else 1))


@pytest.mark.parametrize(
    "rate", [Rate(10**12, burst=10), Rate(10**15, burst=10), Rate(1, per=0.000001, burst=10)], ids=str
)
def test_redis_cell_50_a_very_fast_rate_is_a_limit_still(rate):
    limits = throttle({"client": rate})
    assert [limits.acquire(ALICE).allowed for _ in range(20)] == [True] * 10 + [False] * 10


def test_throttled_py_a_fast_rate_with_a_small_burst_is_not_unlimited():
    """100 a second with a burst of 10: there, 500 of 500 were admitted, as the key's life was rounded down to 0."""
    limits = throttle({"client": Rate(100, burst=10)})
    assert [limits.acquire(ALICE).allowed for _ in range(500)].count(True) == 10


def test_throttled_py_fractions_of_a_token_are_not_lost():
    """54 a minute, one try a second for an hour: there, 1,805 were admitted."""
    limits = throttle({"client": Rate(54, per=60, burst=10)})
    admitted = 0
    for _ in range(HOUR):
        admitted += limits.acquire(ALICE).allowed
        limits.clock.advance(1)
    assert admitted == floor(10 + (HOUR - 1) * Fraction(54, 60))


@pytest.mark.parametrize(("burst", "due"), [(1, 10_000), (2, 14_001)])
def test_pyrate_limiter_700000_a_second_is_not_500000(burst, due):
    """Asked each microsecond for 20 ms. With a burst of 1 the rest of each second microsecond is lost, as it has to."""
    limits = throttle({"client": Rate(700_000, burst=burst)})
    admitted = 0
    for _ in range(20_000):
        admitted += limits.acquire(ALICE).allowed
        limits.clock.advance(0.000001)
    assert admitted == due


def test_bucket4j_51_a_century_of_idleness_overflows_nothing():
    for rate in (Rate(10**12), Rate(999_983, burst=1_000), Rate(1, per=7 * DAY)):
        limits = throttle({"client": rate})
        limits.acquire(ALICE, rate.size)
        limits.clock.advance(100 * 365 * DAY)
        assert left(limits, ALICE) == rate.size


def test_limits_a_year_is_not_taken_for_360_days():
    for unit in ("month", "year"):
        with pytest.raises(ValueError, match="no fixed length"):
            parse_rates(f"1000/{unit}")


# ---- clocks


def test_limits_a_clock_set_back_by_an_hour_refuses_nobody_for_an_hour():
    limits = throttle({"client": Rate(3, per=60)})
    for _ in range(3):
        limits.acquire(ALICE)
    limits.clock.step(-HOUR)
    assert limits.acquire(ALICE).retry_after == 20.0
    limits.clock.advance(20)
    assert limits.acquire(ALICE).allowed


def test_limits_a_clock_set_back_and_forth_earns_next_to_nothing():
    """Ten tries a second for ten minutes, ideally 33; the clock goes an hour forward and back again."""
    limits = throttle({"client": Rate(3, per=60)})
    admitted = 0
    for number in range(6_000):
        if number == 2_000:
            limits.clock.step(HOUR)
        if number == 4_000:
            limits.clock.step(-HOUR)
        admitted += limits.acquire(ALICE).allowed
        limits.clock.advance(0.1)
    assert 32 <= admitted <= 33 + 3


def test_x_time_rate_replayed_time_is_credited_once():
    """A clock that goes back by half a second again and again does not pay for the same half second again."""
    limits = throttle({"client": Rate(10, burst=1)})
    admitted = 0
    for _ in range(100):
        admitted += limits.acquire(ALICE).allowed
        limits.clock.step(-0.5)
        admitted += limits.acquire(ALICE).allowed
        limits.clock.step(0.5)
    assert admitted == 1


# ---- memory


def test_throttled_py_a_refused_client_is_not_forgotten_when_others_come():
    """There, an LRU of 1,024 keys forgot it after 1,100 others."""
    limits = throttle({"client": Rate(1, per=HOUR)}, store=MemoryStore(max_keys=1_024))
    limits.acquire(ALICE)
    for number in range(5_000):
        limits.acquire({"client": f"{number}"})
    assert not limits.acquire(ALICE).allowed


def test_pyrate_limiter_156_no_thread_is_started():
    before = set(threading.enumerate())
    limits = throttle({"client": Rate(1, per=60)})
    for number in range(5_000):
        limits.acquire({"client": f"{number}"})
    assert set(threading.enumerate()) <= before  # one that another test has left may end meanwhile


def test_governor_171_keys_do_not_grow_without_bound():
    limits = throttle({"client": Rate(1)}, store=MemoryStore(max_keys=500))
    for number in range(20_000):
        limits.acquire({"client": f"{number}"})
        limits.clock.advance(0.0001)
    assert len(limits.store) <= 500


def test_limits_352_a_decision_looks_at_a_handful_of_buckets_and_never_at_all_of_them(monkeypatch):
    """There, each hit scheduled a scan of all keys: 24 hits a second with 100,000 of them."""
    store = MemoryStore(max_keys=50_000)
    limits = throttle({"client": Rate(1, per=HOUR)}, store=store)
    for number in range(20_000):
        limits.acquire({"client": f"{number}"})
    looked = []
    from apigate.stores import memory

    real = memory.owed_at
    monkeypatch.setattr(memory, "owed_at", lambda *args: looked.append(1) or real(*args))
    for number in range(2_000):
        looked.clear()
        limits.acquire({"client": f"new {number}"})
        assert len(looked) <= 8


def test_limits_a_large_limit_takes_no_more_memory_than_a_small_one():
    """There, a moving window keeps an entry for each of 10,000 hits: 190,568 bytes for one key."""
    store = MemoryStore()
    limits = throttle({"client": Rate(10_000, per=HOUR)}, store=store)
    for _ in range(10_000):
        limits.acquire(ALICE)
    (table,) = store._tables.values()
    assert sum(map(sys.getsizeof, table.young["alice"])) < 100
    assert len(store) == 1


@pytest.mark.usefixtures("restless_interpreter")
def test_limits_26_threads_on_one_key_get_exactly_the_limit():
    """There, up to 11 were let in where 5 may; tests/properties/test_concurrency.py has the long run."""
    for _ in range(50):
        limits = throttle({"client": Rate(5, per=HOUR)})
        admitted = []
        in_threads([lambda: admitted.extend(limits.acquire(ALICE).allowed for _ in range(4))] * 8)  # noqa: B023
        assert admitted.count(True) == 5


# ---- outcomes


def test_flask_limiter_448_of_twenty_failing_logins_at_once_five_are_served():
    """5 a minute on failures: there, test and then hit let all 20 through."""
    gateway = built(methods={"POST /login": Method(client_throttle=Rate(5, per=60), refund="2xx")})

    async def attempts():
        return await asyncio.gather(*(task_asks(gateway, "POST /login", 401) for _ in range(20)))

    served = Counter(answer.status for answer in asyncio.run(attempts()))
    assert served == {401: 5, 429: 15}


def test_flask_limiter_448_as_many_as_come_in_threads():
    gateway = built(methods={"POST /login": Method(client_throttle=Rate(5, per=60), refund="2xx")})
    under_way = [Open(gateway, "POST /login", 401) for _ in range(20)]
    assert Counter(request.status for request in under_way) == {401: 5, 429: 15}
    for request in under_way:
        request.close()
    assert ask(gateway, "POST /login", 200).status == 429


def test_flask_limiter_234_what_succeeds_costs_nothing():
    gateway = built(methods={"POST /login": Method(client_throttle=Rate(5, per=60), refund="2xx")})
    assert [ask(gateway, "POST /login", 200).status for _ in range(50)] == [200] * 50


def test_openlimit_20_a_cost_that_is_known_after_the_response_is_taken_then():
    """A model's tokens: reserve an estimate, settle what was used."""
    gateway = built(client_throttle=Rate(100, per=60), cost=10, final_cost=lambda context, status: 45)
    assert statuses(gateway, *["GET /"] * 4) == [200, 200, 200, 429]


def test_governor_152_what_was_taken_can_be_given_back():
    limits = throttle({"client": Rate(1, per=HOUR)})
    limits.reserve(ALICE).refund()
    assert limits.acquire(ALICE).allowed


def test_aspnetcore_a_request_may_cost_more_than_1():
    gateway = built(client_throttle=Rate(10, per=60), cost=lambda request: int(request.headers.get("x-items", "1")))
    assert [ask(gateway, x_items=items).status for items in ("4", "4", "4", "2")] == [200, 200, 429, 200]


# ---- modes and changes


def test_envoy_ratelimit_218_a_limit_can_be_tried_without_refusing_anybody():
    events = []
    gateway = built(client_throttle=Rate(1, per=60), modes={"client": "shadow"}, on_event=events.append)
    assert [ask(gateway).status for _ in range(3)] == [200] * 3
    assert [event.levels for event in events if isinstance(event, WouldDeny)] == [("client",)] * 2
    assert gateway.stats()["default"]["*"] == {"admitted": 3, "shadow:client": 2}


def test_kong_6835_one_limit_in_shadow_stands_beside_one_that_is_enforced():
    gateway = built(throttle=Rate(5, per=60), client_throttle=Rate(1, per=60), modes={"client": "shadow"})
    assert admitted(gateway) == 5


def test_aspnetcore_53426_several_limits_hold_for_one_endpoint():
    gateway = built(
        client_throttle=["2/second", "3/minute"],
        methods={"GET /": Method(throttle="4/hour")},
    )
    found = []
    for client in ("alice", "alice", "alice", "bob"):
        found.append(ask(gateway, x_client=client).status)
        gateway.clock.advance(0.6)
    found.append(ask(gateway, x_client="alice").status)
    found += [ask(gateway, x_client=client).status for client in ("carol", "dave")]
    assert found == [200, 200, 200, 200, 429, 429, 429]


def test_aspnetcore_50391_limits_change_while_it_runs_and_nobody_starts_afresh():
    gateway = built(client_throttle=Rate(5, per=60))
    assert admitted(gateway) == 5
    gateway.stage().update(client_throttle=Rate(7, per=60))
    assert admitted(gateway) == 2
    gateway.stage().update(client_throttle=Rate(1, per=60))
    refused = ask(gateway)
    assert (refused.status, refused.fields["retry-after"]) == (429, "60")


def test_governor_273_a_throttle_changes_while_it_runs():
    limits = throttle({"client": Rate(1, per=HOUR)})
    limits.acquire(ALICE)
    limits.update({"client": Rate(1)})
    assert limits.acquire(ALICE).retry_after == 1.0


def test_slowapi_13_clients_may_have_limits_of_their_own():
    """A stage for each plan, and whose it is said by a header that a proxy sets."""
    from apigate.staging import Header

    stages = [Stage("free", client_throttle=Rate(1, per=60)), Stage("paid", client_throttle=Rate(3, per=60))]
    gateway = built(stages=stages, stage_by=Header("x-plan", default="free"))
    assert [admitted(gateway, x_plan=plan) for plan in ("free", "paid")] == [1, 3]


# ---- functions


def test_slowapi_247_a_decorated_function_needs_no_request_argument():
    gateway = built()

    @gateway.throttle(Rate(2, per=60))
    def pets() -> str:
        return "a cat"

    assert [pets(), pets()] == ["a cat", "a cat"]
    with pytest.raises(Throttled):
        pets()


def test_slowapi_247_nor_does_one_that_counts_the_client():
    gateway = built()

    @gateway.throttle(Rate(1, per=60), per="client")
    def pets():
        return b"a cat"

    def app(environ, start_response):
        body = pets()
        start_response("200 OK", [])
        return [body]

    gate, found = wsgi.GatewayMiddleware(app, gateway), []
    for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": peer, "HTTP_X_CLIENT": peer}
        gate(environ, lambda status, *rest: found.append(int(status[:3])))
    assert found == [200, 200, 429]


def test_django_ratelimit_293_tasks_have_all_that_threads_have():
    limits = throttle({"client": Rate(2, per=60)})
    gateway = built()

    @gateway.throttle(Rate(1, per=60))
    async def pets() -> str:
        return "a cat"

    async def program():
        decisions: list[Decision] = [await limits.acquire_async(ALICE) for _ in range(3)]
        assert await pets() == "a cat"
        with pytest.raises(Throttled):
            await pets()
        return [decision.allowed for decision in decisions]

    assert asyncio.run(program()) == [True, True, False]


# ---- the table above


def test_the_table_names_tests_that_exist():
    named = re.findall(r"`(test_\w+_)`", __doc__)
    assert len(named) > 40
    assert [name for name in named if not any(test.startswith(name) for test in globals())] == []
