"""Each test of this folder runs through ASGI and through WSGI."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.caching.asking import KINDS, World


@pytest.fixture(params=KINDS)
def world(request: Any) -> Iterator[Callable[..., World]]:
    """Makes worlds of one kind, and ends them."""
    made: list[World] = []

    def make(*given: Any, **settings: Any) -> World:
        made.append(World(request.param, *given, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
