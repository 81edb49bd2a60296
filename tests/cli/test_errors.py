"""What cannot be carried out says why in one line on stderr, and exits with 2."""

import subprocess
import sys

import pytest

FAILURES = {
    # arguments: what the line says
    "lint none.toml": "none.toml: No such file or directory",
    "lint folder": "folder: Is a directory",
    "lint broken.toml": "broken.toml: Invalid value (at line 1, column 5)",
    "lint bytes.toml": "bytes.toml: 'utf-8' codec can't decode byte 0xff",
    "lint typo.toml": "typo.toml: the configuration: 'throtle' is no setting; did you mean 'throttle'?",
    "lint rate.toml": "rate.toml: Stage 'prod' throttle: ",
    "explain none.toml GET /": "none.toml: No such file",
    "explain none:app GET /": "importing none failed: ModuleNotFoundError: No module named 'none'",
    "lint shop:asgi_app": "shop:asgi_app is a function, neither a Gateway nor an app that one stands around",
    "explain apigate.toml GET / -H nothing": "-H 'nothing' is not a header",
    "explain apigate.toml GET / -H :value": "-H ':value' is not a header",
    "explain apigate.toml GET / --address nonsense": "--address 'nonsense' is not an address",
    "explain apigate.toml GET / --address 192.0.2.1:80": "--address '192.0.2.1:80' is not an address",
    "explain apigate.toml GET / --stage beta": "'beta' is no stage",
    "explain stages.toml GET /": "several stages (prod, beta)",
    "routes": "name a gateway, such as shop:gateway",
    "routes shop": "'shop' is not of the form module:name",
    "routes none.toml": "none.toml: No such file or directory",
    "lint shop": "'shop' is not of the form module:name",
    "routes apigate.toml --config apigate.toml": "'apigate.toml' is not of the form module:name",
    "routes :app": "':app' is not of the form module:name",
    "routes none:gateway": "importing none failed: ModuleNotFoundError: No module named 'none'",
    "routes ../shop:gateway": "importing ../shop failed: ",
    "routes shop:gateway.none": "shop:gateway.none: shop has no gateway.none",
    "routes shop:asgi_app": "shop:asgi_app is a function, neither a Gateway nor an app that one stands around",
    "routes shop:gateway --config typo.toml": "'throtle' is no setting",
    "routes none:gateway --config apigate.toml": "importing none failed",
    "routes raises:x": "importing raises failed: ValueError: first second (",
    "routes syntax:x": "importing syntax failed: SyntaxError: ",
    "routes misses:x": "No module named 'no_such_dependency' (",
    "routes misconfigured:gateway": "ConfigurationError: ",
    "run shop:asgi_app --config none.toml": "none.toml: No such file",
    "run shop:none --config apigate.toml": "shop has no none",
    "run shop:number --config apigate.toml": "shop:number is a int, not an app",
    "run shop:anything --config apigate.toml": "is an ASGI or a WSGI app; say it with --interface",
    "run shop:asgi_app --config stages.toml": "several stages (prod, beta)",
    "run shop:wsgi_app --config stages.toml --stage none": "'none' is no stage",
    "run shop:wsgi_app --config apigate.toml --host 192.0.2.1": "cannot listen on 192.0.2.1, port 8000",
}


@pytest.mark.parametrize("arguments", FAILURES)
def test_failure_is_one_line_on_stderr(run, arguments):
    status, out, err = run(*arguments.split())
    assert (status, out) == (2, "")
    assert err.startswith("apigate: ")
    assert FAILURES[arguments] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["workers = " + "9" * 5_000, "a = " + "[" * 5_000], ids=["long number", "deep brackets"]
)
def test_a_file_that_is_too_much_for_its_parser_is_an_error_too(run, shop, text):
    (shop / "odd.toml").write_text(text)
    status, out, err = run("lint", "odd.toml")
    assert (status, out) == (2, "")
    assert err.startswith("apigate: odd.toml: ")
    assert err.count("\n") == 1


def test_error_in_an_imported_module_names_the_place_in_it(run, shop):
    assert run("routes", "raises:x").err.endswith(f"({shop / 'raises.py'}, line 2)\n")
    assert run("routes", "misconfigured:x").err.endswith(f"({shop / 'misconfigured.py'}, line 2)\n")


@pytest.mark.parametrize(
    "arguments", ["", "fly", "run shop:app", "lint", "explain apigate.toml GET", "demo --port x", "demo --port 65536"]
)
def test_what_is_no_command_shows_the_usage(run, arguments):
    status, out, err = run(*arguments.split())
    assert (status, out) == (2, "")
    assert err.startswith("usage: apigate")


@pytest.mark.parametrize("arguments", ["demo", "demo --once", "run shop:asgi_app --config apigate.toml"])
def test_missing_uvicorn_is_said_before_anything_else(run, monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, out, err = run(*arguments.split())
    assert (status, out) == (2, "")
    assert err == "apigate: uvicorn is missing; install it with: pip install 'apigate[server]'\n"


def test_wsgi_app_needs_no_uvicorn(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "cannot listen" in run("run", "shop:wsgi_app", "--config", "apigate.toml", "--host", "192.0.2.1").err


def test_uvicorn_that_cannot_start_exits_with_2(shop):
    command = [sys.executable, "-m", "apigate", "run", "shop:asgi_app", "--config", "apigate.toml"]
    ended = subprocess.run([*command, "--host", "192.0.2.1"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "192.0.2.1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_process_without_a_traceback(shop):
    command = [sys.executable, "-m", "apigate", "lint", "none.toml"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "apigate: none.toml: No such file or directory\n"


def test_reader_that_has_had_enough_gets_no_traceback(shop):
    command = [sys.executable, "-m", "apigate", "routes", "shop:gateway"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2
