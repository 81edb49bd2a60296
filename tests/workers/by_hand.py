"""Servers as programs start them: `python -m tests.workers.by_hand PORT HOW APP`, APP being one of `apps.py`."""

import multiprocessing
import signal
import socket
import sys
from functools import partial

from tests.workers import apps

HOST = "127.0.0.1"


def granian(port: int, app: str, workers: int) -> None:
    """Workers that are spawned, as on macOS and Windows: they share no stack with their parent."""
    from granian import Granian

    multiprocessing.set_start_method("spawn")
    interface = app.partition("_")[0]
    Granian(
        f"tests.workers.apps:{app}", port=port, interface=interface, workers=workers, workers_kill_timeout=1
    ).serve()


def werkzeug(port: int, app: str) -> None:
    """A process for each request."""
    from werkzeug.serving import run_simple

    run_simple(HOST, port, getattr(apps, app), processes=2)


def hypercorn(port: int, app: str) -> None:
    """One process, whatever the configuration says of workers."""
    import asyncio

    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.workers = 4
    asyncio.run(serve(getattr(apps, app), config, mode="wsgi"))


def serve(listener: socket.socket, app: str) -> None:
    """One of the processes of `prefork`."""
    from uvicorn import Config, Server

    Server(Config(getattr(apps, app))).run(sockets=[listener])


def prefork(port: int, app: str) -> None:
    """Two children, forked after the app was made."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=serve, args=(listener, app)) for _ in range(2)]
        for child in children:
            child.start()

        def end(*_: object) -> None:
            for child in children:
                child.terminate()

        signal.signal(signal.SIGTERM, end)
        for child in children:
            child.join()


def runserver(port: int, app: str) -> None:
    """Django's development server, whose requests and app are of a thread of its own, and of a child process."""
    from django.conf import settings
    from django.core.management import execute_from_command_line
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        DEBUG=True,
        SECRET_KEY="for a test",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(path("", lambda _: HttpResponse("ok")),),
        MIDDLEWARE=["apigate.django.GatewayMiddleware"],
        APIGATE={"NAME": app, "THROTTLE": "1000/second"},
    )
    execute_from_command_line(["manage.py", "runserver", str(port)])


HOW = {
    "granian-1": partial(granian, workers=1),
    "granian-3": partial(granian, workers=3),
    "runserver": runserver,
    "werkzeug": werkzeug,
    "hypercorn": hypercorn,
    "prefork": prefork,
}

if __name__ == "__main__":
    _, port, how, app = sys.argv
    HOW[how](int(port), app.rpartition(":")[2])
