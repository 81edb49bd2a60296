"""What the oldest FastAPI and its Starlette warn of by themselves; elsewhere each warning is an error."""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # FastAPI 0.100 uses what Pydantic has deprecated since
    import fastapi

OLDEST = [
    "ignore:The '.*' attribute with value:UserWarning",  # it makes fields in a way that Pydantic warns of since
    "ignore:Exception ignored in.*MemoryObject:pytest.PytestUnraisableExceptionWarning",  # BaseHTTPMiddleware of
    # Starlette 0.27 leaves a stream open when the app raises
]


def pytest_collection_modifyitems(items):
    if not fastapi.__version__.startswith("0.100."):
        return
    for item in items:
        for filtered in OLDEST:
            item.add_marker(pytest.mark.filterwarnings(filtered))
