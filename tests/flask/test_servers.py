"""The same promises over real connections: gunicorn and waitress, each in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0
SERVERS = {
    "gunicorn": ["-m", "gunicorn", "--threads=4", "--bind=fd://{}", "tests.flask.live:app"],
    "waitress": ["-m", "tests.flask.live", "{}"],
}


@contextmanager
def served(server):
    """The port of a server around `tests.flask.live`; it listens already, so that the first request just waits."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        process = subprocess.Popen(
            [sys.executable, *[part.format(listener.fileno()) for part in SERVERS[server]]],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield listener.getsockname()[1]
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE)


def ask(port, target, verb="GET", **fields):
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.putrequest(verb, target)  # the target as it is
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("server", SERVERS)
def test_a_limit_holds_over_a_connection_however_the_request_is_written(server):
    with served(server) as port:
        assert [ask(port, "/things/7")[::2] for _ in range(2)] == [(200, b"GET /things/{n} 7")] * 2
        status, fields, body = ask(port, "/things/7", Origin="https://shop.example")
        assert status == 429
        assert 20 < int(fields["Retry-After"]) <= 30  # some of it has passed since the first
        assert fields["Access-Control-Allow-Origin"] in ("*", "https://shop.example")  # by release of Flask-CORS
        assert b'"violated-policies": ["client-method"]' in body
        detours = ["/things/8", "//things/8", "/%74hings/8", "/things//8", "/things/8/", "/things/%38", "/things/8?a=b"]
        detours += [f"http://127.0.0.1:{port}/things/8", "/x/../things/8", "/things/08"]
        for target in detours:
            for verb in ("GET", "HEAD"):
                assert ask(port, target, verb)[0] in (308, 400, 404, 429), f"{verb} {target}"
        status, _, body = ask(port, "/numbers")
        assert (status, body) == (200, b"0 GET /numbers\n1 GET /numbers\n2 GET /numbers\n")
