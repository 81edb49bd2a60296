"""What a gateway tells: events, counters, and its own description."""

import logging

import pytest

from apigate import Method, Rate, Stage
from apigate.core.events import Denied, StoreFull
from apigate.core.message import Response
from apigate.core.policy import Phase
from apigate.staging import PathPrefix
from apigate.stores.memory import MemoryStore
from tests.gateway.asking import ask, ask_in_task, built

ONE = Rate(1, per=10)
ASKING = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])


@ASKING
def test_a_refusal_is_an_event_with_all_that_is_known(asking):
    events = []
    methods = {"GET /pets/{id}": Method(throttle=ONE, client_throttle=Rate(1, per=20))}
    gateway = built(stages=[Stage("prod", methods=methods)], on_event=events.append)
    asking(gateway, "GET /pets/1?page=2", x_client="alice")
    assert events == []
    asking(gateway, "GET /pets/2?page=3", x_client="alice")
    (event,) = events
    assert len(event.request_id) == 32
    assert event == Denied(
        kind="THROTTLED",
        status=429,
        stage="prod",
        method="GET /pets/{id}",
        path="/pets/2",
        client="client:alice",
        levels=("method", "client-method"),
        retry_after=20.0,
        request_id=event.request_id,
    )


def test_a_bad_path_is_an_event_too():
    events = []
    ask(built(throttle=ONE, on_event=events.append), "GET /a/../b")
    assert [(event.kind, event.status, event.levels, event.retry_after) for event in events] == [
        ("BAD_REQUEST_PARAMETERS", 400, (), None)
    ]


def test_an_unknown_stage_is_an_event_too():
    events = []
    ask(built(throttle=ONE, stage_by=PathPrefix(), on_event=events.append), "GET /nowhere/pets")
    assert [(event.kind, event.status, event.path) for event in events] == [
        ("RESOURCE_NOT_FOUND", 404, "/nowhere/pets")
    ]


def test_a_refusal_by_a_policy_of_ones_own_says_that_nobody_can_tell_when_to_come_back():
    class No:
        phase = Phase.CACHE

        def on_request(self, context):
            return Response("THROTTLED", 451, [], b"")

    events = []
    ask(built(throttle=ONE, policies=[No()], on_event=events.append))
    assert [(event.status, event.levels, event.retry_after) for event in events] == [(451, (), None)]


def test_a_full_store_is_an_event_once():
    events = []
    gateway = built(client_throttle=Rate(1, per=1_000), store=MemoryStore(max_keys=5), on_event=events.append)
    for number in range(20):
        ask(gateway, x_client=str(number))
    full = [event for event in events if isinstance(event, StoreFull)]
    assert full == [StoreFull(buckets=5)]


@ASKING
def test_a_listener_that_raises_is_logged_and_goes_no_further(asking, caplog):
    def listener(event):
        raise RuntimeError("the listener is broken")

    gateway = built(throttle=ONE, on_event=listener)
    with caplog.at_level(logging.ERROR, "apigate"):
        assert [asking(gateway).status for _ in range(2)] == [200, 429]
    (record,) = caplog.records
    assert record.name == "apigate"
    assert record.exc_info is not None
    assert "the listener is broken" in str(record.exc_info[1])


def test_events_are_frozen():
    events = []
    gateway = built(throttle=ONE, on_event=events.append)
    ask(gateway)
    ask(gateway)
    with pytest.raises(AttributeError):
        events[0].kind = "OTHER"


# ---- counters


@ASKING
def test_requests_are_counted_by_stage_method_and_kind(asking):
    stages = [
        Stage("prod", methods={"GET /pets/{id}": Method(throttle=ONE)}),
        Stage("beta", throttle=ONE),
    ]
    gateway = built(stages=stages, stage_by=PathPrefix())
    for path in ("prod/pets/1", "prod/pets/2", "prod/x", "beta/a", "beta/b", "beta/../x", "nowhere"):
        asking(gateway, f"GET /{path}")
    assert gateway.stats() == {
        "prod": {"GET /pets/{id}": {"admitted": 1, "THROTTLED": 1}, "*": {"admitted": 1}},
        "beta": {"*": {"admitted": 1, "THROTTLED": 1, "BAD_REQUEST_PARAMETERS": 1}},
        "(none)": {"*": {"RESOURCE_NOT_FOUND": 1}},
    }


def test_requests_that_name_no_stage_are_not_counted_for_a_stage_that_is_called_none():
    gateway = built(stages=[Stage("none", throttle=ONE)], stage_by=PathPrefix())
    ask(gateway, "GET /nowhere")
    assert gateway.stats() == {"none": {}, "(none)": {"*": {"RESOURCE_NOT_FOUND": 1}}}


def test_methods_that_had_no_request_are_left_out():
    gateway = built(methods={"GET /pets": Method(throttle=ONE), "GET /owners": Method(throttle=ONE)})
    assert gateway.stats() == {"default": {}}
    ask(gateway, "GET /pets")
    assert gateway.stats() == {"default": {"GET /pets": {"admitted": 1}}}


def test_stats_are_a_copy():
    gateway = built(throttle=ONE)
    ask(gateway)
    gateway.stats()["default"]["*"]["admitted"] = 99
    assert gateway.stats() == {"default": {"*": {"admitted": 1}}}


# ---- description


def test_a_gateway_describes_the_order_of_its_gates():
    class Audit:
        phase = Phase.GUARD

        def on_request(self, context): ...

    gateway = built(
        throttle="100/s",
        policies=[Audit()],
        name="shop",
        stages=[
            Stage(
                "prod",
                client_throttle="10/second; burst=20",
                client_in_flight=3,
                modes={"client": "shadow"},
                methods={"GET /pets": Method(throttle="5/s", refund="5xx"), "GET /health": Method(exempt=True)},
            )
        ],
    )
    assert repr(gateway).splitlines() == [
        "<Gateway shop",
        "stage prod",
        "  GET /pets",
        "    GUARD     Audit",
        "    THROTTLE  client at most 3 in flight (shadow)",
        "    THROTTLE  global 100/second",
        "    THROTTLE  method 5/second",
        "    THROTTLE  client 10/second; burst=20 (shadow)",
        "    THROTTLE  RateLimitFieldsPolicy",
        "    THROTTLE  SettlementPolicy",
        "  GET /health",
        "    GUARD     Audit",
        "  * (whatever matches no method)",
        "    GUARD     Audit",
        "    THROTTLE  client at most 3 in flight (shadow)",
        "    THROTTLE  global 100/second",
        "    THROTTLE  client 10/second; burst=20 (shadow)",
        "    THROTTLE  RateLimitFieldsPolicy>",
    ]


def test_an_empty_gateway_says_so():
    assert repr(built()).splitlines()[-1] == "    no gate>"


def test_a_context_describes_its_request_and_no_header_value():
    context = ask(built(throttle=ONE), "GET /pets", authorization="Bearer secret").context
    assert repr(context) == "<RequestContext default GET /pets>"
    assert "secret" not in f"{context.request!r}{context.request.headers!r}"


def test_a_request_id_is_made_once_and_is_another_for_each_request():
    gateway = built(throttle="9/s")
    first, second = (ask(gateway).context for _ in range(2))
    assert first.request_id == first.request_id
    assert first.request_id != second.request_id
    assert set(first.request_id) <= set("0123456789abcdef")
