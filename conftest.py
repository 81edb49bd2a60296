"""What the doctests of docstrings may name without importing it."""

from typing import Any

import pytest

import apigate


@pytest.fixture(autouse=True)
def public_names(doctest_namespace: dict[str, Any]) -> None:
    """The public names, as after `from apigate import *`."""
    doctest_namespace.update({name: getattr(apigate, name) for name in apigate.__all__})
