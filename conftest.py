"""What the doctests of docstrings may name without importing it, and settings for those of the Django adapter."""

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

import apigate
from tests.strategies import UNHURRIED

# Collecting doctests looks at every name of a module; Django's `settings` must have been configured by then.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_settings")

# What asks for several workers where the tests run; the gateways of tests would all be warned of it.
for asking in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
    os.environ.pop(asking, None)

settings.register_profile("unhurried", UNHURRIED)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Look for garbage in what tests make, and not time and again in twelve thousand tests, which all stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def public_names(doctest_namespace: dict[str, Any]) -> None:
    """The public names, as after `from apigate import *`, and Flask's."""
    from flask import Flask

    doctest_namespace.update({name: getattr(apigate, name) for name in apigate.__all__})
    doctest_namespace["Flask"] = Flask


@pytest.fixture
def restless_interpreter() -> Iterator[None]:
    """Threads that take turns all the time: a switch every 5 ms, as by default, hides nearly every race."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
