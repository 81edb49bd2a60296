"""Every server of the table is started once, at its first test."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.adapters.harness import HARNESSES, Harness, Visit

NUMBERS = count(1)


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[[str], Harness]]:
    running: dict[str, Harness] = {}

    def started(name: str) -> Harness:
        if name not in running:
            running[name] = HARNESSES[name]()
        return running[name]

    yield started
    for harness in running.values():
        harness.stop()


@pytest.fixture
def visit(start: Callable[[str], Harness], server: str) -> Callable[[str], Visit]:
    """A client of a fresh cell behind the server of this test."""
    return lambda cell: Visit(start(server), f"{cell}/{next(NUMBERS)}")
