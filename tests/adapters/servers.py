"""Real servers, each in a process of its own on a free port of loopback."""

import http.client
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

from tests.adapters.harness import DEADLINE, Fields, named
from tests.adapters.hosts import HOSTS
from tests.adapters.serve import SERVERS

ROOT = Path(__file__).parents[2]


class HttpExchange:
    def __init__(self, port: int, method: str, target: str, fields: Mapping[str, str], body: bytes) -> None:
        self.status = 0
        self.fields: Fields = []
        self.whole = True
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        self._connection.connect()
        self._socket = self._connection.sock
        self._connection.putrequest(method, target, skip_host="host" in fields, skip_accept_encoding=True)
        for name, value in fields.items():
            self._connection.putheader(name, value)
        if body:
            self._connection.putheader("content-length", str(len(body)))
        self._connection.endheaders(body or None)
        self._response: http.client.HTTPResponse | None = None
        try:
            self._response = self._connection.getresponse()
        except http.client.RemoteDisconnected:
            self.whole = False
            self._close()
        else:
            self.status = self._response.status
            self.fields = named(self._response.getheaders())

    def read(self) -> bytes:
        if self._response is None:
            return b""
        try:
            chunk = self._response.read1(1 << 20)
        except (http.client.HTTPException, OSError):
            chunk, self.whole = b"", False
        if not chunk:
            self.whole = self.whole and self._response.length in (None, 0)
            self._close()
        return chunk

    def is_open(self) -> bool:
        """Whether the server has neither sent anything more nor closed the connection."""
        return select.select([self._socket], [], [], 0)[0] == []

    def leave(self) -> None:
        with suppress(OSError):  # it is closed already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
        self._close()

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()
        self._socket.close()


class RealServer:
    """A server around a host, in a process group of its own.

    The port is bound here, so nobody else gets it. Where the server takes sockets, this one listens already; the others
    bind the same port once more.
    """

    def __init__(self, server: str, host: str) -> None:
        self.server, self.host, self.protocol = server, host, HOSTS[host].protocol
        takes_socket = SERVERS[server].takes_socket
        self._home = tempfile.TemporaryDirectory()
        self.log = Path(self._home.name, "log")
        with socket.socket() as listener, self.log.open("wb") as log:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if takes_socket else socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", 0))
            if takes_socket:
                listener.listen(64)
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.adapters.serve", server, host, str(listener.fileno())],
                cwd=ROOT,
                env={**os.environ, "HOME": self._home.name, "PYTHONPATH": os.pathsep.join(["src", "."])},
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                self._wait_until_it_listens()
            except BaseException:
                self.stop()
                raise

    def _wait_until_it_listens(self) -> None:
        deadline = monotonic() + DEADLINE
        while self.process.poll() is None and monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE).close()
            except ConnectionRefusedError:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.01)
            else:
                return
        raise AssertionError(f"{self.server} does not start\n{self.log.read_text()}")

    def open(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> HttpExchange:
        try:
            return HttpExchange(self.port, method, target, fields, body)
        except (http.client.HTTPException, OSError) as error:
            raise AssertionError(f"{self.server} does not answer: {error!r}\n{self.log.read_text()}") from error

    def has_logged(self, text: str) -> bool:
        """Wait for a text in what the server prints."""
        deadline = monotonic() + DEADLINE
        while text not in (log := self.log.read_text()) and monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
        return text in log

    def stop(self) -> None:
        """End the server as its operator would; then whatever is left of it."""
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process.stdin.close()
            self._home.cleanup()
