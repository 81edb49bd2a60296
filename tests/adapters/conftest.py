"""Every column of the table is started once, at its first test, and ended with the session."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from tests.adapters.columns import started, surrounded
from tests.adapters.harness import Harness, Visit

NUMBERS = count(1)


@pytest.fixture(scope="session")
def running() -> Iterator[dict[str, Harness]]:
    running: dict[str, Harness] = {}
    yield running
    with ExitStack() as stack:  # one that does not stop keeps no other from it
        for harness in running.values():
            stack.callback(harness.stop)


@pytest.fixture
def visit(running: dict[str, Harness], server: str) -> Iterator[Callable[[str], Visit]]:
    """A client of a fresh cell behind the server of this test."""
    visits: list[Visit] = []

    def visit(cell: str) -> Visit:
        if server not in running:
            running[server] = started(server)
        visits.append(Visit(running[server], f"{cell}/{next(NUMBERS)}"))
        return visits[-1]

    with surrounded(server):
        yield visit
        for each in visits:
            each.end()


@pytest.fixture
def discard(running: dict[str, Harness], server: str) -> Iterator[Callable[[], None]]:
    """Say that this test breaks its server, which ends with it; the next test gets a new one."""
    broken: list[bool] = []
    yield lambda: broken.append(True)
    if broken:
        running.pop(server).stop()
