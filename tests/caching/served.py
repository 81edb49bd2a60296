"""Runs an app with a cache: `python -m tests.caching.served SERVER FD`, SERVER of `tests.adapters.serve`.

Paths: /whole answers with a validator; /fresh without; /slow when 19 others wait; /long streams slowly, so that
its client may leave within; /runs tells how often each was asked, and is not cached. It ends with its parent.
"""

import asyncio
import json
import socket
import sys
import threading
from collections import Counter
from time import monotonic, sleep

from apigate import CachePolicy, Gateway, Method, ResponseCache, asgi, wsgi
from tests.adapters.hosts import Host
from tests.adapters.serve import SERVERS, end_with_parent

CROWD = 20
CHUNK = b"x" * 65_536
CHUNKS = 12  # below max_item_bytes, and more than the sockets between take
FIELDS = {
    "/whole": [("content-type", "text/plain"), ("cache-control", "max-age=3600"), ("etag", '"one"')],
    "/fresh": [("content-type", "text/plain"), ("cache-control", "max-age=3600")],
    "/slow": [("content-type", "text/plain"), ("cache-control", "max-age=3600")],
    "/long": [("content-type", "text/plain"), ("cache-control", "max-age=3600")],
    "/runs": [("content-type", "application/json")],
}

runs: Counter[str] = Counter()
_lock = threading.Lock()
cache = ResponseCache()
gateway = Gateway(cache=cache, methods={"*": Method(cache=CachePolicy(wait=60))})


def begun(path: str) -> bytes:
    """Count a run; a short answer."""
    with _lock:
        runs[path] += 1
        number = runs[path]
    return json.dumps(runs).encode() if path == "/runs" else f"run {number} of {path}".encode()


def is_crowded() -> bool:
    """Whether all others wait."""
    return sum(len(flight.waiting) for flight in list(cache.flights._board.flights.values())) >= CROWD - 1


async def asgi_app(scope, receive, send):
    """The app for ASGI."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]
    body = begun(path)
    deadline = monotonic() + 45
    while path == "/slow" and not is_crowded() and monotonic() < deadline:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.005)
    fields = [(name.encode(), value.encode()) for name, value in FIELDS[path]]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for _ in range(CHUNKS if path == "/long" else 0):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def wsgi_app(environ, start_response):
    """The app for WSGI."""
    path = environ["PATH_INFO"]
    body = begun(path)
    deadline = monotonic() + 45
    while path == "/slow" and not is_crowded() and monotonic() < deadline:
        sleep(0.005)
    start_response("200 OK", list(FIELDS[path]))
    return streamed(body) if path == "/long" else [body]


def streamed(body):
    """A long answer."""
    for _ in range(CHUNKS):
        yield CHUNK
        sleep(0.02)
    yield body


def asgi_host():
    """The app behind its gateway."""
    return asgi.GatewayMiddleware(asgi_app, gateway)


def wsgi_host():
    """The app behind its gateway."""
    return wsgi.GatewayMiddleware(wsgi_app, gateway)


CACHED = {
    "asgi": Host("asgi", "tests.caching.served:asgi_host", lifespan=True),
    "wsgi": Host("wsgi", "tests.caching.served:wsgi_host"),
}

if __name__ == "__main__":
    server, number = sys.argv[1:]
    end_with_parent()
    listener = socket.socket(fileno=int(number))
    running = SERVERS[server]
    import tests.adapters.serve as serving

    serving.THREADS = CROWD + 4
    running.run(CACHED[running.protocol], listener)
