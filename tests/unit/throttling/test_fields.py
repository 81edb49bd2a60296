"""The fields that tell a client where it stands, as a structured-field parser reads them."""

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate import Rate, Throttle
from apigate.testing import FakeClock
from apigate.throttling.fields import DRAFTS, retry_after_field, seconds_up, x_fields
from apigate.throttling.limit import Limit
from tests.strategies import UNHURRIED, rates

ALICE = {"client": "alice"}
NEW = DRAFTS["draft-11"]


def limit(policy, rate):
    return Limit(policy, policy, policy, rate)


def values(fields):
    """Fields as a client gets them: name and value, and the same in the form for ASGI."""
    for found in fields:
        name, value = found.text
        assert found.raw == (name.lower().encode(), value.encode())
    return dict(found.text for found in fields)


def items(fields, name):
    """The members of a list of Strings with parameters."""
    members = http_sf.parse(values(fields)[name].encode(), tltype="list")
    assert all(isinstance(member, str) for member, _ in members)
    return members


def refused(draft, decision):
    """As a refusal is told."""
    waits = ((limit, None if wait is None else seconds_up(wait)) for limit, wait in decision.refusals())
    return DRAFTS[draft].refused(tuple(waits))


def throttle(**levels):
    return Throttle(levels, clock=FakeClock())


# ---- draft 11


def test_every_policy_is_told_with_what_may_come_at_once_and_how_fast_it_flows_back():
    fields = NEW.policies([limit("client", Rate(10, burst=25)), limit("client-2", Rate(1_000, per=86_400))])
    assert items(fields, "RateLimit-Policy") == [("client", {"q": 25, "w": 3}), ("client-2", {"q": 1_000, "w": 86_400})]


def test_the_tightest_limit_is_told_with_what_is_left():
    decision = throttle(**{"global": Rate(100), "client": Rate(10)}).acquire(ALICE)
    assert items(NEW.standing(*decision.tightest()), "RateLimit") == [("client", {"r": 9})]


def test_a_slow_limit_also_tells_for_how_long_no_more_is_left():
    limits = throttle(client=Rate(6, per=60))
    decision = limits.acquire(ALICE)
    assert items(NEW.standing(*decision.tightest()), "RateLimit") == [("client", {"r": 5, "t": 10})]
    limits.clock.advance(2.5)
    assert items(NEW.standing(*limits.acquire(ALICE).tightest()), "RateLimit") == [("client", {"r": 4, "t": 7})]


def test_a_refusal_tells_only_the_limits_that_refused_each_with_its_wait():
    limits = throttle(**{"global": Rate(1, per=60), "stage": Rate(99), "client": Rate(1, per=3_600)})
    keys = {"stage": "prod", **ALICE}
    limits.acquire(keys)
    limits.clock.advance(0.5)
    assert items(refused("draft-11", limits.acquire(keys)), "RateLimit") == [
        ("global", {"r": 0, "t": 60}),
        ("client", {"r": 0, "t": 3_600}),
    ]


def test_a_refusal_for_ever_tells_no_time():
    assert items(refused("draft-11", throttle(client=Rate(1)).acquire(ALICE, 2)), "RateLimit") == [("client", {"r": 0})]


@pytest.mark.parametrize(
    "name", ['he said "no"', "back\\slash", "new\nline", "na\u00efve", "\u65e5\u672c", "nul\0", "~ "]
)
def test_a_policy_of_any_name_can_be_read(name):
    members = items(NEW.policies([limit(name, Rate(1))]), "RateLimit-Policy")
    assert members[0][0] == "".join(character if " " <= character <= "~" else "_" for character in name)


