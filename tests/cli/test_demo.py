"""The tour through the demo: real requests, and a verdict that can be relied on."""

import json
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from socket import create_server

import pytest

from apigate import Gateway
from apigate.demo import settings, tour
from apigate.demo.cached import LOOKS, Look, Seen, TourClock, look_at_cache
from apigate.demo.frameworks import FRAMEWORKS, PLAIN, Framework
from apigate.demo.report import report
from apigate.demo.server import listening, served
from apigate.demo.settings import CONFIGURATION, configuration, demo_gateway
from apigate.demo.store import PetStore
from apigate.demo.tour import Outcome, Scenario, Tour, scenarios, share_a_limit, take_tour
from apigate.testing import FakeClock
from tests.servers import reserved_port

OTHERS = [framework for framework in FRAMEWORKS.values() if framework is not PLAIN]
LEVELS = ("method", "client-method", "client", "stage", "global")


def gateway_with(old: str, new: str) -> Gateway:
    """The demo's gateway with one setting changed."""
    assert old in CONFIGURATION
    return Gateway.from_dict(tomllib.loads(configuration("day").replace(old, new)), clock=TourClock())


def day_gateway() -> Gateway:
    return demo_gateway("day", clock=TourClock())


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def nobody_at() -> Iterator[int]:
    """A port that nobody listens at, and that no other process is given meanwhile; whoever asks for it has it."""
    port, (holder,) = reserved_port()
    with holder:
        yield port


def failed(taken: Tour) -> list[str]:
    return [outcome.scenario.level for outcome in taken.outcomes if not outcome.ok]


@pytest.mark.parametrize("option", FRAMEWORKS)
def test_once_as_a_process_goes_as_configured(option):
    ended = process("-m", "apigate", "demo", "--once", "--framework", option)
    framework = FRAMEWORKS[option]
    number = len(scenarios(decorated=framework.decorated)) + 1  # and that of two processes
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert f"in {framework.title} behind a gateway, served by {framework.server}; " in ended.stdout
    assert f"{number} of {number} scenarios went as configured" in ended.stdout or "1 was skipped" in ended.stdout
    assert ("dev GET /pets/{number}/photo  2 admitted, 2 THROTTLED" in ended.stdout) is framework.decorated
    assert "HTTP/1.1 429 Too Many Requests" in ended.stdout
    assert f"So did {len(LOOKS)} of {len(LOOKS)} requests to the cache." in ended.stdout
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
    monkeypatch.setattr(settings, "demo_gateway", lambda period, clock: gateway_with("burst=8", "burst=9"))
    status, out, _ = run("demo", "--once")
    assert status == 1
    assert "stage        " in out
    assert "FAILED" in out
    assert "7 of 9 scenarios went as configured" in out


SABOTAGE = """
import sys
from apigate import Gateway
from apigate.cli import main
from apigate.demo import settings
{}
sys.exit(main(["demo", "--once", "--framework", "{}"]))
"""


@pytest.mark.parametrize("option", FRAMEWORKS)
def test_wrong_setting_is_noticed_in_every_framework(option):
    change = 'settings.CONFIGURATION = settings.CONFIGURATION.replace("burst=8", "burst=9")'
    ended = process("-c", SABOTAGE.format(change, option))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert re.findall(r"(\w+) +FAILED$", ended.stdout, re.MULTILINE) == ["stage", "global"]


@pytest.mark.parametrize("option", [framework.option for framework in OTHERS])
def test_decorator_that_does_nothing_is_noticed(option):
    ended = process("-c", SABOTAGE.format("Gateway.throttle = lambda *_, **__: lambda view: view", option))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert re.findall(r"([\w-]+) +FAILED$", ended.stdout, re.MULTILINE) == ["client-method", "global"]


def test_empty_gateway_fails_and_is_reported():
    taken = take_tour(Gateway())
    assert failed(taken) == [scenario.level for scenario in scenarios()]  # its paths name stages that are not there
    assert "FAILED" in report(taken)


def test_gateway_that_counts_wrong_is_noticed(monkeypatch):
    gateway = day_gateway()
    taken = take_tour(gateway)
    assert taken.ok
    miscounted = taken._replace(stats={**taken.stats, "dev": {"*": {"admitted": 6}}})
    assert not miscounted.ok
    assert "these are not the numbers that the clients saw" in report(miscounted)


