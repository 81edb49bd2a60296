"""Which outcomes give tokens back, and at which levels; tests/gateway/test_cost.py has the rest."""

import pytest

from apigate import ConfigurationError, Method, Rate, Stage
from apigate.throttling.settlement import parse_statuses
from tests.gateway.asking import ask, ask_in_task, built

BOTH = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("", set()),
        ("  ", set()),
        ("404", {404}),
        ("404, 409", {404, 409}),
        (" 404 ,409 ", {404, 409}),
        ("2xx", set(range(200, 300))),
        ("5XX", set(range(500, 600))),
        ("2xx, 304", {*range(200, 300), 304}),
    ],
)
def test_statuses_and_classes_of_them(text, statuses):
    assert parse_statuses(text) == statuses


@pytest.mark.parametrize(
    "text", ["6xx", "0xx", "xx", "20", "2000", "2x", "2xx 404", "2xx,", ",", "-404", "\u0664\u0660\u0664", "ok"]
)
def test_what_is_no_status_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"Method refund.*is no status; write '2xx' or '404'"):
        parse_statuses(text, "Method refund")


@pytest.mark.parametrize("value", [None, 404, [404], b"2xx"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(ConfigurationError, match="not a text such as '2xx, 404'"):
        parse_statuses(value)


def five_levels(**method):
    """A gateway with a burst of 5 at each level; each hour one token flows back."""
    rate = Rate(1, per=3_600, burst=5)
    stage = Stage(
        "prod",
        throttle=rate,
        client_throttle=rate,
        methods={"GET /": Method(throttle=rate, client_throttle=rate, **method)},
    )
    return built(throttle=rate, stages=[stage])


def left(answer):
    """What is left at each level after a request."""
    return {name: state.remaining for name, state in answer.context.decision.levels.items()}


@BOTH
def test_the_final_cost_is_taken_at_the_same_levels(asking):
    gateway = five_levels(final_cost=lambda context, status: 3 if status == 200 else 0)
    asking(gateway, status=200)
    assert left(asking(gateway, status=500)) == {"global": 3, "stage": 3, "method": 1, "client": 1, "client-method": 1}


@BOTH
def test_a_refusal_is_not_refunded(asking):
    gateway = five_levels(refund="4xx")
    for _ in range(5):
        asking(gateway, status=200)
    assert [asking(gateway).status for _ in range(3)] == [429] * 3


@BOTH
@pytest.mark.parametrize("cost", [-1, 1.5, None, "1"])
def test_a_final_cost_that_is_none_settles_nothing(asking, cost):
    gateway = five_levels(final_cost=lambda context, status: cost)
    with pytest.raises(ValueError, match=r"final_cost.*whole number of at least 0"):
        asking(gateway)
    with pytest.raises(ValueError, match="final_cost"):
        asking(gateway)
