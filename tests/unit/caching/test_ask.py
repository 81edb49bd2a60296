"""`ResponseCache.ask`: the cache of a program without a gateway."""

import asyncio
from threading import Thread

import pytest

from apigate import CachePolicy, ConfigurationError, Gateway, ProtocolError, ResponseCache
from apigate.caching.answer import Answer
from apigate.caching.fill import Fill
from apigate.caching.invalidation import Invalidating
from apigate.caching.lookup import Passing
from apigate.testing import FakeClock

PETS = "https://shop.example/pets"
MINUTE = CachePolicy(ttl=60)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> ResponseCache:
    return ResponseCache(max_bytes="1MB", policy=MINUTE, clock=clock)


def stored(cache: ResponseCache, url: str = PETS, body: bytes = b"three pets", **settings: object) -> None:
    exchange = cache.ask("GET", url, **settings)
    assert isinstance(exchange, Fill)
    exchange.begin(200, [("Content-Type", "text/plain")])
    exchange.feed(body)
    assert exchange.finish() is None


def test_what_was_stored_is_the_answer_with_its_age(cache, clock):
    stored(cache)
    clock.advance(7)
    answer = cache.ask("GET", PETS)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, b"three pets")
    assert dict(answer.text) == {
        "Content-Type": "text/plain",
        "Content-Length": "10",
        "Age": "7",
        "Cache-Status": "apigate; hit; ttl=53; detail=public",
    }
    clock.advance(53)
    assert isinstance(cache.ask("GET", PETS), Fill)


@pytest.mark.parametrize("ttl", [1, 1.5, 2])
def test_the_ttl_of_a_stale_answer_is_negative_and_that_of_a_fresh_one_is_not(cache, clock, ttl):
    policy = CachePolicy(ttl=ttl, stale_while_revalidate=60)
    stored(cache, policy=policy)
    told = []
    for _ in range(16):
        answer = cache.ask("GET", PETS, policy=policy)
        assert isinstance(answer, Answer)
        told.append(int(dict(answer.text)["Cache-Status"].split("; ")[2].removeprefix("ttl=")))
        clock.advance(0.25)
    fresh = round(ttl / 0.25)
    assert all(each >= 0 for each in told[:fresh])
    assert all(each < 0 for each in told[fresh:])
    assert told == sorted(told, reverse=True)


@pytest.mark.parametrize(
    "other",
    [
        "http://shop.example/pets",
        "https://other.example/pets",
        "https://shop.example/pets?page=2",
        "https://shop.example/pets/",
        "https://shop.example",
    ],
)
def test_every_part_of_the_url_tells_responses_apart(cache, other):
    stored(cache)
    assert isinstance(cache.ask("GET", other), Fill)


def test_url_without_a_path_is_the_root(cache):
    stored(cache, "https://shop.example?page=1")
    assert isinstance(cache.ask("GET", "https://shop.example/?page=1"), Answer)


def test_path_with_a_host_is_the_same_as_the_url(cache):
    stored(cache, "http://shop.example/pets")
    assert isinstance(cache.ask("GET", "/pets", {"Host": "shop.example"}), Answer)


def test_policy_of_the_call_counts_before_that_of_the_cache(cache):
    stored(cache, policy=CachePolicy(ttl=5))
    cache.clock.advance(5)
    assert isinstance(cache.ask("GET", PETS), Fill)


def test_seconds_in_place_of_bytes_are_an_error_that_says_where_they_belong():
    with pytest.raises(ConfigurationError, match=r"Seconds that responses are kept are the policy's, policy=60$"):
        ResponseCache(60)


