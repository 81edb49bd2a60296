"""`lint`, `explain`, `routes`, `--version`: what they print and exit with."""

import subprocess
import sys

import pytest

import apigate


def test_version(run):
    assert run("--version") == (0, f"apigate {apigate.__version__}\n", "")


def test_python_m_is_the_same(shop):
    printed = subprocess.check_output([sys.executable, "-m", "apigate", "--version"], text=True, timeout=60)
    assert printed == f"apigate {apigate.__version__}\n"


def test_help_lists_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in ("demo", "run", "routes", "lint", "explain"):
        assert f"\n    {command} " in out


def test_other_commands_load_no_server(shop):
    script = "import sys; from apigate.cli import main; main(['lint', 'apigate.toml']); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60).split()
    assert "apigate.cli" in loaded
    assert not {"asyncio", "uvicorn", "wsgiref", "http.client", "apigate.demo"} & set(loaded)


def test_lint_without_findings(run):
    assert run("lint", "apigate.toml") == (0, "apigate.toml: no findings\n", "")


@pytest.mark.parametrize("target", ["apigate.toml", "shop:gated_wsgi"])
def test_lint_tells_of_several_workers_on_a_store_of_one_process(run, monkeypatch, target):
    before = run("lint", target)
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    status, out, err = run("lint", target)
    assert (status, err) == (1, "")  # no server runs here, so nobody is warned
    (multiplied,) = [line for line in out.splitlines() if line.endswith("[multiplied-limits]")]
    assert multiplied.startswith("store: WEB_CONCURRENCY is 4, and every limit")
    assert multiplied not in before.out


def test_lint_with_a_finding_exits_with_1(run):
    status, out, err = run("lint", "odd.toml")
    assert (status, err) == (1, "")
    assert "never-binds" in out
    assert out.endswith("odd.toml: 1 finding\n")


def test_explain(run):
    status, out, err = run("explain", "apigate.toml", "GET", "/pets/1?x=1", "--address", "192.0.2.7")
    assert (status, err) == (0, "")
    assert out.startswith("GET /pets/1\n")
    for part in ("ip:192.0.2.7", "3/day", "verdict admitted"):
        assert part in out


def test_explain_takes_a_verb_in_either_letter_case(run, shop):
    (shop / "cached.toml").write_text('[methods."GET /pets"]\ncache = 60\n')
    asked = ("https://shop.example/pets", "--address", "2001:db8::1")
    assert run("explain", "cached.toml", "get", *asked) == run("explain", "cached.toml", "GET", *asked)


def test_explain_sends_headers(run, shop):
    (shop / "host.toml").write_text('stage_by = { header = "x-stage" }\n[stages.prod]\n[stages.beta]\n')
    assert "stage   beta" in run("explain", "host.toml", "GET", "/", "-H", "X-Stage:  beta ").out
    assert "RESOURCE_NOT_FOUND" in run("explain", "host.toml", "GET", "/").out


def test_explain_takes_a_header_of_bytes_that_are_no_text(run):
    status, out, err = run("explain", "apigate.toml", "GET", "/pets/1", "-H", "x-key: \udcff")
    assert (status, err) == (0, "")
    assert "verdict admitted" in out


def test_explain_says_how_a_file_has_it_cached_and_for_whom(run, shop):
    cached = '[methods."GET /pets"]\ncache = { ttl = 60, per = "principal", key = { query = ["page"] } }\n'
    (shop / "cached.toml").write_text(cached)
    url = "https://shop.example/pets?page=1"
    assert "nobody can tell whose" in run("explain", "cached.toml", "GET", url).out
    out = run("explain", "cached.toml", "GET", url, "--principal", "ada").out
    key = "verb, scheme, host, path, of the query page, keyed as principal"
    assert f"cache: its policy is 60 s, GET HEAD QUERY, per principal; its key is {key}" in out
    assert "no host was given" in run("explain", "cached.toml", "GET", "/pets", "--principal", "ada").out


def test_explain_joins_headers_of_one_name(run, shop):
    (shop / "proxy.toml").write_text('trusted_hops = 2\nclient_throttle = "3/day"\n')
    sent = ("-H", "X-Forwarded-For: 192.0.2.1, 192.0.2.2", "--header", "x-forwarded-for:192.0.2.3")
    assert "ip:192.0.2.2" in run("explain", "proxy.toml", "GET", "/", *sent).out


def test_explain_at_a_fixed_stage(run):
    assert "stage   beta" in run("explain", "stages.toml", "GET", "/", "--stage", "beta").out


FRAMEWORK_APP = {
    "FastAPI": """
from fastapi import FastAPI
from apigate import Gateway, Stage
from apigate.fastapi import GatewayMiddleware

gateway = Gateway(throttle="9/day", stages=[Stage("prod"), Stage("beta")], cors=None)
app = FastAPI()
app.add_middleware(GatewayMiddleware, gateway=gateway, stage="beta")

@app.get("/pets/{id}")
@gateway.throttle("5/day", per="client")
def pet(id: int): ...
""",
    "Flask": """
from flask import Flask
from apigate import Gateway, Stage
from apigate.flask import Apigate

gateway = Gateway(throttle="9/day", stages=[Stage("prod"), Stage("beta")], cors=None)
app = Flask("shop")
Apigate(app, gateway, stage="beta")

@app.get("/pets/<int:id>")
@gateway.throttle("5/day", per="client")
def pet(id): ...
""",
}


