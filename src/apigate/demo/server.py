"""Serves the demo with uvicorn, on loopback."""

import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from socket import AF_INET, IPPROTO_TCP, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from threading import Thread
from typing import TYPE_CHECKING

from apigate.asgi import ASGIApp
from apigate.core.errors import ConfigurationError

if TYPE_CHECKING:
    import uvicorn

__all__ = ["HOST", "listening", "require_uvicorn", "serve", "served"]

HOST = "127.0.0.1"
"""Where the demo listens."""

_SHUTDOWN = 10.0  # seconds


def require_uvicorn() -> None:
    """See that uvicorn is there, before anything is promised.

    Raises:
        ConfigurationError: It is missing.
    """
    try:
        importlib.import_module("uvicorn")
    except ImportError:
        raise ConfigurationError("uvicorn is missing; install it with: pip install 'apigate[server]'") from None


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


def serve(app: ASGIApp, listener: socket) -> None:
    """Serve an app until Ctrl-C, each request with a line of log."""
    try:
        _server(app, "info").run([listener])
    except KeyboardInterrupt:
        return


@contextmanager
def served(app: ASGIApp, port: int) -> Generator[int]:
    """Serve an app in a thread, as long as the block runs; gives the port.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    server = _server(app, "warning")
    with listening(port) as listener:
        thread = Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(_SHUTDOWN)


def _server(app: ASGIApp, log_level: str) -> "uvicorn.Server":
    import uvicorn

    # There is no proxy in front: with proxy_headers every local client could name an address of its choice.
    return uvicorn.Server(uvicorn.Config(app, log_level=log_level, lifespan="off", ws="none", proxy_headers=False))
