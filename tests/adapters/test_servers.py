"""The table itself: which columns it has, that no cell is skipped in silence, that no server outlives its session."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.columns import COLUMNS, CORE, PLAIN, PROTOCOLS, WHOLE, WITH_WEBSOCKETS, columns, columns_of
from tests.adapters.differences import DIFFERENCES
from tests.adapters.harness import DEADLINE
from tests.adapters.hosts import HOSTS
from tests.adapters.in_process import IN_PROCESS
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


def test_every_column_runs_the_core_and_every_host_runs_every_row_in_process_and_on_a_server():
    rows = {name: [node.name for _, node in nodes(name) if is_row(node)] for name in ROWS}
    core = [row for about in CORE.values() for row in about]
    assert sorted(core) == sorted({*core} & {*rows["test_table.py"], *rows["test_websocket.py"]})
    assert WHOLE.keys() == HOSTS.keys()
    for host, servers in WHOLE.items():
        everywhere = [server for server, each in COLUMNS.values() if each == host]
        assert set(servers) <= set(everywhere)
        assert {server in IN_PROCESS for server in servers} == {True, False}
        assert host not in PLAIN.values() or set(servers) == set(everywhere)
    for row in rows["test_table.py"]:
        assert columns_of(row) == (columns(*HOSTS) if row in core else whole(*HOSTS))
    for row in rows["test_websocket.py"]:
        with_websockets = [
            name for name in columns(*WITH_WEBSOCKETS, real=True) if row in core or name in whole(*HOSTS)
        ]
        assert columns_of(row, *WITH_WEBSOCKETS, real=True) == with_websockets


def test_nothing_but_the_table_of_columns_says_where_a_row_runs():
    given = [
        (name, ast.unparse(node.args[1]).partition("(")[0])
        for name, node in nodes(*ROWS)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parametrize")
        if "server" in ast.unparse(node.args[0])
    ]
    assert given == [
        ("test_table.py", "columns_of"),
        ("test_websocket.py", "columns_of"),
        ("test_wsgi_shapes.py", "columns"),
    ]


def whole(*hosts: str) -> list[str]:
    return [name for name in columns(*hosts) if COLUMNS[name][0] in WHOLE[COLUMNS[name][1]]]


def is_row(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def test_every_difference_is_asserted_and_has_a_reason():
    asked = {
        node.args[0].value
        for _, node in nodes("harness.py", *ROWS)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "differs"
    }
    assert asked == set(DIFFERENCES)
    for who in DIFFERENCES.values():
        assert who.keys() <= {*PROTOCOLS, *HOSTS, *COLUMNS}
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
        if is_row(node)
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
