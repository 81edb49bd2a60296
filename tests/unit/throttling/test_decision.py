"""A decision explains itself."""

import pytest

from apigate import Rate, Throttle, Throttled
from apigate.testing import FakeClock

ALICE = {"client": "alice"}


def throttle(**levels):
    return Throttle(levels, clock=FakeClock())


def test_an_admitted_request_knows_what_is_left_at_every_level():
    decision = throttle(**{"global": Rate(100), "client": Rate(10)}).acquire(ALICE, cost=3)
    assert decision.allowed
    assert decision.violated == ()
    assert decision.retry_after == 0.0
    assert {name: state.remaining for name, state in decision.levels.items()} == {"global": 97, "client": 7}
    assert decision.remaining == 7


def test_a_refusal_names_every_level_that_refused_and_the_longest_wait():
    limits = throttle(**{"global": Rate(1, per=60), "stage": Rate(9), "client": Rate(1, per=3_600)})
    keys = {"stage": "prod", "client": "alice"}
    limits.acquire(keys)
    decision = limits.acquire(keys)
    assert not decision.allowed
    assert decision.violated == ("global", "client")
    assert decision.retry_after == 3_600.0
    assert {name: state.retry_after for name, state in decision.levels.items()} == {
        "global": 60.0,
        "stage": 0.0,
        "client": 3_600.0,
    }
    assert [state.violated for state in decision.buckets] == [True, False, True]
    assert decision.levels["stage"].remaining == 8


def test_a_level_is_told_by_its_tightest_rate():
    limits = throttle(client=[Rate(5), Rate(100, per=3_600)])
    assert limits.acquire(ALICE).levels["client"].rate == Rate(5)
    for _ in range(19):
        limits.clock.advance(1)
        limits.acquire(ALICE, cost=5)
    decision = limits.acquire(ALICE, cost=5)
    assert decision.violated == ("client",)
    assert [state.policy for state in decision.buckets] == ["client", "client-2"]
    assert decision.levels["client"].policy == "client-2"
    assert decision.levels["client"].retry_after > 1


def test_a_cost_above_the_burst_is_never_admitted_and_has_no_wait():
    decision = throttle(**{"global": Rate(100), "client": Rate(10)}).acquire(ALICE, cost=11)
    assert not decision.allowed
    assert decision.retry_after is None
    assert decision.levels["client"].retry_after is None
    assert decision.levels["global"].retry_after == 0.0


def test_never_wins_over_later():
    limits = throttle(**{"global": Rate(20, per=3_600), "client": Rate(10)})
    limits.acquire(ALICE, cost=10)
    assert limits.acquire(ALICE, cost=11).violated == ("global", "client")
    assert limits.acquire(ALICE, cost=11).retry_after is None


def test_a_shadow_level_is_told_apart():
    limits = Throttle({"global": Rate(9), "client": Rate(1)}, modes={"client": "shadow"}, clock=FakeClock())
    limits.acquire(ALICE)
    decision = limits.acquire(ALICE)
    assert decision.allowed
    assert decision.violated == ()
    assert [limit.level for limit in decision.shadowed] == ["client"]
    assert decision.levels["client"].violated
    assert not decision.levels["client"].enforced
    assert decision.levels["client"].retry_after == 1.0
    assert decision.remaining == 7  # the tightest level that is enforced


def test_nothing_is_left_to_tell_where_nothing_is_enforced():
    limits = Throttle({"client": Rate(1)}, modes={"client": "shadow"}, clock=FakeClock())
    assert limits.acquire(ALICE).remaining is None


def test_whoever_waited_knows_how_long():
    limits = throttle(client=Rate(1))
    assert [limits.acquire(ALICE, wait=1).retry_after for _ in range(2)] == [0.0, 1.0]


def test_a_debt_leaves_nothing_rather_than_less():
    limits = throttle(client=Rate(5))
    limits.reserve(ALICE).commit(9)
    assert limits.peek(ALICE, cost=0).levels["client"].remaining == 0


def test_what_was_charged_is_known_by_name():
    limits = Throttle(
        {"global": Rate(9), "client": [Rate(1), Rate(5)]}, modes={"client": "shadow"}, clock=FakeClock(), name="t"
    )
    assert limits.acquire(ALICE).charged == {"t:global", "t:client", "t:client#2"}
    assert limits.acquire(ALICE).charged == {"t:global", "t:client#2"}
    assert limits.acquire(ALICE, cost=10).charged == frozenset()


def test_a_decision_is_shown_with_verdict_and_levels():
    limits = throttle(**{"global": Rate(9), "client": Rate(1)})
    assert repr(limits.acquire(ALICE)) == "<Decision allowed: global 8 left, client 0 left>"
    assert repr(limits.acquire(ALICE)) == "<Decision refused by client: global 8 left, client 0 left>"
    assert repr(limits.acquire(ALICE).levels["client"]) == "<LevelState client 1/second: 0 left, violated>"


@pytest.mark.parametrize(
    ("cost", "message", "retry_after"),
    [(1, "refused by client; retry after 1.000 s", 1.0), (2, "refused by client; waiting cannot help", None)],
)
def test_throttled_says_who_refused_and_for_how_long(cost, message, retry_after):
    limits = throttle(client=Rate(1))
    limits.acquire(ALICE)
    with pytest.raises(Throttled, match=message) as refused:
        limits.reserve(ALICE, cost)
    assert refused.value.retry_after == retry_after
    assert refused.value.decision.violated == ("client",)