@pytest.mark.parametrize(
    ("old", "new", "failing"),
    [
        ("ttl = 60,", "ttl = 600,", [3, 4]),
        (", stale_while_revalidate = 600", "", [3]),
        ("cache = {", "# cache = {", [*range(len(LOOKS))]),
    ],
)
def test_other_cache_settings_are_noticed(old, new, failing, monkeypatch):
    monkeypatch.setattr("apigate.demo.cached._TRIES", 3)
    taken = take_tour(gateway_with(old, new))
    assert [number for number, seen in enumerate(taken.cached) if not seen.ok] == failing
    assert not taken.ok
    assert failed(taken) == []
    assert "FAILED" in report(taken)


def test_time_is_moved_on_by_the_tour_alone():
    gateway = demo_gateway("day", clock=FakeClock())
    with served(PLAIN.create_app(gateway), 0) as port:
        seen = look_at_cache(port, gateway.clock)
    assert [each.ok for each in seen] == [True, False, False, False, True, True, True]


def test_cache_behind_a_server_that_does_not_answer_is_a_failure():
    with nobody_at() as port:
        seen = look_at_cache(port, TourClock())
    assert not any(each.ok for each in seen)
    assert report(Tour([tour.Outcome(scenarios()[0], [])], {}, None, cached=seen)).count(
        "ConnectionRefusedError"
    ) == len(LOOKS)


@pytest.mark.parametrize(
    ("ages", "age", "ok"), [(None, None, True), (None, 0, False), ((5, 60), None, False), ((5, 60), 60, False)]
)
def test_age_is_part_of_what_is_expected(ages, age, ok):
    look = Look("", "GET", 200, "hit", ages)
    assert Seen(look, 200, "hit; ttl=5", age).ok is ok
    assert not Seen(look, 304, "hit; ttl=5", age).ok
    assert not Seen(look, 200, "fwd=uri-miss", age).ok


def test_two_processes_share_a_limit():
    outcome = share_a_limit()
    assert outcome.ok
    assert [answer.is_refusal for answer in outcome.answers] == [False] * 3 + [True] * 5


def test_processes_that_share_nothing_are_noticed(monkeypatch):
    taken = take_tour(day_gateway())
    with (
        served(PLAIN.create_app(demo_gateway("day")), 0) as one,
        served(PLAIN.create_app(demo_gateway("day")), 0) as two,
    ):
        apart = taken._replace(shared=tour._outcome([one, two], tour.SHARED))
    assert not apart.ok
    assert re.findall(r"(\S+) +FAILED$", report(apart), re.MULTILINE) == ["method"]


def test_machine_with_one_address_skips_a_row_visibly(monkeypatch):
    monkeypatch.setattr(tour, "_is_ours", lambda address: False)
    taken = take_tour(day_gateway())
    assert taken.ok
    page = report(taken)
    assert "a second client, meanwhile      skipped: this machine does not have 127.0.0.2" in page
    assert "7 of 7 scenarios went as configured, 1 was skipped" in page


def test_an_address_of_another_machine_is_not_ours():
    assert tour._is_ours("127.0.0.1")
    assert not tour._is_ours("192.0.2.1")


def test_server_that_does_not_answer_is_a_failure():
    with nobody_at() as port:
        outcome = tour._outcome([port], scenarios()[0])
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
    assert settings.invitation("http://127.0.0.1:1234").count("http://127.0.0.1:1234") == 12


def test_invitation_shows_the_store_that_others_share():
    page = settings.invitation("http://127.0.0.1:1234", store="redis://user:secret@localhost:6379/0")
    assert page.partition("\n\n")[2].startswith(
        '  name = "pet-store"\n  store = "redis://user:***@localhost:6379/0"\n  throttle = '
    )
    assert "as does: apigate demo --port 0 --store 'redis://user:***@localhost:6379/0'\n" in page
    assert "secret" not in page


@pytest.mark.parametrize("store", ["memory://", "memory://?max_keys=10"])
def test_invitation_is_silent_about_a_store_that_nobody_shares(store):
    page = settings.invitation("http://127.0.0.1:1234", store=store)
    assert "store =" not in page
    assert "--store" not in page