@pytest.mark.parametrize("framework", FRAMEWORK_APP)
def test_explain_over_an_app_knows_its_routes_and_its_stage(run, shop, framework):
    (shop / "shop.py").write_text(FRAMEWORK_APP[framework])
    status, out, err = run("explain", "shop:app", "GET", "/pets/1", "--address", "192.0.2.7")
    assert (status, err) == (0, "")
    for part in ("stage   beta", "method  GET /pets/{id}", "5/day", "4 left", "ip:192.0.2.7"):
        assert part in out
    assert "stage   prod" in run("explain", "shop:app", "GET", "/pets/1", "--stage", "prod").out


@pytest.mark.parametrize("framework", FRAMEWORK_APP)
def test_lint_over_an_app_looks_for_its_cors_layer(run, shop, framework):
    text = FRAMEWORK_APP[framework].replace(', stages=[Stage("prod"), Stage("beta")]', "").replace("beta", "default")
    (shop / "shop.py").write_text(text)
    assert run("lint", "shop:app") == (0, "shop:app: no findings\n", "")
    sys.modules.pop("shop")
    (shop / "shop.py").write_text(text.replace(", cors=None", ""))
    status, out, _ = run("lint", "shop:app")
    assert status == 1
    assert "[unreadable-refusals]\nshop:app: 1 finding\n" in out


def test_lint_and_explain_over_a_gateway(run, shop):
    assert "[never-binds]" not in run("lint", "shop:open_gateway").out
    assert "method  GET /pets/{id}" in run("explain", "shop:gateway", "GET", "/prod/pets/1").out


def test_a_file_with_a_colon_in_its_name_is_a_file(run, shop):
    (shop / "shop:gateway").write_text('client_throttle = "3/day"\n')
    assert "3/day" in run("explain", "shop:gateway", "GET", "/").out


ROUTES = """\
gateway shop, stage by PathPrefix()

stage prod
  METHOD                     LEVEL     LIMIT                  MODE
  GET /pets/{id}             -         Own, in phase GUARD
                             global    20 in flight           enforce
                             client    4 in flight            shadow
                             global    1000/second            enforce
                             stage     100/second; burst=200  enforce
                             method    50/second              enforce
                             client    10/second              shadow
                             client-2  1000/hour              shadow
                             cost      3
                             refund    404
  POST /pets                 -         Own, in phase GUARD
                             global    20 in flight           enforce
                             client    4 in flight            shadow
                             global    1000/second            enforce
                             stage     100/second; burst=200  enforce
                             client    10/second              shadow
                             client-2  1000/hour              shadow
                             method    50/second              off
                             exempt    internal
  GET /health                -         Own, in phase GUARD
                             exempt    takes from no level
  * (what matches no other)  -         Own, in phase GUARD
                             global    20 in flight           enforce
                             client    4 in flight            shadow
                             global    1000/second            enforce
                             stage     100/second; burst=200  enforce
                             method    50/second              enforce
                             client    10/second              shadow
                             client-2  1000/hour              shadow

stage dev
  METHOD                     LEVEL   LIMIT                MODE
  * (what matches no other)  -       Own, in phase GUARD
                             global  20 in flight         enforce
                             global  1000/second          enforce
"""


@pytest.mark.parametrize("target", ["shop:gateway", "shop:gated_asgi", "shop:gated_wsgi"])
def test_routes_lists_every_method_with_its_limits(run, target):
    assert run("routes", target) == (0, ROUTES, "")


def test_routes_of_a_file(run):
    out = run("routes", "--config", "stages.toml").out
    assert run("routes", "shop:asgi_app", "--config", "stages.toml").out == out
    assert run("routes", "stages.toml").out == out
    assert "\nstage prod\n" in out
    assert "stage   2/day" in out


def test_a_name_in_a_file_cannot_order_a_terminal_about(run, shop):
    (shop / "odd.toml").write_text('[methods."GET /a\\u001b[31m"]\nthrottle = "1/hour"\n')
    status, out, _ = run("routes", "odd.toml")
    assert status == 0
    assert "GET /a\\x1b[31m" in out
    assert "\x1b" not in out


def test_routes_without_any_limit(run):
    assert "  * (what matches no other)  -      no limit" in run("routes", "shop:open_gateway").out


def test_routes_says_that_decorated_functions_are_not_listed(run, shop):
    with (shop / "shop.py").open("a") as file:
        file.write("\n@open_gateway.throttle('5/second')\ndef f(): ...\n")
    assert "Decorated functions" in run("routes", "shop:open_gateway").out


def test_a_file_may_name_functions_of_modules_in_the_current_folder(run):
    status, out, err = run("routes", "--config", "named.toml")
    assert (status, err) == (0, "")
    assert "60 s, GET HEAD QUERY, per function" in out
