"""Modes: a shadow level refuses nothing and tells what it would have refused; off is not there."""

from collections import Counter

import pytest

from apigate import Method, Rate, Stage
from apigate.core.events import WouldDeny
from tests.gateway.asking import ask, ask_in_task, built

ONE = Rate(1, per=10)


def with_mode(level: str, mode: str, **settings):
    """A gateway with one token at one level, in this mode."""
    modes = {level: mode}
    if level == "global":
        return built(throttle=ONE, modes=modes, **settings)
    if level in ("stage", "client"):
        rates = {"stage": {"throttle": ONE}, "client": {"client_throttle": ONE}}[level]
        return built(stages=[Stage("prod", **rates, modes=modes)], **settings)
    rates = {"method": {"throttle": ONE}, "client-method": {"client_throttle": ONE}}[level]
    return built(stages=[Stage("prod", methods={"*": Method(**rates, modes=modes)})], **settings)


LEVELS = pytest.mark.parametrize("level", ["global", "stage", "method", "client", "client-method"])


@LEVELS
@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_shadow_admits_all_counts_and_tells_what_it_would_have_refused(level, asking):
    events = []
    gateway = with_mode(level, "shadow", on_event=events.append)
    assert [asking(gateway, "GET /x", x_client="alice").status for _ in range(3)] == [200, 200, 200]
    (counts,) = gateway.stats().values()
    assert counts == {"*": {"admitted": 3, f"shadow:{level}": 2}}
    first, second = events
    assert first == WouldDeny(
        stage=first.stage, method=None, path="/x", client="client:alice", levels=(level,), request_id=first.request_id
    )
    assert first.request_id != second.request_id


@LEVELS
def test_off_is_not_there(level):
    events = []
    gateway = with_mode(level, "off", on_event=events.append)
    assert [ask(gateway).status for _ in range(3)] == [200, 200, 200]
    assert events == []
    assert gateway.is_empty


@LEVELS
def test_a_shadow_level_tells_clients_nothing(level):
    gateway = with_mode(level, "shadow")
    assert [ask(gateway).fields for _ in range(2)] == [{}, {}]


def test_a_shadow_bucket_takes_tokens_only_where_it_has_them_and_recovers():
    gateway = with_mode("global", "shadow")
    for _ in range(4):
        ask(gateway)
    gateway.clock.advance(10)
    ask(gateway)
    assert gateway.stats()["default"]["*"] == {"admitted": 5, "shadow:global": 3}


def test_an_enforced_level_beside_it_refuses_and_the_shadow_takes_nothing_then():
    gateway = built(throttle=Rate(1, per=10, burst=2), client_throttle=ONE, modes={"global": "shadow"})
    assert [ask(gateway, x_client="alice").status for _ in range(5)] == [200, 429, 429, 429, 429]
    assert ask(gateway, x_client="bob").status == 200
    assert Counter(gateway.stats()["default"]["*"]) == {"admitted": 2, "THROTTLED": 4}


def test_modes_may_change_while_the_gateway_runs():
    gateway = with_mode("global", "shadow")
    assert [ask(gateway).status for _ in range(2)] == [200, 200]
    gateway.update(modes={"global": "enforce"})
    assert ask(gateway).status == 429
    gateway.update(modes={})
    assert ask(gateway).status == 429
    gateway.update(modes={"global": "off"})
    assert [ask(gateway).status for _ in range(3)] == [200, 200, 200]


def test_a_refund_does_not_return_what_a_shadow_never_took():
    methods = {"*": Method(throttle=Rate(1, per=10, burst=1), modes={"method": "shadow"}, refund="5xx")}
    gateway = built(methods=methods)
    ask(gateway)
    ask(gateway, status=500)  # the shadow had no token, so there is none to give back
    ask(gateway)
    assert gateway.stats()["default"]["*"] == {"admitted": 3, "shadow:method": 2}
