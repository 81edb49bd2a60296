"""What real clients see of a cache behind a real server; the tests of each kind of server say which."""

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from tests.caching.served import CHUNK, CHUNKS, CROWD

__all__ = ["Reply", "ServedCache", "ServerContract"]

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0


class Reply(NamedTuple):
    """A response."""

    status: int
    fields: dict[str, str]
    body: bytes


class ServedCache:
    """A server in a process of its own, on a free port of loopback."""

    def __init__(self, server: str) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.caching.served", server, str(listener.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it as its operator would."""
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()

    def get(self, path: str, fields: dict[str, str] | None = None, method: str = "GET") -> Reply:
        """Ask for something."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, headers=fields or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def leave_within(self, path: str) -> None:
        """Ask, take the first bytes, and go with a reset."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def runs(self) -> dict[str, int]:
        """How often the app was asked for each path."""
        return json.loads(self.get("/runs").body)


class ServerContract:
    """Derive a class with a fixture `served`, which gives a `ServedCache`."""

    def test_a_hit_is_the_same_response_with_an_age(self, served):
        first, second = served.get("/fresh"), served.get("/fresh")
        assert first.body == second.body == b"run 1 of /fresh"
        assert "age" not in first.fields
        assert 0 <= int(second.fields["age"]) < 60
        assert "; hit" in second.fields["cache-status"]
        assert served.get("/fresh", method="HEAD").body == b""
        assert served.runs()["/fresh"] == 1

    def test_who_has_it_is_told_so(self, served):
        served.get("/whole")
        reply = served.get("/whole", {"if-none-match": 'W/"one"'})
        assert (reply.status, reply.body) == (304, b"")
        assert reply.fields["etag"] == '"one"'
        assert served.runs()["/whole"] == 1

    def test_a_range_is_cut_from_what_is_stored(self, served):
        whole = served.get("/whole").body
        reply = served.get("/whole", {"range": "bytes=4-6"})
        assert (reply.status, reply.body) == (206, whole[4:7])
        assert reply.fields["content-range"] == f"bytes 4-6/{len(whole)}"
        assert served.get("/whole", {"range": "bytes=99-"}).status == 416
        assert served.runs()["/whole"] == 1

    def test_twenty_clients_at_once_have_the_app_asked_once(self, served):
        with ThreadPoolExecutor(CROWD) as pool:
            replies = list(pool.map(served.get, ["/slow"] * CROWD))
        assert {(reply.status, reply.body) for reply in replies} == {(200, b"run 1 of /slow")}
        assert served.runs()["/slow"] == 1

    def test_a_client_that_leaves_within_the_body_poisons_nothing(self, served):
        served.leave_within("/long")
        reply = served.get("/long")
        assert reply.body[: len(CHUNK) * CHUNKS] == CHUNK * CHUNKS
        number = reply.body[len(CHUNK) * CHUNKS :]
        assert number in (b"run 1 of /long", b"run 2 of /long")
        deadline = monotonic() + DEADLINE
        while "; hit" not in (again := served.get("/long")).fields["cache-status"]:
            assert monotonic() < deadline
            sleep(0.05)
        assert again.body[:-1] == reply.body[:-1]
        assert served.runs()["/long"] <= 2
