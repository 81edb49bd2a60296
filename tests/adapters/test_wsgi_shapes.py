"""The ways in which PEP 3333 lets an app hand over its response, over every WSGI server of the table."""

import pytest

from tests.adapters.harness import HARNESSES

pytestmark = pytest.mark.parametrize("server", [name for name in HARNESSES if name.startswith(("wsgi", "gunicorn"))])

CELLS = pytest.mark.parametrize("cell", ["global", "in-flight-throttled"])  # without and with a watch for the end


def settled(visit, **counts):
    for _ in range(2_000):
        report = visit.report()
        if {"held": 0, **counts}.items() <= report.items():
            break
    return report


@CELLS
@pytest.mark.parametrize("shape", ["list", "late", "write"])
def test_every_shape_gets_the_fields_and_is_closed_once(visit, cell, shape):
    client = visit(cell)
    reply = client.get(x_shape=shape)
    assert (reply.status, reply.body, reply.whole) == (200, b"hello", True)
    assert reply.all("set-cookie") == ["a=1", "b=2"]
    assert reply.all("ratelimit") == ['"global";r=1;t=10']
    report = settled(client, closed=1)
    assert (report["held"], report["calls"], report["closed"]) == (0, 1, 1)


@CELLS
def test_a_generator_that_breaks_before_it_answers_is_a_500(visit, cell):
    client = visit(cell)
    assert client.get(x_shape="late", x_do="raise").status == 500
    report = settled(client, closed=1)
    assert (report["held"], report["closed"]) == (0, 1)
    assert [client.get().status, client.get().status] == [200, 429]


@CELLS
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_generator_throttled_before_it_answers_becomes_a_429_and_gives_back_what_was_taken(visit, cell, method):
    client = visit(cell)
    reply = client.ask(method, "/pets/1", x_shape="late", x_do="throttled")
    assert (reply.status, reply.whole, reply.get("retry-after")) == (429, True, "30")
    assert (reply.body == b"") is (method == "HEAD")
    report = settled(client, closed=1)
    assert (report["held"], report["closed"]) == (0, 1)
    assert [client.get().status for _ in range(3)] == [200, 200, 429]


def test_a_generator_that_breaks_before_it_answers_counts_as_a_500(visit):
    cell = visit("refund-5xx")
    for number in range(4):
        assert cell.get(x_shape="late", x_do="raise").status == 500
        settled(cell, closed=number + 1)
    assert [cell.get().status for _ in range(3)] == [200, 200, 429]


def test_a_client_that_leaves_a_generator_closes_it_once(visit):
    cell = visit("in-flight")
    exchange = cell.open("GET", "/endless", x_shape="late", x_do="endless")
    assert exchange.read()
    exchange.leave()
    report = settled(cell, closed=1)
    assert (report["held"], report["closed"]) == (0, 1)


@CELLS
def test_the_server_still_sends_a_file_by_itself(visit, cell, server, tmp_path):
    if server == "wsgi":
        return  # no server here that could; see test_wsgi for what is returned to it
    path = tmp_path / "file"
    path.write_bytes(b"sent by the kernel" * 10_000)
    client = visit(cell)
    reply = client.get(x_shape="as it is", x_do="file", x_file=str(path))
    assert (reply.status, reply.body) == (200, path.read_bytes())
    assert reply.get("ratelimit") == '"global";r=1;t=10'
    assert settled(client)["held"] == 0
