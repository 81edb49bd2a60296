"""Websockets over every ASGI server; the client knows nothing of the gateway."""

import json
from socket import SHUT_RDWR

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.adapters.columns import WITH_WEBSOCKETS, columns_of
from tests.adapters.harness import DEADLINE, Visit


def pytest_generate_tests(metafunc):
    metafunc.parametrize("server", columns_of(metafunc.function.__name__, *WITH_WEBSOCKETS, real=True))


def chat(visit: Visit, path="/pets/1", subprotocols=None, **fields):
    sent = {"x-cell": visit.cell, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return connect(
        f"ws://127.0.0.1:{visit.harness.port}{path}",
        additional_headers=sent,
        subprotocols=subprotocols,
        open_timeout=DEADLINE,
        close_timeout=DEADLINE,
        proxy=None,
    )


def refusal(visit: Visit, path="/pets/1", **fields):
    with pytest.raises(InvalidStatus) as caught, chat(visit, path, **fields):
        pass
    return caught.value.response


def is_refused(response, visit: Visit, status: int, **fields: str | None) -> bool:
    """Whether a handshake was refused like that, or as this server refuses them all."""
    if visit.differs("refuses every handshake with an empty 403"):
        return (response.status_code, response.body, len(response.headers)) == (403, b"", 0)
    found = {name: response.headers.get(name.replace("_", "-")) for name in fields}
    return (response.status_code, found) == (status, fields)


def released(visit: Visit) -> bool:
    return visit.settled()["held"] == 0


def test_a_handshake_takes_a_token_as_a_get_of_its_path(visit):
    cell = visit("method")
    with chat(cell):
        pass
    assert [cell.get().status, cell.get().status] == [200, 429]


def test_a_handshake_over_the_limit_gets_the_same_response_as_a_get(visit):
    cell = visit("method")
    for _ in range(2):
        with chat(cell):
            pass
    refused, as_get = refusal(cell), cell.get()
    assert is_refused(refused, cell, 429)
    if not cell.differs("refuses every handshake with an empty 403"):
        assert refused.body == as_get.body
        fields = [(name.lower(), value) for name, value in refused.headers.raw_items()]
        assert {field for field in as_get.fields if field[0] != "content-length"} <= set(fields)
        assert refused.headers.get_all("content-length") == [str(len(as_get.body))]
    assert cell.report()["calls"] == 2


def test_a_handshake_for_a_path_with_a_dot_segment_is_refused(visit):
    cell = visit("global")
    assert is_refused(refusal(cell, "/a/%2e%2e/b"), cell, 400)


def test_a_handshake_for_an_unknown_stage_is_not_found(visit):
    cell = visit("by-path")
    assert is_refused(refusal(cell, "/nowhere/chat"), cell, 404)


def test_the_app_is_mounted_under_its_stage(visit):
    with chat(visit("by-path"), "/beta/chat") as socket:
        seen = json.loads(socket.recv(DEADLINE))
    assert (seen["native"]["mount"], seen["native"]["path"]) == ("/beta", "/beta/chat")
    assert seen["context"]["stage"] == "beta"


def test_messages_and_the_accepted_fields_are_the_apps_own(visit):
    cell = visit("all-levels")
    with chat(cell, subprotocols=["one", "two"], x_client="alice") as socket:
        assert socket.subprotocol == "two"
        dropped = cell.differs("drops the fields of an accepted handshake")
        assert socket.response.headers.get("x-app") == (None if dropped else "yes")
        assert "ratelimit" not in socket.response.headers
        assert json.loads(socket.recv(DEADLINE))["context"]["client"] == "client:alice"
        for message in ("", "text", b"\x00bytes\xff", "x" * 200_000):
            socket.send(message)
            if message or not cell.differs("drops empty messages"):
                assert socket.recv(DEADLINE) == message
        socket.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(DEADLINE)
    reason = "" if cell.differs("drops the reason of a close") else "bye"
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, reason)


def test_a_connection_holds_its_slot_until_it_is_closed(visit):
    cell = visit("in-flight")
    with chat(cell) as socket:
        socket.recv(DEADLINE)
        refused = refusal(cell)
        assert is_refused(refused, cell, 503, retry_after=None)
        assert cell.get().status == 503
    assert released(cell)
    assert cell.get().status == 200


@pytest.mark.parametrize("end", ["bye", "raise"])
def test_a_connection_that_the_app_ends_frees_its_slot(visit, end):
    cell = visit("in-flight")
    with chat(cell) as socket:
        socket.recv(DEADLINE)
        socket.send(end)
        with pytest.raises(ConnectionClosed):
            socket.recv(DEADLINE)
    assert released(cell)
    with chat(cell):
        pass


def test_a_client_that_is_cut_off_frees_its_slot(visit):
    cell = visit("in-flight")
    with chat(cell) as socket:
        socket.recv(DEADLINE)
        socket.socket.shutdown(SHUT_RDWR)
        assert released(cell)
    with chat(cell):
        pass


@pytest.mark.parametrize("act", ["throttled", "throttled-connected"])
def test_an_app_throttled_before_it_accepts_refuses_the_handshake_and_an_endpoint_keeps_what_it_took(visit, act):
    cell = visit("in-flight-throttled")
    refused = refusal(cell, x_do=act)
    assert is_refused(refused, cell, 429, retry_after="30")
    assert released(cell)
    left = 2 if cell.differs("has no endpoints") else 1
    assert [cell.get().status for _ in range(left + 1)] == [200] * left + [429]


def test_a_handshake_takes_from_the_decorator_of_its_endpoint(visit):
    cell = visit("marked")
    for _ in range(2):
        with chat(cell):
            pass
    assert is_refused(refusal(cell), cell, 429, retry_after="10")
    assert cell.report()["calls"] == 2
