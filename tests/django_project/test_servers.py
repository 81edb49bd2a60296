"""The gate in a project behind real servers, each in a process of its own."""

import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import django
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "tests.django_project.serving"
SERVERS = {
    "gunicorn": ["gunicorn", "--worker-class=gthread", "--threads=4", "--bind=fd://{fd}", f"{PROJECT}:wsgi"],
    "uvicorn": ["uvicorn", "--lifespan=off", "--fd={fd}", f"{PROJECT}:asgi"],
}


@pytest.fixture(params=SERVERS)
def port(request, tmp_path):
    """A server's port. The socket listens already, so a request waits until the server is up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name, *options = [each.format(fd=listener.fileno()) for each in SERVERS[request.param]]
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", name, *options],
                cwd=ROOT,
                env={**environment, "PYTHONPATH": os.pathsep.join(["src", "."]), "HOME": str(tmp_path)},
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )
        try:
            yield listener.getsockname()[1]
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def connected(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def fetch(port, verb, target):
    connection = connected(port)
    try:
        connection.request(verb, target)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def statuses(port, *targets):
    return [fetch(port, "GET", target)[0] for target in targets]


def test_project_behind_a_server(port):
    assert statuses(port, "/limited", "/limited", "/limited") == [200, 200, 429]
    status, fields, body = fetch(port, "HEAD", "/limited")
    assert (status, body) == (429, b"")
    assert int({name.lower(): value for name, value in fields.items()}["retry-after"]) <= 60
    assert statuses(port, "/async", "/async", "/async") == [200, 200, 429]
    assert statuses(port, "/marked/a", "/marked/%2e%2e", "/marked/b", "/marked/c", "/Loud") == [200, 400, 200, 429, 429]
    assert fetch(port, "GET", "/file")[2] == b"x" * 300_000
    assert statuses(port, "/file", "/nowhere", "/limited") == [200, 404, 429]


def test_head_leaves_the_connection_in_order(port):
    assert statuses(port, "/limited", "/limited") == [200, 200]
    connection = connected(port)
    for verb in ("HEAD", "GET", "HEAD", "GET"):
        connection.request(verb, "/limited")
        response = connection.getresponse()
        body = response.read()
        assert (response.status, bool(body)) == (429, verb == "GET")
    connection.close()


@pytest.mark.skipif(django.VERSION < (5, 0), reason="before 5.0, Django does not notice that a client has left")
@pytest.mark.parametrize("port", ["uvicorn"], indirect=True)  # a WSGI server learns of it only when it writes
def test_client_that_leaves_frees_its_slot(port):
    connection = connected(port)
    connection.request("GET", "/one")
    response = connection.getresponse()
    assert response.status == 200
    assert response.read(5) == b"begun"
    assert fetch(port, "GET", "/one")[0] == 503
    connection.sock.close()
    response.close()
    deadline = monotonic() + 60
    while first_chunk(port, "/one")[0] != 200:  # until the server has noticed
        assert monotonic() < deadline, "the slot is still taken"


def first_chunk(port, target):
    connection = connected(port)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read(5)
    finally:
        connection.close()
