"""Limits: a rate at a level, under the name of its buckets."""

import pytest

from apigate import ConfigurationError, Rate, Window
from apigate.throttling.limit import LEVELS, Limit, checked_cost, checked_mode, limits_of, window_of

RATES = (Rate(1), Rate(2), Rate(3))


def test_each_rate_of_a_level_has_a_bucket_and_a_name_of_its_own():
    limits = limits_of("client:prod", "client", RATES)
    assert [limit.rate for limit in limits] == list(RATES)
    assert len({limit.name for limit in limits}) == 3
    assert [limit.policy for limit in limits] == ["client", "client-2", "client-3"]
    assert {limit.level for limit in limits} == {"client"}


@pytest.mark.parametrize(("mode", "enforced"), [("enforce", [True]), ("shadow", [False]), ("off", [])])
def test_a_mode_says_whether_the_limit_is_enforced_or_there_at_all(mode, enforced):
    assert [limit.enforced for limit in limits_of("client", "client", [Rate(1)], mode)] == enforced


@pytest.mark.parametrize("mode", ["Enforce", "on", "", None, True, 0, ["off"]])
def test_an_unknown_mode_is_refused_with_those_there_are(mode):
    with pytest.raises(ConfigurationError, match=r"modes\['client'\].*enforce, shadow, off"):
        checked_mode("modes['client']", mode)


@pytest.mark.parametrize("cost", [-1, 1.0, 1.5, "1", None, True])
def test_a_cost_is_a_whole_number_of_at_least_0(cost):
    with pytest.raises(ValueError, match=r"final_cost.*whole number of at least 0"):
        checked_cost(cost, "final_cost")


def test_the_window_of_a_limit_is_there_or_said_to_be_missing():
    window = Window("1/minute", kind="fixed")
    assert window_of(Limit("client", "client", "client", window)) is window
    with pytest.raises(TypeError, match="<Limit client: 1/second> has no window"):
        window_of(Limit("client", "client", "client", Rate(1)))


def test_a_limit_shows_its_name_its_rate_and_whether_it_is_enforced():
    assert repr(Limit("client", "client", "client", Rate(1))) == "<Limit client: 1/second>"
    assert repr(Limit("client", "client", "client", Rate(1), enforced=False)) == "<Limit client: 1/second (shadow)>"


def test_levels_go_from_the_widest_to_the_narrowest():
    assert LEVELS == ("global", "stage", "method", "client", "client-method")