@pytest.mark.parametrize(
    ("settings", "length", "tells_length", "reason"),
    [
        ({}, 1_001, True, "it is longer than max_item_bytes"),
        ({}, 1_001, False, "it is longer than max_item_bytes"),
        ({"max_bytes": 3_000}, 601, True, "there is no room for it in max_bytes"),
        ({"max_bytes": 3_000}, 601, False, "there is no room for it in max_bytes"),
        ({"max_bytes": 3_000}, 500, False, "there is no room for it in max_bytes"),
    ],
)
def test_what_has_no_room_says_so_where_its_length_is_known_before(settings, length, tells_length, reason):
    cache = ResponseCache(**{"max_item_bytes": 1_000, "policy": MINUTE, "is_detailed": True, **settings})
    exchange = cache.ask("GET", PETS)
    [status] = exchange.begin(200, [("Content-Length", str(length))] if tells_length else [])
    said = f'apigate; fwd=uri-miss; detail="{reason}"' if tells_length else "apigate; fwd=uri-miss; stored"
    assert status.text[1] == said
    exchange.feed(bytes(length))
    exchange.finish()
    assert not exchange.has_stored
    assert list(cache.objections.values()) == [reason]


def test_cache_without_a_policy_is_passed_by(clock):
    cache = ResponseCache(policy="off", clock=clock)
    assert cache.ask("GET", PETS) == Passing("bypass", "the cache has no policy")
    stored(cache, policy=MINUTE)


def test_each_principal_has_its_own(cache):
    stored(cache, body=b"alice's", principal="alice")
    assert isinstance(cache.ask("GET", PETS, principal="bob"), Fill)
    assert isinstance(cache.ask("GET", PETS), Fill)
    answer = cache.ask("GET", PETS, principal="alice")
    assert isinstance(answer, Answer)
    assert answer.body == b"alice's"


def test_public_policy_knows_no_principal(cache):
    public = CachePolicy(ttl=60, per="public")
    stored(cache, policy=public, principal="alice")
    assert isinstance(cache.ask("GET", PETS, policy=public, principal="bob"), Answer)


def test_policy_per_principal_passes_by_who_is_nobody(cache):
    assert cache.ask("GET", PETS, policy=CachePolicy(ttl=60, per="principal")) == Passing(
        "bypass", "nobody can tell whose the response would be"
    )


def test_function_of_the_policy_tells_whose_it_is(cache):
    policy = CachePolicy(ttl=60, per=lambda request: request.headers.get("x-tenant"))
    stored(cache, headers={"X-Tenant": "blue"}, policy=policy)
    assert isinstance(cache.ask("GET", PETS, {"X-Tenant": "blue"}, policy=policy), Answer)
    assert isinstance(cache.ask("GET", PETS, {"X-Tenant": "red"}, policy=policy), Fill)
    assert isinstance(cache.ask("GET", PETS, policy=policy), Passing)


def test_function_that_gives_no_text_is_logged_once_and_passes_by(cache, caplog):
    policy = CachePolicy(per=lambda _: 7)
    assert [type(cache.ask("GET", PETS, policy=policy)) for _ in range(2)] == [Passing, Passing]
    [record] = caplog.records
    assert "cache per: the function of the cache failed" in record.getMessage()
    assert "7 is neither a text nor None" in str(record.exc_info[1])


def test_claim_is_refused_as_nobody_knows_any(cache):
    with pytest.raises(ConfigurationError, match="'claim:tenant' is known to a gateway alone"):
        cache.ask("GET", PETS, policy=CachePolicy(per="claim:tenant"))


def test_content_of_a_query_is_part_of_its_key(cache):
    exchange = cache.ask("QUERY", PETS, content=b"cats")
    assert isinstance(exchange, Fill)
    exchange.begin(200, [])
    exchange.feed(b"one cat")
    exchange.finish()
    assert isinstance(cache.ask("QUERY", PETS, content=b"cats"), Answer)
    assert isinstance(cache.ask("QUERY", PETS, content=b"dogs"), Fill)
    assert isinstance(cache.ask("QUERY", PETS, content=b"x" * 65_537), Passing)


def test_unsafe_method_invalidates(cache):
    stored(cache)
    exchange = cache.ask("DELETE", PETS)
    assert isinstance(exchange, Invalidating)
    exchange.begin(204, [])
    assert exchange.publish() is None
    exchange.finish()
    assert isinstance(cache.ask("GET", PETS), Fill)


