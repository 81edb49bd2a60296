"""Serves the demo on loopback: an ASGI app with uvicorn, a WSGI app with waitress."""

import importlib
import logging
import os
import signal
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from socket import AF_INET, IPPROTO_TCP, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from threading import Thread
from typing import Any, Protocol, TypeAlias, cast, final

from apigate.asgi import ASGIApp
from apigate.core.errors import ConfigurationError
from apigate.wsgi import Environ, StartResponse, WSGIApp

__all__ = ["HOST", "PATIENCE", "App", "Server", "listening", "serve", "served"]

HOST = "127.0.0.1"
"""Where the demo listens."""

PATIENCE = 60
"""Seconds for a start, an answer, or the next request on a connection: only what hangs takes so long."""

App: TypeAlias = ASGIApp | WSGIApp

_SHUTDOWN = 10.0  # seconds
_LOOK = 0.1  # seconds after which waitress is asked again whether it was stopped; it has no call to stop it


class Server(Protocol):
    """One that has been given an app and a listening socket."""

    def run(self) -> None:
        """Serve, until it is stopped or interrupted."""
        ...

    def stop(self) -> None:
        """Have `run` end; called from another thread."""
        ...


def listening(port: int) -> socket:
    """A listening socket; connections wait in it until a server is up.

    Args:
        port: The port, 0 for any that is free.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)  # asyncio wants TCP by name, else Nagle costs 40 ms a response
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(f"--port {port}: {error}; choose another one, or 0 for any that is free") from error
    return listener


def serve(app: App, listener: socket, server: str = "uvicorn") -> None:
    """Serve an app until Ctrl-C or SIGTERM, each request with a line of log."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn has handlers of its own
    try:
        _SERVERS[server](app, listener, log=True).run()
    except KeyboardInterrupt:
        return


@contextmanager
def served(app: App, port: int, server: str = "uvicorn") -> Generator[int]:
    """Serve an app in a thread, as long as the block runs; gives the port.

    Args:
        app: The app.
        port: The port, 0 for any that is free.
        server: What serves it: `uvicorn`, or `waitress` for a WSGI app.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    with listening(port) as listener:
        running = _SERVERS[server](app, listener, log=False)
        thread = Thread(target=running.run, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.stop()
            thread.join(_SHUTDOWN)


@final
class _Uvicorn:
    def __init__(self, app: App, listener: socket, *, log: bool) -> None:
        import uvicorn

        # There is no proxy in front: with proxy_headers every local client could name an address of its choice.
        level = "info" if log else "warning"
        config = uvicorn.Config(
            app, log_level=level, lifespan="off", ws="none", proxy_headers=False, timeout_keep_alive=PATIENCE
        )
        self._server = uvicorn.Server(config)
        self._listener = listener

    def run(self) -> None:
        self._server.run([self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


@final
class _Waitress:
    def __init__(self, app: App, listener: socket, *, log: bool) -> None:
        waitress: Any = importlib.import_module("waitress.server")  # Any: it has no types
        if log:
            logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
            app = _logged(cast("WSGIApp", app))
        # It warns of a request that comes before its threads do.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._sockets: dict[int, Any] = {}
        self._server = waitress.create_server(app, map=self._sockets, sockets=[listener])
        self._loop = waitress.wasyncore
        self._stopped = False

    def run(self) -> None:
        try:
            while not self._stopped:
                self._loop.loop(_LOOK, map=self._sockets, count=1)
        finally:  # in this order: until they have ended, its threads wake the loop through one of the sockets
            self._server.task_dispatcher.shutdown()
            self._loop.close_all(self._sockets)

    def stop(self) -> None:
        self._stopped = True


_SERVERS: dict[str, Callable[..., Server]] = {"uvicorn": _Uvicorn, "waitress": _Waitress}


def _logged(app: WSGIApp) -> WSGIApp:
    """The app, with a line of log for each request; waitress writes none."""
    log = logging.getLogger("waitress")

    def logged(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"

        def begin(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:  # Any: as WSGI has it
            log.info('%s - "%s" %s', environ["REMOTE_ADDR"], request, status)
            return start_response(status, headers, exc_info)

        return app(environ, begin)

    return logged
