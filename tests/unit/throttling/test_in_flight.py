"""Slots: how many requests are served at once."""

import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from apigate.core.responses import GatewayResponses
from apigate.throttling.in_flight import InFlightPolicy, SlotLimit, Slots


class Gate:
    """A policy with some slots, and what it told."""

    def __init__(self, **most):
        self.shadowed = []
        self.slots = {level: Slots(level) for level in most}
        limits = [
            SlotLimit(self.slots[level], abs(number), number > 0) for level, number in most.items()
        ]  # below 0: in shadow mode
        self.policy = InFlightPolicy(
            limits, threading.Lock(), GatewayResponses(), lambda context, levels: self.shadowed.append(levels)
        )

    def enter(self, client="alice"):
        context = SimpleNamespace(client=client, exempt=False, state={})
        return self.policy.on_request(context), context

    @property
    def held(self):
        return {level: dict(slots.held) for level, slots in self.slots.items()}


def test_a_slot_is_taken_at_every_level_or_at_none():
    gate = Gate(**{"global": 9, "method": 1, "client": 9})
    _, first = gate.enter()
    refused, second = gate.enter("bob")
    assert refused.status == 503
    assert gate.held == {"global": {"": 1}, "method": {"": 1}, "client": {"alice": 1}}
    gate.policy.on_complete(second, None)
    assert gate.held == {"global": {"": 1}, "method": {"": 1}, "client": {"alice": 1}}
    gate.policy.on_complete(first, 200)
    assert gate.held == {"global": {}, "method": {}, "client": {}}


@pytest.mark.parametrize(
    ("full", "kind", "status"),
    [
        (["client"], "THROTTLED", 429),
        (["client-method"], "THROTTLED", 429),
        (["client", "client-method"], "THROTTLED", 429),
        (["global"], "OVERLOADED", 503),
        (["stage", "client"], "OVERLOADED", 503),
    ],
)
def test_a_full_server_is_503_and_a_greedy_client_429(full, kind, status):
    gate = Gate(**{level: 1 if level in full else 9 for level in ("global", "stage", "client", "client-method")})
    gate.enter()
    refused, _ = gate.enter()
    assert (refused.kind, refused.status) == (kind, status)
    assert not any(field.text[0].lower() == "retry-after" for field in refused.fields)
    assert all(level in refused.body.decode() for level in full)


def test_a_client_has_slots_of_its_own_whatever_it_is_called():
    gate = Gate(client=1)
    names = ["alice", "bob", "x" * 1_000, "x" * 1_001, "\u00e9"]
    assert [gate.enter(name)[0] for name in names] == [None] * len(names)
    assert all(gate.enter(name)[0].status == 429 for name in names)
    assert max(map(len, gate.held["client"])) <= 32


def test_a_slot_is_freed_once():
    gate = Gate(client=2)
    contexts = [gate.enter()[1] for _ in range(2)]
    for _ in range(3):
        gate.policy.on_complete(contexts[0], 200)
    assert gate.held == {"client": {"alice": 1}}
    assert gate.enter()[0] is None
    assert gate.enter()[0].status == 429


def test_a_shadow_level_notes_what_it_would_refuse_and_counts_on():
    gate = Gate(**{"global": 3, "client": -1})
    contexts = [gate.enter()[1] for _ in range(3)]
    assert gate.shadowed == [("client",)] * 2
    assert gate.held == {"global": {"": 3}, "client": {"alice": 3}}
    assert gate.enter()[0].status == 503
    for context in contexts:
        gate.policy.on_complete(context, 200)
    assert gate.held == {"global": {}, "client": {}}


def test_an_exempt_request_takes_no_slot():
    gate = Gate(client=1)
    context = SimpleNamespace(client="alice", exempt=True, state={})
    assert gate.policy.on_request(context) is None
    gate.policy.on_complete(context, 200)
    assert gate.held == {"client": {}}


def test_threads_never_hold_more_slots_than_there_are():
    gate = Gate(**{"global": 5, "client": 2})
    most = Counter()

    def serve(client):
        for _ in range(300):
            refused, context = gate.enter(client)
            if refused is None:
                for level, held in gate.held.items():
                    most[level] = max(most[level], *held.values(), 0)
                gate.policy.on_complete(context, 200)

    threads = [threading.Thread(target=serve, args=(client,)) for client in "abcdabcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most["global"] <= 5
    assert most["client"] <= 2
    assert gate.held == {"global": {}, "client": {}}
