"""Servers as programs start them: `python -m tests.workers.by_hand PORT HOW APP`; each HOW has its own APP."""

import multiprocessing
import signal
import socket
import sys

from tests.workers import apps

HOST = "127.0.0.1"


def granian(port: int, workers: int) -> None:
    """Workers that are spawned, as on macOS and Windows: they share no stack with their parent."""
    from granian import Granian

    multiprocessing.set_start_method("spawn")
    Granian("tests.workers.apps:asgi_app", port=port, interface="asgi", workers=workers).serve()


def werkzeug(port: int) -> None:
    """A process for each request."""
    from werkzeug.serving import run_simple

    run_simple(HOST, port, apps.wsgi_app, processes=2)


def hypercorn(port: int) -> None:
    """One process, whatever the configuration says of workers."""
    import asyncio

    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.workers = 4
    asyncio.run(serve(apps.wsgi_app, config, mode="wsgi"))


def serve(listener: socket.socket) -> None:
    """One of the processes of `prefork`."""
    from uvicorn import Config, Server

    Server(Config(apps.asgi_app)).run(sockets=[listener])


def prefork(port: int) -> None:
    """Two children, forked after the app was made."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=serve, args=(listener,)) for _ in range(2)]
        for child in children:
            child.start()

        def end(*_: object) -> None:
            for child in children:
                child.terminate()

        signal.signal(signal.SIGTERM, end)
        for child in children:
            child.join()


HOW = {
    "granian-1": lambda port: granian(port, 1),
    "granian-3": lambda port: granian(port, 3),
    "werkzeug": werkzeug,
    "hypercorn": hypercorn,
    "prefork": prefork,
}

if __name__ == "__main__":
    _, port, how, _ = sys.argv
    HOW[how](int(port))
