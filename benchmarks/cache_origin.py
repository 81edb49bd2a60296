"""What is cached: an app that answers with 1 KB of JSON at `/pets` and `/pets/{key}`, and counts what it answers.

Rule: every cache has the same before it. The answer is fresh for an hour by its own word, so that caches
that go by the standard keep it as long as those that are told.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import count
from typing import Any

from apigate.asgi import Receive, Scope, Send
from apigate.wsgi import Environ, StartResponse
from benchmarks.measure import Batch

__all__ = [
    "BODY",
    "PETS",
    "TTL",
    "Served",
    "counted",
    "must_pass",
    "must_reach",
    "new_paths",
    "raw_asgi",
    "raw_asgi_fresh",
    "raw_asgi_no_store",
    "raw_wsgi",
    "raw_wsgi_no_store",
]

TTL = 3600
"""Seconds; longer than any run."""

PETS: list[dict[str, Any]] = [
    {"id": number, "name": f"pet number {number}", "kind": "dog", "age": 3.5, "tags": ["small", "brown"]}
    for number in range(12)
]
BODY = json.dumps(PETS, separators=(",", ":")).encode()
FIELDS = {
    "content-type": "application/json",
    "content-length": str(len(BODY)),
    "cache-control": f"max-age={TTL}",
    "etag": '"pets-1"',
}
NO_STORE = FIELDS | {"cache-control": "no-store"}
ASGI_FIELDS, ASGI_NO_STORE = (
    [(name.encode(), fields[name].encode()) for name in fields] for fields in (FIELDS, NO_STORE)
)
WSGI_FIELDS, WSGI_NO_STORE = list(FIELDS.items()), list(NO_STORE.items())


class Served:
    """How often the app was reached; counted by every app of these benchmarks."""

    calls = 0
    fresh = False
    """Whether each answer of an endpoint is made anew: for memory, which must not be shared then."""


async def raw_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest ASGI app that answers so."""
    Served.calls += 1
    await send({"type": "http.response.start", "status": 200, "headers": ASGI_FIELDS.copy()})
    await send({"type": "http.response.body", "body": BODY})


async def raw_asgi_fresh(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, with a body that nobody else has."""
    Served.calls += 1
    await send({"type": "http.response.start", "status": 200, "headers": ASGI_FIELDS.copy()})
    await send({"type": "http.response.body", "body": BODY[:-1] + b"]"})


async def raw_asgi_no_store(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, not to be kept."""
    Served.calls += 1
    await send({"type": "http.response.start", "status": 200, "headers": ASGI_NO_STORE.copy()})
    await send({"type": "http.response.body", "body": BODY})


def raw_wsgi(environ: Environ, start_response: StartResponse) -> tuple[bytes, ...]:
    """The smallest WSGI app that answers so."""
    Served.calls += 1
    start_response("200 OK", WSGI_FIELDS.copy())
    return (BODY,)


def raw_wsgi_no_store(environ: Environ, start_response: StartResponse) -> tuple[bytes, ...]:
    """The same, not to be kept."""
    Served.calls += 1
    start_response("200 OK", WSGI_NO_STORE.copy())
    return (BODY,)


def counted() -> list[dict[str, Any]]:
    """What an endpoint of a framework answers with."""
    Served.calls += 1
    return deepcopy(PETS) if Served.fresh else PETS


def must_pass(batch: Batch) -> Batch:
    """See that none of its requests reaches the app; AssertionError where one does."""
    return _checked(batch, reached=0)


def must_reach(batch: Batch) -> Batch:
    """See that all of its requests reach the app; AssertionError where one does not."""
    return _checked(batch, reached=5)


def _checked(batch: Batch, reached: int) -> Batch:
    before = Served.calls
    batch(5)
    if Served.calls - before != reached:
        raise AssertionError(f"not what is to be timed: of 5 requests {Served.calls - before} reached the app")
    return batch


NUMBERS = count()


def new_paths() -> Iterator[str]:
    """Paths that no request asked for before."""
    return map("/pets/{:08d}".format, NUMBERS)