def test_thread_waits_for_the_one_that_leads(cache):
    leading = cache.ask("GET", PETS)
    assert isinstance(leading, Fill)
    found: list[object] = []
    waiting = Thread(target=lambda: found.append(cache.ask("GET", PETS)))
    waiting.start()
    leading.begin(200, [])
    leading.feed(b"three pets")
    leading.finish()
    waiting.join(10)
    assert [type(each) for each in found] == [Answer]


def test_task_waits_for_the_one_that_leads(cache):
    async def lead() -> None:
        leading = await cache.ask_async("GET", PETS)
        assert isinstance(leading, Fill)
        await asyncio.sleep(0)
        leading.begin(200, [])
        leading.feed(b"three pets")
        leading.finish()

    async def main() -> list[object]:
        first = asyncio.ensure_future(lead())  # in its own task: who was begun by a leader never waits
        waiting = [asyncio.ensure_future(cache.ask_async("GET", PETS)) for _ in range(3)]
        await first
        return await asyncio.gather(*waiting)

    found = asyncio.run(main())
    assert [type(each) for each in found] == [Answer] * 3


def test_more_policies_than_are_remembered_still_work(cache):
    for seconds in range(1, 200):
        assert isinstance(cache.ask("GET", f"{PETS}/{seconds}", policy=CachePolicy(ttl=seconds)), Fill)
    assert len(cache.lookups) <= 64


ALICE, BOB = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))


@pytest.mark.parametrize("per", ["public", lambda request: "all"])
def test_the_program_says_who_was_verified_and_a_policy_does_not(cache, per):
    policy = CachePolicy(ttl=60, per=per)
    stored(cache, headers=ALICE, policy=policy)
    assert isinstance(cache.ask("GET", PETS, ALICE, policy=policy), Fill)
    stored(cache, headers=ALICE, policy=policy, principal="alice")
    assert isinstance(cache.ask("GET", PETS, BOB, policy=policy, principal="bob"), Answer)
    asked = cache.ask("GET", PETS, BOB, policy=policy)
    assert isinstance(asked, Fill)
    assert asked.reason == "request"


def test_a_credential_in_the_key_has_copies_of_its_own(cache):
    policy = CachePolicy(ttl=60, key={"headers": ["Authorization"]})
    stored(cache, headers=ALICE, policy=policy)
    assert isinstance(cache.ask("GET", PETS, ALICE, policy=policy), Answer)
    assert isinstance(cache.ask("GET", PETS, BOB, policy=policy), Fill)
    assert isinstance(cache.ask("GET", PETS, policy=policy), Fill)
    assert isinstance(cache.ask("GET", PETS, ALICE), Fill)


def test_what_one_policy_has_stored_for_all_another_does_not_give_to_a_credential(cache):
    stored(cache)
    for policy in (
        CachePolicy(ttl=60, vary=["Authorization"]),
        CachePolicy(ttl=60, key={"headers": ["Authorization"]}),
    ):
        assert isinstance(cache.ask("GET", PETS, ALICE, policy=policy), Fill)


def test_an_unsafe_request_invalidates_whoever_sends_it(cache):
    policy = CachePolicy(ttl=60, per="principal")
    stored(cache, policy=policy, principal="alice")
    assert isinstance(cache.ask("GET", PETS, policy=policy, principal="alice"), Answer)
    exchange = cache.ask("DELETE", PETS, policy=policy)
    exchange.begin(204, [])
    exchange.publish()
    exchange.finish()
    assert isinstance(cache.ask("GET", PETS, policy=policy, principal="alice"), Fill)


@pytest.mark.parametrize(("forgets", "reason"), [(True, "uri-miss"), (False, "vary-miss")])
def test_what_was_invalidated_is_no_variant(cache, forgets, reason):
    exchange = cache.ask("GET", PETS, {"Accept": "text/plain"})
    assert isinstance(exchange, Fill)
    exchange.begin(200, [("Vary", "Accept")])
    exchange.finish()
    if forgets:
        cache.invalidate(path="/pets")
    asked = cache.ask("GET", PETS, {"Accept": "text/html"})
    assert isinstance(asked, Fill)
    assert asked.begin(200, [])[0].text == ("Cache-Status", f"apigate; fwd={reason}; stored")


