"""A cache behind gunicorn with threads, and waitress, asked by real clients."""

import pytest

from tests.caching.clients import ServedCache, ServerContract


@pytest.fixture(params=["gunicorn-gthread", "waitress"], scope="module")
def served(request):
    served = ServedCache(request.param)
    yield served
    served.stop()


class TestWsgiServers(ServerContract):
    """Each server keeps what it has stored from test to test, so a path is of one test alone, or is asked once."""
