"""Servers of web apps, started as their users start them."""

import http.client
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.servers import DEADLINE, ROOT, Server, until

LISTENING = {
    # the options by which each server is told where to listen; and not to wait long for a worker that should end, as
    # some that are told so while they start do not
    "gunicorn": "--bind {address} --graceful-timeout 1",
    # and not to take a worker for hung, and start another, that a busy machine lets answer late
    "uvicorn": "--host 127.0.0.1 --port {port} --timeout-worker-healthcheck 60",
    "hypercorn": "--bind {address}",
    "granian": "--port {port} --workers-kill-timeout 1",
    "daphne": "--port {port}",
    "waitress": "--listen {address}",
    "flask": "run --port {port}",
    "tests.workers.by_hand": "{port}",
}


class WebServer(Server):
    """A server of web apps, which answers when it is made.

    Args:
        line: As on a command line: variables, the server, its options, and last an app by its module here and name.
    """

    def __init__(self, line: str) -> None:
        words = line.split()
        self.asked = dict(words.pop(0).split("=", 1) for word in words[:] if "=" in word and word[0].isupper())
        self.server, *self.options, app = words
        self.module, _, self.app = app.rpartition(":")
        super().__init__()

    def arguments(self) -> Sequence[str]:
        listening = LISTENING[self.server].format(address=f"127.0.0.1:{self.port}", port=self.port).split()
        protocol, _, module = self.module.rpartition(":")
        app = f"{protocol}{protocol and ':'}tests.workers.{module or 'apps'}:{self.app}"
        named = ["--app", app, *listening] if self.server == "flask" else [*listening, *self.options, app]
        return [sys.executable, "-m", self.server, *named]

    def environment(self) -> Mapping[str, str]:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        return {**os.environ, "PYTHONPATH": path, **self.asked}

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", "/", headers={"connection": "close"})
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def kill(self) -> None:
        """End it as its operator would, so that its workers end too."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                super().kill()
                raise
            self.process = None

    def warnings(self) -> list[str]:
        """What it has said of workers and the gateway of its app so far, one line each."""
        said = self.log.read_text().splitlines()
        return [line for line in said if "the whole of it" in line and f"gateway {self.app!r}" in line]

    def await_warnings(self, number: int) -> None:
        """Wait until it has said so that often."""
        until(lambda: len(self.warnings()) >= number, f"{number} warnings")