@pytest.mark.parametrize(("cookie", "passes"), [("", False), ("a=1", True), (" ", True)])
def test_empty_cookie_field_has_no_cookies(cache, cookie, passes):
    assert isinstance(cache.ask("GET", PETS, {"Cookie": cookie}), Passing if passes else Fill)


@pytest.mark.parametrize("shared", [True, "redis://me:secret@host:6379/0", "file:///run/app/cache"])
def test_what_is_shared_needs_a_gateway(shared):
    cache = ResponseCache(shared=shared, policy=CachePolicy(ttl=60))
    with pytest.raises(ConfigurationError, match=r"^cache shared: .* has no effect without a gateway") as raised:
        cache.ask("GET", "https://shop.example/pets")
    assert "secret" not in str(raised.value)


def test_in_a_gateway_what_is_shared_may_be_asked_too(tmp_path):
    cache = ResponseCache(shared=f"file://{tmp_path}/cache", policy=CachePolicy(ttl=60))
    Gateway(name="shop", cache=cache)
    assert isinstance(cache.ask("GET", "https://shop.example/pets"), Fill)


@pytest.mark.parametrize(("url", "headers"), [("/pets", {}), ("/pets", {"Accept": "text/plain"}), ("pets", {})])
def test_a_request_of_no_host_is_an_error(cache, url, headers):
    with pytest.raises(ConfigurationError, match="tells no host, which is part of each key; give a whole URL"):
        cache.ask("GET", url, headers)
    with pytest.raises(ConfigurationError, match="tells no host"):
        asyncio.run(cache.ask_async("GET", url, headers))


@pytest.mark.parametrize("headers", [[("Host", "shop.example")], None, {"Host": None}, {b"Host": b"x"}, "Host: x"])
def test_fields_that_are_no_mapping_of_texts_are_an_error(cache, headers):
    with pytest.raises(ConfigurationError, match=r"^ask headers: they are not a mapping of names to texts"):
        cache.ask("GET", PETS, headers)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("status", "fields", "said"),
    [
        ("200", [], "the status '200' is not a whole number, such as 200"),
        (200, [("Location", 1)], r"\('Location', 1\) is no field line, a pair of texts such as"),
        (200, ["Location: /pets"], "'Location: /pets' is no field line"),
        (200, None, "None is no field line"),
    ],
)
def test_a_head_that_is_none_is_an_error_that_says_what_one_is(cache, method, status, fields, said):
    with pytest.raises(ProtocolError, match=f"^begin: {said}"):
        cache.ask(method, PETS).begin(status, fields)


@pytest.mark.parametrize("chunk", ["text", 7, None])
def test_content_that_is_no_bytes_is_an_error_and_nothing_is_stored(cache, chunk):
    exchange = cache.ask("GET", PETS)
    exchange.begin(200, [])
    with pytest.raises(ProtocolError, match=f"^feed: {type(chunk).__name__} is no bytes; texts have to be encoded"):
        exchange.feed(chunk)
    exchange.finish()
    assert (exchange.has_stored, exchange.objection) == (False, "a part of its content was no bytes")


def test_a_fill_says_why_its_response_was_not_stored(cache):
    exchange = cache.ask("GET", PETS)
    exchange.begin(200, [("Cache-Control", "no-store")])
    exchange.finish()
    assert exchange.objection == "the response says no-store"
    kept = cache.ask("GET", PETS)
    kept.begin(200, [])
    kept.finish()
    assert (kept.has_stored, kept.objection) == (True, "")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_head_given_as_a_mapping_is_an_error_and_nothing_is_stored(cache, method):
    exchange = cache.ask(method, PETS)
    with pytest.raises(ProtocolError, match="begin: dict is no list of field lines; give pairs"):
        exchange.begin(200, {"ETag": '"3"'})
    exchange.fail()
    assert isinstance(cache.ask("GET", PETS), Fill)
