"""Runs one server around one host: `python -m tests.adapters.serve SERVER HOST FD`.

FD is a socket that the test has bound to a free port of loopback; where a server takes sockets, it listens already. All
settings are the server's own, but for those that a test cannot do without.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tests.adapters.hosts import HOSTS, Host

THREADS = 8  # more than a test has requests under way


def uvicorn(host: Host, listener: socket.socket, *, http: str, websockets: str) -> None:
    from uvicorn import Config, Server

    lifespan = "on" if host.lifespan else "off"
    Server(Config(host.make(), http=http, ws=websockets, lifespan=lifespan, access_log=False)).run(sockets=[listener])


def hypercorn(host: Host, listener: socket.socket) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    asyncio.run(serve(host.make(), config))


def granian(host: Host, listener: socket.socket) -> None:
    from granian import Granian
    from granian.constants import Interfaces

    if host.protocol == "wsgi":
        interface, threads = Interfaces.WSGI, THREADS
    else:
        interface, threads = Interfaces.ASGI if host.lifespan else Interfaces.ASGINL, None
    port = listener.getsockname()[1]
    Granian(host.factory, port=port, interface=interface, factory=True, blocking_threads=threads).serve()


def daphne(host: Host, listener: socket.socket) -> None:
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server

    logging.basicConfig(level=logging.INFO)
    Server(host.make(), build_endpoint_description_strings(file_descriptor=listener.fileno())).run()


def gunicorn(host: Host, listener: socket.socket, *, worker: str) -> None:
    from gunicorn.app.wsgiapp import run

    options = ["--bind", f"fd://{listener.fileno()}", "--workers", "1", "--worker-class", worker]
    threads = ["--threads", str(THREADS)] if worker == "gthread" else []
    sys.argv[1:] = [*options, *threads, f"{host.factory}()"]
    run()


def waitress(host: Host, listener: socket.socket) -> None:
    from waitress import serve

    serve(host.make(), sockets=[listener], threads=THREADS)


class Server(NamedTuple):
    """How to run a server."""

    protocol: str
    run: Callable[[Host, socket.socket], None]
    takes_socket: bool = True


SERVERS: dict[str, Server] = {
    "uvicorn-h11": Server("asgi", partial(uvicorn, http="h11", websockets="websockets")),
    "uvicorn-httptools": Server("asgi", partial(uvicorn, http="httptools", websockets="websockets-sansio")),
    "hypercorn": Server("asgi", hypercorn),
    "granian-asgi": Server("asgi", granian, takes_socket=False),
    "daphne": Server("asgi", daphne),
    "gunicorn-sync": Server("wsgi", partial(gunicorn, worker="sync")),
    "gunicorn-gthread": Server("wsgi", partial(gunicorn, worker="gthread")),
    "granian-wsgi": Server("wsgi", granian, takes_socket=False),
    "waitress": Server("wsgi", waitress),
}


def end_with_parent() -> None:
    """Kill this server and all its workers once the test session is gone, however that came about."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written: this returns when the other end is closed
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    server, host, number = sys.argv[1:]
    end_with_parent()
    SERVERS[server].run(HOSTS[host], socket.socket(fileno=int(number)))
