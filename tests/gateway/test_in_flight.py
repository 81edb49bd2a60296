"""In-flight limits: how many requests this process serves at once."""

import json

import pytest

from apigate import Method, Rate, Stage
from apigate.core.events import Denied
from apigate.core.message import Response
from apigate.core.policy import Phase
from tests.gateway.asking import Open, ask, ask_in_task, built, held

SHARED = ("global", "stage", "method")


def with_slot(level: str, most=1, **settings):
    """A gateway with one slot at one level."""
    if level == "global":
        return built(in_flight=most, **settings)
    if level in ("stage", "client"):
        slots = {"stage": {"in_flight": most}, "client": {"client_in_flight": most}}[level]
        return built(stages=[Stage("prod", **slots)], **settings)
    slots = {"method": {"in_flight": most}, "client-method": {"client_in_flight": most}}[level]
    return built(stages=[Stage("prod", methods={"GET /pets/{id}": Method(**slots)})], **settings)


LEVELS = pytest.mark.parametrize("level", [*SHARED, "client", "client-method"])


@LEVELS
@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_each_level_refuses_one_too_many_and_nobody_can_tell_when_to_come_back(level, asking):
    gateway = with_slot(level)
    first = Open(gateway, "GET /pets/1")
    refused = asking(gateway, "GET /pets/1")
    assert refused.status == (503 if level in SHARED else 429)
    assert set(refused.fields) == {"content-type", "content-length"}
    body = json.loads(refused.body)
    assert body["violated-policies"] == [level]
    assert body["type"].rpartition("#")[2] == ("temporary-reduced-capacity" if level in SHARED else "quota-exceeded")
    first.close()
    assert asking(gateway, "GET /pets/1").status == 200
    assert held(gateway) == 0


@LEVELS
def test_who_shares_a_slot_is_who_shares_the_level(level):
    gateway = with_slot(level)
    first = Open(gateway, "GET /pets/1", x_client="alice")
    others = [ask(gateway, "GET /pets/2", x_client="bob").status, ask(gateway, "GET /cats", x_client="alice").status]
    by_level = {"method": [503, 200], "client": [200, 429], "client-method": [200, 200]}
    assert others == by_level.get(level, [503, 503])
    first.close()


def test_a_client_and_the_server_both_full_is_the_servers_refusal():
    gateway = built(in_flight=1, client_in_flight=1)
    first = Open(gateway)
    refused = ask(gateway)
    assert refused.status == 503
    assert json.loads(refused.body)["violated-policies"] == ["global", "client"]
    first.close()


def test_a_level_that_refuses_takes_no_slot_at_the_others():
    gateway = built(in_flight=2, client_in_flight=1)
    first = Open(gateway, x_client="alice")
    assert [ask(gateway, x_client="alice").status for _ in range(3)] == [429] * 3
    second = Open(gateway, x_client="bob")
    assert second.status == 200
    assert ask(gateway, x_client="carol").status == 503
    first.close()
    second.close()
    assert held(gateway) == 0


