"""The setting `APIGATE`, in all its forms and all wrong ones, and what `manage.py check` says of it."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django.urls import path

from apigate import ConfigurationError, Gateway, Stage, cli
from apigate.django import gateway_of_settings
from apigate.django.apps import ApigateConfig
from apigate.testing import FakeClock
from tests.django_project.asking import GATE, ask, gateway, hello, module, project, statuses, urlconf

ROOT = Path(__file__).parents[2]


def test_gateway_by_its_path(via):
    with (
        module("made_gateway", gateway=gateway(client_throttle="1/minute")),
        project(via, [path("x", hello)], {"GATEWAY": "made_gateway.gateway"}) as app,
    ):
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


def test_settings_written_out(via):
    table = {
        "CLIENT_THROTTLE": "5/minute",
        "METHODS": {"GET /x": {"throttle": "1/minute"}},
        "CLOCK": FakeClock(),
        "X_RATE_LIMIT": True,
    }
    with project(via, [path("x", hello)], table) as app:
        assert statuses(app, "GET /x", "GET /x", "GET /y") == [200, 429, 404]


def test_settings_that_are_functions_may_be_named(via):
    told = []

    def who(request):
        return request.headers.get("x-user")

    table = {"CLIENT_THROTTLE": "1/minute", "CLIENT": "made_rules.who", "ON_EVENT": "made_rules.tell"}
    with module("made_rules", who=who, tell=told.append), project(via, [path("x", hello)], table) as app:
        assert [ask(app, "GET /x", {"x-user": user}).status for user in ("a", "a", "b")] == [200, 429, 200]
    assert [(event.kind, event.method) for event in told] == [("THROTTLED", "GET /x")]


@pytest.mark.parametrize("kind", [str, Path])
def test_settings_in_a_file(kind, via, tmp_path):
    file = tmp_path / "apigate.toml"
    file.write_text('client_throttle = "1/minute"\n')
    with project(via, [path("x", hello)], {"CONFIG": kind(file)}) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


def test_stage_that_is_fixed(via):
    gate = gateway(stages=[Stage("prod", throttle="1/minute"), Stage("beta")])
    with project(via, [path("x", hello)], {"GATEWAY": gate, "STAGE": "prod"}) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]
        assert ask(app, "GET /x").json["violated-policies"] == ["stage"]


WRONG = {
    "nothing": (None, "APIGATE: None is no table of settings; write APIGATE = {'GATEWAY': 'mysite.gateway.gateway'}"),
    "empty": ({}, "APIGATE: {} is no table of settings"),
    "no table": ("mysite.gateway", "APIGATE: 'mysite.gateway' is no table of settings"),
    "a stage alone": ({"STAGE": "default"}, "APIGATE: {'STAGE': 'default'} is no table of settings"),
    "gateway and more": (
        {"GATEWAY": "a.b", "CLIENT_THROTTLE": "1/second", "METHODS": {}},
        "APIGATE: GATEWAY has all settings, so CLIENT_THROTTLE, METHODS would be ignored",
    ),
    "gateway and file": ({"GATEWAY": "a.b", "CONFIG": "c"}, "GATEWAY has all settings, so CONFIG would be ignored"),
    "file and more": ({"CONFIG": "c", "THROTTLE": "1/second"}, "CONFIG has all settings, so THROTTLE would be ignored"),
    "gateway that is not there": ({"GATEWAY": "no_such.gateway"}, "APIGATE GATEWAY: No module named 'no_such'"),
    "gateway without a module": ({"GATEWAY": "gateway"}, "APIGATE GATEWAY: gateway doesn't look like a module path"),
    "no gateway": ({"GATEWAY": "os.path"}, "APIGATE GATEWAY: 'os.path' is a module, not a Gateway"),
    "no gateway either": ({"GATEWAY": 7}, "APIGATE GATEWAY: 7 is a int, not a Gateway"),
    "file that is not there": ({"CONFIG": "/no/such.toml"}, "/no/such.toml: No such file or directory"),
    "no path": ({"CONFIG": 7}, "APIGATE CONFIG: 7 is not the path of a TOML file"),
    "unknown setting": (
        {"CLIENT_THROTLE": "1/second"},
        "APIGATE: 'CLIENT_THROTLE' is no setting; did you mean 'CLIENT_THROTTLE'?",
    ),
    "limits": ({"LIMITS": {}}, "APIGATE: 'LIMITS' is no setting; did you mean 'THROTTLE' or 'CLIENT_THROTTLE'?"),
    "gateway misspelt": ({"GATWAY": "a.b"}, "APIGATE: 'GATWAY' is no setting; did you mean 'GATEWAY'?"),
    "stage misspelt": ({"GATEWAY": "a.b", "STGE": "prod"}, "APIGATE: 'STGE' is no setting; did you mean 'STAGE'?"),
    "no setting at all": ({"ZZZ": 1}, "APIGATE: 'ZZZ' is no setting; allowed are CACHE, CLIENT, CLIENT_IN_FLIGHT, "),
    "setting of a method that is none": (
        {"METHODS": {"GET /x": {"throtle": "1/second"}}},
        "'throtle' is no setting; did you mean 'throttle'?",
    ),
    "wrong rate": ({"CLIENT_THROTTLE": "often"}, "APIGATE: client_throttle: 'often' is not a rate"),
    "function that is not there": (
        {"THROTTLE": "1/second", "CLIENT": "no_such.who"},
        "APIGATE CLIENT: No module named",
    ),
    "unknown stage": ({"THROTTLE": "1/second", "STAGE": "prod"}, "stage: 'prod' is no stage; stages are default"),
    "stage that is no text": ({"THROTTLE": "1/second", "STAGE": 5}, "stage: 5 is no stage"),
    "several stages": (
        {"STAGES": {"prod": {}, "beta": {}}},
        "stage_by: several stages (prod, beta) and nothing that tells which",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_setting_is_named(wrong):
    table, message = WRONG[wrong]
    with (
        override_settings(APIGATE=table, MIDDLEWARE=[GATE], ROOT_URLCONF=urlconf([])),
        pytest.raises(ConfigurationError, match=re.escape(message)),
    ):
        WSGIHandler()


@pytest.mark.parametrize("wrong", WRONG)
def test_check_finds_it_too(wrong):
    table, message = WRONG[wrong]
    with override_settings(APIGATE=table, MIDDLEWARE=[GATE]):
        (error,) = [found for found in run_checks() if found.id == "apigate.E001"]
        assert message in str(error.msg)


def test_gateway_is_built_once_until_the_setting_changes():
    with override_settings(APIGATE={"THROTTLE": "1/second"}):
        gate, stage = gateway_of_settings()
        assert gateway_of_settings()[0] is gate
        assert stage is None
        with override_settings(APIGATE={"THROTTLE": "2/second"}):
            assert gateway_of_settings()[0] is not gate


# ---- manage.py check


def found(**settings):
    with override_settings(ROOT_URLCONF=urlconf([path("x", hello)]), **settings):
        return {check.id: str(check.msg) for check in run_checks() if check.id.startswith("apigate")}


FINE = {"APIGATE": {"CLIENT_THROTTLE": "10/second; burst=20", "CORS": "off"}, "MIDDLEWARE": [GATE]}


def test_check_is_content():
    assert found(**FINE) == {}
    out = StringIO()
    with override_settings(**FINE, ROOT_URLCONF=urlconf([])):
        call_command("check", stdout=out)
    assert "no issues" in out.getvalue()


def test_check_misses_the_middleware():
    assert found(**{**FINE, "MIDDLEWARE": []}) == {"apigate.W001": "no gateway stands in front of the project"}


def test_check_finds_it_twice():
    assert found(**{**FINE, "MIDDLEWARE": [GATE, GATE]}) == {"apigate.E002": f"{GATE!r} stands in MIDDLEWARE 2 times"}


def test_check_passes_on_what_lint_finds():
    table = {"THROTTLE": "1/second", "CLIENT_THROTTLE": "10/second", "CORS": "off"}
    assert "never-binds" in found(**{**FINE, "APIGATE": table})["apigate.W002"]


def test_check_fails_the_command():
    with (
        override_settings(**{**FINE, "APIGATE": {"CLIENT_THROTTLE": "often"}}, ROOT_URLCONF=urlconf([])),
        pytest.raises(SystemCheckError, match=r"apigate\.E001"),
    ):
        call_command("check")


def test_checks_can_be_silenced():
    silent = {**FINE, "MIDDLEWARE": [], "SILENCED_SYSTEM_CHECKS": ["apigate.W001"]}
    out = StringIO()
    with override_settings(**silent, ROOT_URLCONF=urlconf([])):
        call_command("check", stdout=out)
    assert "1 silenced" in out.getvalue()


def test_app_is_called_apigate():
    assert (ApigateConfig.name, ApigateConfig.label) == ("apigate.django", "apigate")


SETTINGS = """
SECRET_KEY = "x"
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["apigate.django"]
MIDDLEWARE = [{middleware}]
APIGATE = {apigate}
"""
MANAGE = (
    "import sys\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
)


@pytest.mark.parametrize(
    ("middleware", "apigate", "code", "says"),
    [
        (f"{GATE!r}", "{'GATEWAY': 'gates.gateway'}", 0, "System check identified no issues"),
        ("", "{'GATEWAY': 'gates.gateway'}", 0, "(apigate.W001) no gateway stands in front of the project"),
        (
            f"{GATE!r}",
            "{'GATEWAY': 'gates.missing'}",
            1,
            '(apigate.E001) APIGATE GATEWAY: Module "gates" does not define',
        ),
        (f"{GATE!r}, {GATE!r}", "{'GATEWAY': 'gates.gateway'}", 1, "(apigate.E002)"),
    ],
)
def test_manage_py(middleware, apigate, code, says, tmp_path):
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "urls.py").write_text("urlpatterns = []\n")
    (tmp_path / "gates.py").write_text(
        "from apigate import Gateway\ngateway = Gateway(throttle='1/second', cors=None)\n"
    )
    (tmp_path / "project_settings.py").write_text(SETTINGS.format(middleware=middleware, apigate=apigate))
    run = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project_settings", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, says in run.stdout + run.stderr) == (code, True), run.stdout + run.stderr


def test_importing_a_plain_gate_beside_an_unconfigured_django():
    """Django may be loaded by something else, in a process that is no project of Django's."""
    program = (
        "import django.urls\n"
        "from apigate import Gateway\n"
        "from apigate.wsgi import GatewayMiddleware\n"
        "gate = Gateway(client_throttle='1/minute')\n"
        "app = GatewayMiddleware(lambda environ, start: [b''], gate)\n"
        "limited = gate.throttle('1/minute')(lambda: 1)\n"
        "assert limited() == 1\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)


def test_gateway_object_itself(via):
    with project(via, [path("x", hello)], Gateway(throttle="1/minute", clock=FakeClock())) as app:
        assert statuses(app, "GET /x", "GET /x") == [200, 429]


def test_run_tells_of_a_gate_in_the_project_and_needs_none(tmp_path, monkeypatch, capsys):
    (tmp_path / "apigate.toml").write_text('client_throttle = "3/day"\n')
    monkeypatch.setattr(cli, "_serve_wsgi", lambda *_: 0)
    for gate, said in ((None, ""), (gateway(name="shop"), "has a gate of its own, of the gateway 'shop'")):
        with project("wsgi", [path("x", hello)], gate) as app, module("made_wsgi", application=app):
            run = ["run", "made_wsgi:application", "--config", str(tmp_path / "apigate.toml")]
            assert cli.main(run) == 0
            err = capsys.readouterr().err
            assert said in err
            assert err.count("\n") == bool(said)
