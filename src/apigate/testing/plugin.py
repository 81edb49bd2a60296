"""The pytest plugin: a fixture for the clock.

Enable it in the `conftest.py` beside your `pyproject.toml`, or in a single test module:

    pytest_plugins = ["apigate.testing.plugin"]
"""

import pytest

from apigate.testing.clock import FakeClock

__all__ = ["fake_clock"]


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands still until the test moves it; hand it to what you build, as `clock=fake_clock`."""
    return FakeClock()
