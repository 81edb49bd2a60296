"""One server for `servers`, in a process of its own: `python -m benchmarks.serve SERVER MODULE APP REFUSE FD`.

SERVER is uvicorn or gunicorn, each with one worker and no access log, else as it comes. REFUSE is 1
for an app that is to refuse. FD is the socket that it listens on already.
"""

import socket
import sys
from importlib import import_module
from typing import Any


def main(server: str, module: str, name: str, refuse: str, fd: str) -> None:
    """Make the app and serve it until a signal comes."""
    make = getattr(import_module(module), name)
    app = make(refuse=True) if refuse == "1" else make()
    {"uvicorn": uvicorn, "gunicorn": gunicorn}[server](app, int(fd))


def uvicorn(app: Any, fd: int) -> None:
    """With uvloop and httptools where they are installed, for that is what uvicorn chooses then."""
    from uvicorn import Config, Server

    config = Config(app, lifespan="off", access_log=False, log_level="warning")
    Server(config).run(sockets=[socket.socket(fileno=fd)])


def gunicorn(app: Any, fd: int) -> None:
    """One sync worker."""
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn is not typed
        def load_config(self) -> None:
            self.cfg.set("bind", f"fd://{fd}")
            self.cfg.set("loglevel", "warning")
            if "control_socket_disable" in self.cfg.settings:
                self.cfg.set("control_socket_disable", value=True)

        def load(self) -> Any:
            return app

    Application().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
