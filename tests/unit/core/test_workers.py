"""What shows that there are several workers, apart from what real servers show in tests/workers."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import pytest

from apigate.core.workers import Workers, workers_at_work, workers_seen


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({"WEB_CONCURRENCY": "4"}, 4),
        ({"WEB_CONCURRENCY": " 2 "}, 2),
        ({"WEB_CONCURRENCY": "1"}, 1),
        ({"GUNICORN_CMD_ARGS": "--workers 3"}, 3),
        ({"GUNICORN_CMD_ARGS": "--bind=0.0.0.0 --workers=3"}, 3),
        ({"GUNICORN_CMD_ARGS": "-w 3 --preload"}, 3),
        ({"GUNICORN_CMD_ARGS": "-w3"}, 3),
        ({"GUNICORN_CMD_ARGS": "-w 3 -w 5"}, 5),
        ({"GUNICORN_CMD_ARGS": "-w 3", "WEB_CONCURRENCY": "4"}, 3),
        ({"GUNICORN_CMD_ARGS": "--worker-class gthread", "WEB_CONCURRENCY": "4"}, 4),
    ],
)
def test_the_environment_asks_for_workers(environment, number, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = workers_seen()
    assert seen is not None
    assert (seen.number, seen.several) == (number, number > 1)
    assert str(number) in seen.sign
    assert next(iter(environment)) in seen.sign or "WEB_CONCURRENCY" in seen.sign


@pytest.mark.parametrize("value", ["", " ", "auto", "-2", "2.5", "0", "0x4", "9" * 5_000])
@pytest.mark.parametrize("form", [("WEB_CONCURRENCY", "{}"), ("GUNICORN_CMD_ARGS", "--workers {}")])
def test_what_is_no_number_of_workers_shows_nothing(form, value, monkeypatch):
    name, text = form
    monkeypatch.setenv(name, text.format(value))
    assert workers_seen() is None


def test_an_option_without_its_value_shows_nothing(monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--preload --workers")
    assert workers_seen() is None


def test_a_child_of_multiprocessing_may_be_one_of_several():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        seen = pool.submit(workers_seen).result()
    assert seen is not None
    assert seen.several
    assert seen.number is None


LOOKING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from apigate.core.workers import workers_seen

sys.setswitchinterval(1e-6)
for _ in range(2_000):
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: workers_seen(), range(8))) == {None}
"""


def test_threads_may_look_while_others_run():
    """The stack of a running thread is not to be read: up to Python 3.11 that crashes the process now and then."""
    looked = subprocess.run([sys.executable, "-c", LOOKING], capture_output=True, text=True, check=False)
    assert (looked.returncode, looked.stderr) == (0, "")


@pytest.mark.parametrize("said", [True, 1])
def test_a_server_that_says_so_is_believed_though_only_one_worker_was_asked_for(said):
    before = Workers(1, "WEB_CONCURRENCY is 1")
    at_work = workers_at_work({"wsgi.multiprocess": said}, before)
    assert at_work is not None
    assert at_work.several


@pytest.mark.parametrize("native", [{"wsgi.multiprocess": False}, {}, {"type": "lifespan"}])
@pytest.mark.parametrize("before", [None, Workers(1, "one"), Workers(4, "four"), Workers(None, "several")])
def test_a_request_that_shows_nothing_changes_nothing(native, before):
    assert workers_at_work(native, before) == before


def within(module: str, function: str, known: object) -> Workers | None:
    """What is seen inside a function of a module, which holds this value as `self`, `config` and `worker_id`."""
    space = {"__name__": module, "workers_seen": workers_seen, "known": known}
    exec(
        f"def {function}(self, config, worker_id):\n return workers_seen()\nseen = {function}(known, known, known)",
        space,
    )
    return space["seen"]


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("gunicorn.arbiter", "spawn_worker"),
        ("uvicorn.main", "run"),
        ("uvicorn._subprocess", "subprocess_started"),
        ("hypercorn.run", "run"),
        ("hypercorn.asyncio.run", "asyncio_worker"),
        ("granian.server.common", "serve"),
    ],
)
@pytest.mark.parametrize("known", [None, SimpleNamespace(), SimpleNamespace(workers="4", num_workers=None)])
def test_a_server_that_keeps_its_workers_otherwise_shows_nothing(module, function, known):
    assert within(module, function, known) is None
    assert within("waitress.runner", "run", known) == Workers(1, "waitress runs 1 worker")  # so such a stack is read
