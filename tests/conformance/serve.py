"""Serves one cache around the proxy: `python -m tests.conformance.serve PROTOCOL CACHE DISCONNECT FD PORT`.

PROTOCOL is asgi (uvicorn) or wsgi (waitress); CACHE a control or a profile of apigate; DISCONNECT what the proxy makes
of an origin that drops the connection, exception or 502; FD a listening socket; PORT the origin's. It ends with its
parent.
"""

import os
import socket
import sys
import threading
from typing import Any

from tests.conformance.controls import CONTROLS, around_asgi, around_wsgi
from tests.conformance.gateways import build_apigate
from tests.conformance.proxy import asgi_proxy, wsgi_proxy

THREADS = 64  # more than there are cases under way
KEEP_ALIVE = 60  # seconds; longer than a pause


def end_with_parent() -> None:
    """End once the other end of standard input is closed, however that came about."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def cached(app: Any, cache: str, protocol: str) -> Any:
    """The cache around the app."""
    if cache in CONTROLS:
        return (around_asgi if protocol == "asgi" else around_wsgi)(CONTROLS[cache](), app)
    return build_apigate(app, None, profile=cache, protocol=protocol)


def serve_asgi(app: Any, listener: socket.socket) -> None:
    """Uvicorn, without fields of its own, and with the status that the origin makes up."""
    from uvicorn import Config, Server
    from uvicorn.protocols.http import h11_impl

    h11_impl.STATUS_PHRASES[999] = b"Unknown"
    config = Config(
        app,
        http="h11",
        lifespan="off",
        log_level="warning",
        date_header=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
    )
    Server(config).run(sockets=[listener])


def serve_wsgi(app: Any, listener: socket.socket) -> None:
    """Waitress."""
    from waitress import serve

    serve(app, sockets=[listener], threads=THREADS, channel_timeout=KEEP_ALIVE, ident=None)


if __name__ == "__main__":
    protocol, cache, disconnect, number, port = sys.argv[1:]
    end_with_parent()
    proxy = (asgi_proxy if protocol == "asgi" else wsgi_proxy)(int(port), raises=disconnect == "exception")
    listening = socket.socket(fileno=int(number))
    (serve_asgi if protocol == "asgi" else serve_wsgi)(cached(proxy, cache, protocol), listening)
