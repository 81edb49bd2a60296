"""The tour through the demo: real requests, and a verdict that can be relied on."""

import subprocess
import sys
import tomllib
from socket import create_server

import pytest

from apigate import Gateway
from apigate.asgi import GatewayMiddleware
from apigate.demo import settings, tour
from apigate.demo.report import report
from apigate.demo.server import listening, served
from apigate.demo.settings import CONFIGURATION, configuration, demo_gateway
from apigate.demo.store import PetStore
from apigate.demo.tour import Outcome, Scenario, Tour, scenarios, take_tour

LEVELS = ("method", "client-method", "client", "stage", "global")


def gateway_with(old: str, new: str) -> Gateway:
    """The demo's gateway with one setting changed."""
    assert old in CONFIGURATION
    return Gateway.from_dict(tomllib.loads(configuration("day").replace(old, new)))


def failed(taken: Tour) -> list[str]:
    return [outcome.scenario.level for outcome in taken.outcomes if not outcome.ok]


def test_once_as_a_process_goes_as_configured():
    ended = subprocess.run(
        [sys.executable, "-m", "apigate", "demo", "--once"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "8 of 8 scenarios went as configured" in ended.stdout or "1 was skipped" in ended.stdout
    assert "HTTP/1.1 429 Too Many Requests" in ended.stdout
    assert "\033" not in ended.stdout
    assert ended.stdout.isascii()
    assert max(map(len, ended.stdout.splitlines())) <= 120


def test_every_level_is_seen_refusing(run):
    status, out, err = run("demo", "--once")
    assert (status, err) == (0, "")
    for level in LEVELS:
        assert f"  {level}  " in out


@pytest.mark.parametrize(
    ("old", "new", "levels"),
    [
        ('burst=3"', 'burst=4"', ["method", "client"]),
        ('burst=2"', 'burst=1"', ["client-method", "client"]),
        ("burst=20", "burst=21", ["client", "global"]),
        ("burst=8", "burst=9", ["stage", "global"]),
        ("burst=40", "burst=41", ["global"]),
        ("{ exempt = true }", "{}", [""]),
        ("burst=25", "burst=5", ["client", "", "global"]),
    ],
)
def test_other_limits_are_noticed(old, new, levels):
    taken = take_tour(gateway_with(old, new))
    assert failed(taken) == levels
    assert not taken.ok


def test_gateway_that_does_not_do_as_configured_exits_with_1(run, monkeypatch):
    monkeypatch.setattr(settings, "demo_gateway", lambda period: gateway_with("burst=8", "burst=9"))
    status, out, _ = run("demo", "--once")
    assert status == 1
    assert "stage        " in out
    assert "FAILED" in out
    assert "6 of 8 scenarios went as configured" in out


def test_empty_gateway_fails_and_is_reported():
    taken = take_tour(Gateway())
    assert failed(taken) == [scenario.level for scenario in scenarios()]  # its paths name stages that are not there
    assert "FAILED" in report(taken)


def test_gateway_that_counts_wrong_is_noticed(monkeypatch):
    gateway = demo_gateway("day")
    taken = take_tour(gateway)
    assert taken.ok
    miscounted = taken._replace(stats={**taken.stats, "dev": {"*": {"admitted": 6}}})
    assert not miscounted.ok
    assert "these are not the numbers that the clients saw" in report(miscounted)


def test_machine_with_one_address_skips_a_row_visibly(monkeypatch):
    monkeypatch.setattr(tour, "_is_ours", lambda address: False)
    taken = take_tour(demo_gateway("day"))
    assert taken.ok
    page = report(taken)
    assert "a second client, meanwhile      skipped: this machine does not have 127.0.0.2" in page
    assert "7 of 7 scenarios went as configured, 1 was skipped" in page


def test_an_address_of_another_machine_is_not_ours():
    assert tour._is_ours("127.0.0.1")
    assert not tour._is_ours("192.0.2.1")


def test_server_that_does_not_answer_is_a_failure():
    with create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = tour._outcome(port, scenarios()[0])
    assert not outcome.ok
    assert "ConnectionRefusedError" in report(Tour([outcome], {}, None))


def test_refusal_without_retry_after_is_a_failure():
    body = b'{"violated-policies": ["stage"]}'
    scenario = Scenario("one too many", "GET /", 1, 0, "stage", "")
    good = tour.Answer(429, "Too Many Requests", [("Retry-After", "3")], body)
    assert Outcome(scenario, [good]).ok
    assert not Outcome(scenario, [good._replace(fields=[])]).ok
    assert not Outcome(scenario, [good._replace(status=503)]).ok


def test_verdicts_have_a_colour_on_a_terminal_only():
    taken = Tour([tour.Outcome(scenarios()[0], [])], {}, None)
    assert "\033[31mFAILED\033[0m" in report(taken, colour=True)
    assert "\033" not in report(taken)


@pytest.mark.parametrize("period", ["minute", "day"])
def test_configuration_is_one_that_lint_finds_nothing_in(period):
    assert demo_gateway(period).lint() == []


def test_comments_stay_in_one_column():
    columns = {line.index(" # ") for line in configuration("day").splitlines() if " # " in line}
    assert len(columns) == 1


def test_invitation_names_where_it_listens():
    assert settings.invitation("http://127.0.0.1:1234").count("http://127.0.0.1:1234") == 10


@pytest.mark.parametrize("arguments", [("demo",), ("demo", "--once")])
def test_port_that_is_taken_is_one_line(run, arguments):
    with create_server(("127.0.0.1", 0)) as listener:
        status, _, err = run(*arguments, "--port", str(listener.getsockname()[1]))
    assert status == 2
    assert err.startswith("apigate: --port ")
    assert err.count("\n") == 1


def test_server_is_gone_after_the_block():
    with served(GatewayMiddleware(PetStore(), demo_gateway()), 0) as port:
        assert tour._outcome(port, scenarios()[0]).ok
    listening(port).close()
    assert tour._outcome(port, scenarios()[0]).failure


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "/pets", b"", 200),
        ("HEAD", "/pets/1", b"", 200),
        ("GET", "/pets/99", b"", 404),
        ("DELETE", "/pets", b"", 405),
        ("POST", "/pets", b'{"name": "Bella"}', 201),
        ("POST", "/pets", b"[]", 400),
        ("POST", "/pets", b"{}", 400),
        ("POST", "/pets", b"\xff", 400),
    ],
)
def test_pet_store(verb, path, body, status):
    assert PetStore().answer(verb, path, body)[0] == status