def test_a_request_without_a_slot_takes_no_token():
    gateway = built(throttle=Rate(1, per=10, burst=2), in_flight=1)
    first = Open(gateway)
    assert {ask(gateway).status for _ in range(5)} == {503}
    first.close()
    assert [ask(gateway).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_request_without_a_token_keeps_no_slot(asking):
    gateway = built(throttle=Rate(1, per=10), in_flight=1)
    assert [asking(gateway).status for _ in range(4)] == [200, 429, 429, 429]
    assert held(gateway) == 0


@pytest.mark.parametrize("phase", [Phase.THROTTLE, Phase.CACHE])
@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_request_that_another_policy_refuses_keeps_no_slot(asking, phase):
    class No:
        def __init__(self):
            self.phase = phase

        def on_request(self, context):
            return Response("THROTTLED", 429, [], b"")

    gateway = built(in_flight=1, policies=[No()])
    assert [asking(gateway).status for _ in range(3)] == [429] * 3
    assert held(gateway) == 0


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_request_at_which_another_policy_breaks_keeps_no_slot(asking):
    class Breaks:
        phase = Phase.CACHE

        def on_request(self, context):
            raise RuntimeError("broken")

        def on_complete(self, context, status):
            raise RuntimeError("broken again")

    gateway = built(in_flight=1, policies=[Breaks()])
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            asking(gateway)
    assert held(gateway) == 0


def test_a_policy_whose_completion_breaks_keeps_no_slot():
    class Breaks:
        phase = Phase.CACHE

        def on_complete(self, context, status):
            raise RuntimeError("broken")

    gateway = built(in_flight=1, policies=[Breaks()])
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            ask(gateway)
    assert held(gateway) == 0


class Mistaken:
    """A store with a mistake in it; one that cannot be reached raises a StoreError, and has an outage policy."""

    def open(self, limits, now):
        return self

    def acquire(self, keys, costs, now, patience=0):
        raise RuntimeError("broken")


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_store_that_breaks_keeps_no_slot(asking):
    gateway = built(throttle=Rate(1), in_flight=1, store=Mistaken())
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            asking(gateway)
    assert held(gateway) == 0


def test_a_method_that_is_exempt_needs_no_slot():
    gateway = built(in_flight=1, methods={"GET /health": Method(exempt=True)})
    first = Open(gateway)
    assert ask(gateway, "GET /health").status == 200
    first.close()


def test_a_request_that_is_exempt_by_a_function_needs_no_slot():
    gateway = built(in_flight=1, exempt=lambda asked: asked.path == "/health")
    first = Open(gateway)
    assert ask(gateway, "GET /health").status == 200
    first.close()


def test_a_limit_lowered_while_requests_are_under_way_counts_them():
    gateway = built(in_flight=3)
    under_way = [Open(gateway) for _ in range(3)]
    gateway.update(throttle=None, in_flight=2)
    under_way.pop().close()
    assert ask(gateway).status == 503
    under_way.pop().close()
    assert ask(gateway).status == 200
    under_way.pop().close()
    assert held(gateway) == 0


def test_a_limit_removed_and_set_again_while_requests_are_under_way_leaks_nothing():
    gateway = built(in_flight=1)
    first = Open(gateway)
    gateway.update(throttle=None, in_flight=None)
    uncounted = Open(gateway)
    gateway.update(throttle=None, in_flight=1)
    assert ask(gateway).status == 503
    uncounted.close()
    assert ask(gateway).status == 503
    first.close()
    assert ask(gateway).status == 200
    assert held(gateway) == 0


def test_a_refusal_for_want_of_a_slot_is_an_event_that_names_the_level():
    events = []
    gateway = built(in_flight=1, on_event=events.append)
    first = Open(gateway)
    ask(gateway)
    first.close()
    (event,) = events
    assert isinstance(event, Denied)
    assert (event.kind, event.status, event.levels, event.retry_after) == ("OVERLOADED", 503, ("global",), None)


def test_slots_are_kept_for_those_who_hold_them_only():
    gateway = built(client_in_flight=1)
    for number in range(200):
        ask(gateway, x_client=str(number))
    assert [len(slots.held) for slots in gateway._compiler._slots.values()] == [0]


@pytest.mark.parametrize("level", ["global", "client"])
def test_shadow_refuses_nobody_and_counts_whom_it_would_have_refused(level):
    events = []
    slots = {"global": {"in_flight": 1}, "client": {}}[level]
    stage = Stage("prod", client_in_flight=None if slots else 1)
    gateway = built(stages=[stage], on_event=events.append, modes={level: "shadow"}, **slots)
    under_way = [Open(gateway) for _ in range(3)]
    assert [request.status for request in under_way] == [200] * 3
    for request in under_way:
        request.close()
    assert held(gateway) == 0
    assert gateway.stats()["prod"]["*"] == {"admitted": 3, f"shadow:{level}": 2}
    assert [event.levels for event in events] == [(level,)] * 2


def test_a_level_that_is_off_has_no_slots():
    assert built(in_flight=1, modes={"global": "off"}).is_empty
