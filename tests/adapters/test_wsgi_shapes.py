"""The ways in which PEP 3333 lets an app hand over its response, over every WSGI server of the table."""

import pytest

from tests.adapters.columns import columns

pytestmark = pytest.mark.parametrize("server", columns("wsgi_host"))

CELLS = pytest.mark.parametrize("cell", ["global", "in-flight-throttled"])  # without and with a watch for the end


@CELLS
@pytest.mark.parametrize("shape", ["list", "late", "write"])
def test_every_shape_gets_the_fields_and_is_closed_once(visit, cell, shape):
    client = visit(cell)
    reply = client.get(x_shape=shape)
    if shape == "write" and client.differs("has no write"):
        assert (reply.status, reply.whole) == (500, True)
        closed = 0  # nothing was returned
    elif shape == "late" and client.differs("reads the head when the app returns"):
        assert reply == (200, [], b"hello", True)
        closed = 1
    else:
        assert (reply.status, reply.body, reply.whole) == (200, b"hello", True)
        assert reply.all("set-cookie") == ["a=1", "b=2"]
        assert reply.all("ratelimit") == ['"global";r=1;t=10']
        closed = 1
    report = client.settled(closed=closed)
    assert (report["held"], report["calls"], report["closed"]) == (0, 1, closed)


@CELLS
def test_a_generator_that_breaks_before_it_answers_is_a_500(visit, cell):
    client = visit(cell)
    reply = client.get(x_shape="late", x_do="raise")
    if client.differs("reads the head when the app returns"):
        assert (reply.status in {0, 200}, reply.fields, reply.body) == (True, [], b"")
    else:
        assert reply.status == 500
    report = client.settled(closed=1)
    assert (report["held"], report["closed"]) == (0, 1)
    assert [client.get().status, client.get().status] == [200, 429]


@CELLS
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_generator_throttled_before_it_answers_becomes_a_429_and_gives_back_what_was_taken(visit, cell, method):
    client = visit(cell)
    reply = client.ask(method, "/pets/1", x_shape="late", x_do="throttled")
    if client.differs("reads the head when the app returns"):
        assert (reply.status in {0, 200}, reply.fields) == (True, [])
    else:
        assert (reply.status, reply.whole, reply.get("retry-after")) == (429, True, "30")
        assert (reply.body == b"") is (method == "HEAD")
    report = client.settled(closed=1)
    assert (report["held"], report["closed"]) == (0, 1)
    assert [client.get().status for _ in range(3)] == [200, 200, 429]


def test_a_generator_that_breaks_before_it_answers_counts_as_a_500(visit):
    cell = visit("refund-5xx")
    for number in range(4):
        reply = cell.get(x_shape="late", x_do="raise")
        assert reply.status in ({0, 200} if cell.differs("reads the head when the app returns") else {500})
        cell.settled(closed=number + 1)
    assert [cell.get().status for _ in range(3)] == [200, 200, 429]


def test_a_client_that_leaves_a_generator_closes_it_once(visit):
    cell = visit("in-flight")
    exchange = cell.open("GET", "/endless", x_shape="late", x_do="endless")
    assert exchange.status == 200
    assert exchange.read()
    exchange.leave()
    report = cell.settled(closed=1)
    assert (report["held"], report["closed"]) == (0, 1)


@CELLS
def test_the_server_still_sends_a_file_by_itself(visit, cell, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"sent by the kernel" * 10_000)
    client = visit(cell)
    act = "file-read" if client.differs("reads a file itself") else "file"
    reply = client.get(x_shape="as it is", x_do=act, x_file=str(path))
    if client.differs("has no wsgi.file_wrapper"):
        assert reply.status == 500  # the app asked for it
    else:
        assert (reply.status, reply.body) == (200, path.read_bytes())
        assert reply.get("ratelimit") == '"global";r=1;t=10'
    assert client.settled()["held"] == 0