def test_settings_in_the_invitation_are_those_of_the_demo(tmp_path):
    address = f'file://{tmp_path}/it\'s "here".state'
    page = settings.invitation("http://127.0.0.1:1234", store=address)
    shown = page[page.index('  name = "pet-store"') : page.index("Other processes")]
    gateway = Gateway.from_dict(tomllib.loads(shown))
    demo = demo_gateway(store=address)
    assert (gateway.name, repr(gateway.store)) == (demo.name, repr(demo.store))


@pytest.mark.parametrize("framework", OTHERS, ids=lambda framework: framework.option)
def test_invitation_shows_the_decorated_view(framework: Framework):
    page = settings.invitation("http://127.0.0.1:1234", framework)
    assert page.count("http://127.0.0.1:1234") == 13
    assert "'http://127.0.0.1:1234/dev/pets/1/photo?[1-4]'" in page
    assert f"\napigate demo --framework {framework.option} --once\n" in page


def test_help_has_every_framework(run):
    assert f"{{{','.join(FRAMEWORKS)}}}" in run("demo", "--help").out


@pytest.mark.parametrize(
    ("option", "module"), [(framework.option, module) for framework in OTHERS for module in framework.needs]
)
def test_missing_framework_is_said_before_anything_else(run, monkeypatch, option, module):
    monkeypatch.setitem(sys.modules, module, None)
    for more in ((), ("--once",)):
        status, out, err = run("demo", "--framework", option, *more)
        assert (status, out) == (2, "")
        assert err == f"apigate: {module} is missing; install it with: pip install 'apigate[demo]'\n"


@pytest.mark.parametrize("arguments", [("demo",), ("demo", "--once")])
def test_port_that_is_taken_is_one_line(run, arguments):
    with create_server(("127.0.0.1", 0)) as listener:
        status, _, err = run(*arguments, "--port", str(listener.getsockname()[1]))
    assert status == 2
    assert err.startswith("apigate: --port ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["plain", "flask"])
def test_server_is_gone_after_the_block(option):
    framework = FRAMEWORKS[option]
    with nobody_at() as port:
        with served(framework.create_app(demo_gateway()), port, framework.server):
            assert tour._outcome([port], scenarios()[0]).ok
        listening(port).close()
        assert tour._outcome([port], scenarios()[0]).failure


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


PET = json.dumps({"name": "Bella"})
ASKED = [
    # request, body: statuses that say the right thing, part of the answer's body
    ("GET /dev/pets", "", {200}, "Tweety"),
    ("GET /dev/pets/1", "", {200}, '"Rex"'),
    ("GET /dev/pets/1/photo", "", {200}, "ip:127.0.0.1"),
    ("GET /dev/pets/99", "", {404}, ""),
    ("GET /dev/pets/99/photo", "", {404}, ""),
    ("POST /dev/pets", PET, {201}, '"4"'),
    ("POST /dev/pets", "[]", {400, 422}, ""),
    ("POST /dev/pets", "{}", {400, 422}, ""),
    ("POST /dev/pets", "{", {400, 422}, ""),
    ("GET /dev/pets/4", "", {200}, '"Bella"'),
    ("GET /dev/pets/1/photo", "", {429}, '"client-method"'),
    ("GET /dev/health", "", {200}, '"well"'),
    ("DELETE /dev/pets", "", {405}, ""),
]


@pytest.mark.parametrize("option", [framework.option for framework in OTHERS])
def test_store_by_hand_answers_until_it_is_stopped(option):
    command = [sys.executable, "-m", "apigate", "demo", "--framework", option, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            assert running.stdout
            port = next(int(found[1]) for line in running.stdout if (found := re.search(r"127\.0\.0\.1:(\d+)", line)))
            with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                for request, sent, statuses, part in ASKED:
                    connection.request(*request.split(), sent or None, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    assert answer.status in statuses, request
                    assert part in answer.read().decode(), request
            # In the background of a shell SIGINT is ignored, unless a server takes it, as uvicorn does.
            running.send_signal(signal.SIGTERM if option == "flask" else signal.SIGINT)
            output, _ = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 0, output
    assert "GET /dev/pets/1/photo" in output
    assert "429 Too Many Requests" in output
    assert "Traceback" not in output
