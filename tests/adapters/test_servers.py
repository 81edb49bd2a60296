"""The table itself: which columns it has, that no cell is skipped in silence, that no server outlives its session."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.columns import COLUMNS, PROTOCOLS
from tests.adapters.differences import DIFFERENCES
from tests.adapters.harness import DEADLINE
from tests.adapters.hosts import HOSTS
from tests.adapters.servers import RealServer

HERE = Path(__file__).parent
ROWS = ["test_table.py", "test_websocket.py", "test_wsgi_shapes.py"]  # what runs over servers


def nodes(*files: str) -> Iterator[tuple[str, ast.AST]]:
    for name in files:
        for node in ast.walk(ast.parse((HERE / name).read_text(encoding="utf-8"))):
            yield name, node


def test_every_server_runs_every_host_of_its_protocol():
    assert set(COLUMNS.values()) == {
        (server, host)
        for server, protocol in PROTOCOLS.items()
        for host, each in HOSTS.items()
        if each.protocol == protocol
    }
    assert set(PROTOCOLS) == {
        *("asgi", "uvicorn-h11", "uvicorn-httptools", "hypercorn", "granian-asgi", "daphne"),
        *("wsgi", "gunicorn-sync", "gunicorn-gthread", "granian-wsgi", "waitress"),
    }


def test_every_difference_is_asserted_and_has_a_reason():
    asked = {
        node.args[0].value
        for _, node in nodes("harness.py", *ROWS)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "differs"
    }
    assert asked == set(DIFFERENCES)
    for who in DIFFERENCES.values():
        assert who.keys() <= {*PROTOCOLS, *HOSTS}
        assert all(who.values())


def test_no_row_is_skipped_or_left_early():
    rows = [path.name for path in sorted(HERE.glob("test_*.py"))]
    assert set(ROWS) <= set(rows)
    leaving = {"skip", "skipif", "xfail", "importorskip"}
    skips = [
        (name, node.lineno) for name, node in nodes(*rows) if isinstance(node, ast.Attribute) and node.attr in leaving
    ]
    returns = [
        (name, each.lineno)
        for name, node in nodes(*ROWS)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for each in ast.walk(node)
        if isinstance(each, ast.Return)
    ]
    assert (skips, returns) == ([], [])


@pytest.mark.parametrize(("server", "host"), [("waitress", "wsgi_host"), ("granian-asgi", "asgi_host")])
def test_a_server_ends_with_the_session_that_started_it_even_if_that_was_killed(server, host):
    running = RealServer(server, host)
    try:
        running.process.stdin.close()  # what the system does with the pipe of a process that is gone
        assert running.process.wait(DEADLINE) < 0
    finally:
        running.stop()