@UNHURRIED
@given(
    rate=rates | st.integers(1, 2**31).map(lambda millions: Rate(millions * 1_000_000)),
    taken=st.integers(1, 1_000),
    passed=st.integers(0, 10**7),
)
def test_whatever_the_rate_the_fields_can_be_read_and_are_true(rate, taken, passed):
    limits = throttle(client=rate)
    limits.acquire(ALICE, min(taken, rate.size))
    limits.clock.advance(passed / 1_000_000)
    told = items(NEW.policies([limit("client", rate)]), "RateLimit-Policy")[0][1]
    assert told["q"] >= 1
    assert told["w"] >= 1
    decision = limits.peek(ALICE, cost=0)
    standing = items(NEW.standing(*decision.tightest()), "RateLimit")[0][1]
    limits.clock.advance(max(0, standing.get("t", 0) - 0.000001))
    assert not limits.peek(ALICE, standing["r"] + 1).allowed or standing.get("t", 0) == 0


def test_a_number_larger_than_a_field_may_hold_is_cut():
    """An Integer of RFC 9651 has at most 15 digits."""
    decision = throttle(client=Rate(2 * 10**15)).acquire(ALICE)
    assert items(NEW.policies(decision.limits), "RateLimit-Policy") == [("client", {"q": 10**15 - 1, "w": 1})]
    assert items(NEW.standing(*decision.tightest()), "RateLimit") == [("client", {"r": 10**15 - 1})]


# ---- older drafts


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ("draft-07", {"RateLimit": "limit=25, remaining=24, reset=1"}),
        ("draft-06", {"RateLimit-Limit": "25, 25;w=3", "RateLimit-Remaining": "24", "RateLimit-Reset": "1"}),
    ],
)
def test_older_drafts_tell_what_is_left(draft, expected):
    decision = throttle(client=Rate(10, burst=25)).acquire(ALICE)
    assert values(DRAFTS[draft].standing(*decision.tightest())) == expected


@pytest.mark.parametrize(
    ("cost", "draft", "expected"),
    [
        (5, "draft-07", {"RateLimit": "limit=5, remaining=0, reset=3600"}),
        (5, "draft-06", {"RateLimit-Limit": "5, 5;w=3600", "RateLimit-Remaining": "0", "RateLimit-Reset": "3600"}),
        (9, "draft-07", {"RateLimit": "limit=5, remaining=0, reset=3600"}),
    ],
)
def test_older_drafts_tell_the_longest_wait(cost, draft, expected):
    limits = throttle(**{"global": Rate(9, per=60), "client": Rate(5, per=3_600)})
    limits.acquire(ALICE, 5)
    assert values(refused(draft, limits.acquire(ALICE, cost))) == expected


def test_draft_07_tells_policies_and_draft_06_has_them_in_its_limit():
    both = [limit("global", Rate(100)), limit("client", Rate(10, burst=25))]
    assert values(DRAFTS["draft-07"].policies(both)) == {"RateLimit-Policy": "100;w=1, 25;w=3"}
    assert DRAFTS["draft-06"].policies(both) == ()


# ---- for old clients, and for all


def test_x_fields_tell_the_reset_in_seconds_since_1970():
    limits = throttle(client=Rate(6, per=60))
    decision = limits.acquire(ALICE)
    assert values(x_fields(decision.tightest(), limits.clock.wall() + 0.25)) == {
        "X-RateLimit-Limit": "6",
        "X-RateLimit-Remaining": "5",
        "X-RateLimit-Reset": str(1_767_225_601 + 10),
    }


def test_x_fields_tell_nothing_where_nothing_is_enforced():
    limits = Throttle({"client": Rate(1)}, modes={"client": "shadow"}, clock=FakeClock())
    assert x_fields(limits.acquire(ALICE).tightest(), 0.0) == ()


@pytest.mark.parametrize(("wait_us", "told"), [(0, "0"), (1, "1"), (999_999, "1"), (1_000_000, "1"), (1_000_001, "2")])
def test_retry_after_is_rounded_up(wait_us, told):
    assert retry_after_field(seconds_up(wait_us)).text == ("Retry-After", told)
