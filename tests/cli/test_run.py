"""`apigate run` and `apigate demo` as processes: hit over loopback, limited, stopped."""

import argparse
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from time import monotonic

import pytest

from apigate import cli

URL = re.compile(r"http://\S+?:(\d+)")


@pytest.fixture
def start(shop) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts a command that serves, and tells the process and its port."""
    started: list[subprocess.Popen[str]] = []

    def start_command(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-m", "apigate", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        assert process.stdout
        for line in process.stdout:
            if found := URL.search(line):
                return process, int(found[1])
        raise AssertionError(f"it ended with {process.wait()}")

    yield start_command
    for process in started:
        process.kill()
        process.communicate()


def get(port: int, path: str = "/pets", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("interface", "stop"), [("asgi", signal.SIGINT), ("wsgi", signal.SIGTERM)], ids=["asgi", "wsgi"]
)
def test_run_serves_limits_and_stops(start, interface, stop):
    process, port = start("run", f"shop:{interface}_app", "--config", "apigate.toml")
    seen = [get(port, **{"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(4)]
    assert seen[:3] == [(200, f"{interface} /pets ip:127.0.0.1")] * 3
    assert seen[3][0] == 429
    assert '"violated-policies": ["client"]' in seen[3][1]
    process.send_signal(stop)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_run_has_one_process_whatever_the_environment_asks_for(start, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    process, port = start("run", "shop:asgi_app", "--config", "apigate.toml")
    assert [get(port)[0] for _ in range(4)] == [200, 200, 200, 429]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert "WEB_CONCURRENCY" not in output


def test_run_at_a_fixed_stage(start):
    _, port = start("run", "shop:wsgi_app", "--config", "stages.toml", "--stage", "beta")
    assert [get(port)[0], get(port)[0]] == [200, 429]


def test_run_with_the_interface_said(start):
    _, port = start("run", "shop:anything", "--config", "apigate.toml", "--interface", "wsgi")
    assert get(port)[0] == 500  # it is no app, but it was asked as one


def test_demo_serves_until_it_is_stopped(start):
    process, port = start("demo")
    begun, admitted = monotonic(), 0
    while (status := get(port, "/beta/pets", Host="anything")[0]) == 200 and admitted < 100:
        admitted += 1
    assert status == 429
    assert 8 <= admitted <= 8 + (monotonic() - begun) / 2  # a token comes back in 2 s
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "429 Too Many Requests" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("name", "interface"),
    [
        ("asgi_app", "asgi"),
        ("asgi_object", "asgi"),
        ("old_asgi", "asgi"),
        ("gated_asgi", "asgi"),
        ("wsgi_app", "wsgi"),
        ("wsgi_object", "wsgi"),
        ("gated_wsgi", "wsgi"),
        ("Namespace.app", "wsgi"),
    ],
)
def test_interface_is_told_by_the_app(run, monkeypatch, name, interface):
    served = []

    def serve(app: object, gateway: object, arguments: argparse.Namespace) -> int:
        served.append(arguments.app)
        return 0

    monkeypatch.setattr(cli, f"_serve_{interface}", serve)
    assert run("run", f"shop:{name}", "--config", "apigate.toml").status == 0
    assert served == [f"shop:{name}"]


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_an_app_with_a_gate_of_its_own_is_told_of(run, monkeypatch, interface):
    monkeypatch.setattr(cli, f"_serve_{interface}", lambda *_: 0)
    assert run("run", f"shop:{interface}_app", "--config", "apigate.toml") == (0, "", "")
    status, out, err = run("run", f"shop:gated_{interface}", "--config", "apigate.toml")
    assert (status, out) == (0, "")
    assert err == (
        f"apigate: shop:gated_{interface} has a gate of its own, of the gateway 'shop'; requests pass that of "
        f"apigate.toml first, and then that too\n"
    )
