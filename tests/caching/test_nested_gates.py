"""A gateway within another one, each with a cache: what the inner one keeps for some, the outer one must not have."""

import pytest
from flask import Flask, request

from apigate import CachePolicy, Gateway, Method, ResponseCache
from apigate.core.message import Response
from apigate.core.policy import Phase
from apigate.flask import Apigate
from tests.caching.asking import Reply


class Keys:
    """Verifies by another field than Authorization, of which a cache further out knows nothing."""

    phase = Phase.AUTHORIZE

    def __init__(self, tells):
        self.tells = tells

    def on_request(self, context):
        name = context.request.headers.get("x-api-key")
        if name is not None:
            setattr(context, self.tells, name if self.tells == "principal" else {"name": name})


@pytest.mark.parametrize(("tells", "per"), [("principal", None), ("claims", "claim:name")])
def test_what_a_gate_further_in_answers_for_one_a_cache_further_out_does_not_keep(world, tells, per):
    shop = world(
        lambda seen: Reply(200, (), (seen.fields["x-api-key"].encode(),)),
        CachePolicy(ttl=60, per=per),
        policies=[Keys(tells)],
    )
    outer = Gateway(name="outer", cache=ResponseCache(), methods={"*": Method(cache=CachePolicy(ttl=60))})
    shop.wrapped = type(shop.wrapped)(shop.wrapped, outer)
    for who in ("alice", "alice", "alice", "bob", "bob"):  # asked of the app, and answered by the gate further in
        assert shop.ask(x_api_key=who).body == who.encode()
    assert shop.calls == 2
    assert outer.stage("default").cache.stats()["entries"] == 0


class Profiles(Keys):
    """Answers by itself for whom it has verified."""

    def on_request(self, context):
        name = context.request.headers.get("x-api-key")
        if name is None:
            return None
        super().on_request(context)
        return Response("PROFILE", 200, [], name.encode())


@pytest.mark.parametrize("tells", ["principal", "claims"])
def test_nor_what_a_policy_further_in_answers_by_itself(world, tells):
    shop = world(lambda seen: Reply(200, (), (b"nobody",)), policies=[Profiles(tells)])
    outer = Gateway(name="outer", cache=ResponseCache(), methods={"*": Method(cache=CachePolicy(ttl=60))})
    shop.wrapped = type(shop.wrapped)(shop.wrapped, outer)
    assert [shop.ask(x_api_key=who).body for who in ("alice", "bob")] == [b"alice", b"bob"]
    assert shop.ask().body == b"nobody"
    assert shop.ask().hit


@pytest.mark.parametrize("tells", ["principal", "claims"])
@pytest.mark.parametrize("answers", [Keys, Profiles])
def test_nor_what_is_asked_for_anew_behind_the_answer_to_one(world, tells, answers):
    """The request that refreshes a stale response is sent as whoever set it off."""
    shop = world(lambda seen: Reply(200, (), (seen.fields.get("x-api-key", "nobody").encode(),)))
    inner = Gateway(name="inner", policies=[answers(tells)])
    policy = CachePolicy(ttl=60, stale_while_revalidate=600)
    outer = Gateway(name="outer", cache=ResponseCache(), methods={"*": Method(cache=policy)}, clock=shop.clock)
    shop.wrapped = type(shop.wrapped)(shop.around(inner), outer)
    assert shop.ask().body == b"nobody"
    shop.clock.advance(61)
    assert shop.ask(x_api_key="alice").body == b"nobody"
    assert {shop.ask().body for _ in range(2)} == {b"nobody"}


def test_nor_what_is_warmed_for_one(world):
    shop = world(lambda seen: Reply(200, (), (seen.fields.get("x-api-key", "nobody").encode(),)))
    outer = Gateway(name="outer", cache=ResponseCache(), methods={"*": Method(cache=CachePolicy(ttl=60))})
    shop.wrapped = type(shop.wrapped)(shop.around(Gateway(name="inner", policies=[Keys("principal")])), outer)
    warmed = shop.wrapped.warm([("http://shop.example/", {"x-api-key": "alice"})])
    assert (warmed if shop.loop is None else shop.loop.run_until_complete(warmed)) == 0
    assert shop.ask().body == b"nobody"


@pytest.mark.parametrize("tells", ["principal", "claims"])
@pytest.mark.parametrize(
    "decorated",
    [lambda inner: inner.cache(ttl=60), lambda inner: inner.throttle("9/second")],
    ids=["cache", "throttle"],
)
def test_nor_what_a_view_that_is_its_own_gate_answers_for_one(tells, decorated):
    inner = Gateway(name="inner", policies=[Keys(tells)])
    outer = Gateway(name="outer", cache=ResponseCache(policy=CachePolicy(ttl=60)))
    app = Flask("shop")
    app.get("/")(decorated(inner)(lambda: request.headers.get("x-api-key", "nobody")))
    Apigate(app, outer)
    client = app.test_client()
    for who in ("alice", "bob"):
        assert client.get("/", headers={"x-api-key": who}).text == who
    assert client.get("/").text == "nobody"


@pytest.mark.parametrize("tells", ["principal", "claims"])
def test_a_cache_further_in_keeps_nothing_for_everybody_of_whom_a_gate_further_out_has_verified(world, tells):
    policy = CachePolicy(ttl=60, stale_while_revalidate=600)
    shop = world(lambda seen: Reply(200, (), (seen.fields.get("x-api-key", "nobody").encode(),)), policy)
    shop.wrapped = type(shop.wrapped)(shop.wrapped, Gateway(name="outer", policies=[Keys(tells)]))
    for who in ("alice", "bob"):
        assert shop.ask(x_api_key=who).body == who.encode()
    assert shop.ask().body == b"nobody"
    shop.clock.advance(61)
    shop.ask(x_api_key="alice")
    assert {shop.ask().body for _ in range(2)} == {b"nobody"}


def test_unless_its_policy_says_that_all_get_the_same(world):
    shop = world(lambda seen: Reply(200, (), (b"pets",)), CachePolicy(ttl=60, per="public"))
    shop.wrapped = type(shop.wrapped)(shop.wrapped, Gateway(name="outer", policies=[Keys("principal")]))
    shop.ask(x_api_key="alice")
    assert shop.ask(x_api_key="bob").hit
