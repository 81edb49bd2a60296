"""Processes that are forked off: parent and child stay right, and neither disturbs the connections of the other."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import requests

from apigate.stores.redis import RedisStore
from tests.servers import DEADLINE, ROOT, reserved_port, until
from tests.stores.asking import PATIENT_MS, Asked, Threads, limits

LEASE = 20


@pytest.fixture
def store(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, denial_cache=False, server_time=False)
    yield store
    store.close()


def in_child(work):
    """What `work` tells in a child: True or False; the child ends at once after it."""
    child = os.fork()
    if child == 0:
        told = False
        try:
            told = bool(work())
        finally:
            os._exit(0 if told else 1)

    def has_told():
        too_late = threading.Timer(DEADLINE, os.kill, (child, signal.SIGKILL))
        too_late.start()
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            too_late.cancel()

    return has_told


def test_parent_and_child_ask_over_connections_of_their_own(redis_server, store):
    asked = Asked(Threads(), store, limits("100000/hour"))
    Threads().at_once([asked.call] * 3)

    def hits(key, cost):
        return all(asked.acquire(key, cost=cost).remaining == 100_000 - cost * each for each in range(1, 200))

    childs = in_child(lambda: hits("child", 3))
    assert hits("parent", 5)
    assert childs()
    assert asked.left("child") == [100_000 - 3 * 199]


def test_a_child_that_closes_its_store_leaves_the_connections_of_its_parent_open(redis_server, store):
    asked = Asked(Threads(), store, limits("100000/hour"))
    asked.acquire()
    before = redis_server.command("INFO", "stats")["total_connections_received"]

    def work():
        store.close()
        asked.acquire()
        store.close()
        return True

    assert in_child(work)()
    assert asked.acquire().allowed
    after = redis_server.command("INFO", "stats")["total_connections_received"]
    assert after - before == 2  # the child's, and this test's own


def test_parent_and_child_of_a_running_loop_stay_right(redis_server, store):
    asked = Asked(Threads(), store, limits("100000/hour"))

    async def hits(key, cost):
        return [(await asked.call((key,), cost)).remaining for _ in range(50)] == [
            100_000 - cost * each for each in range(1, 51)
        ]

    async def serve():
        await asyncio.gather(*[asked.call() for _ in range(300)])
        childs = in_child(lambda: asyncio.run(hits("child", 3)) and asked.left("child") == [100_000 - 150])
        return await hits("parent", 5), await asyncio.to_thread(childs), await hits("parent-2", 7)

    assert asyncio.run(serve()) == (True, True, True)


def test_a_child_of_a_running_loop_that_ends_by_itself_disturbs_nobody(redis_server):
    """Without `os._exit`, so that the interpreter clears up what the child has inherited."""
    code = f"""
import asyncio, os, sys
from apigate import Throttle
from apigate.stores.redis import RedisStore
throttle = Throttle({{"client": "1000/hour"}}, store=RedisStore({redis_server.uri!r}, deadline_ms=5_000), name="shop")

async def serve():
    await throttle.acquire_async({{"client": "a"}})

loop = asyncio.new_event_loop()
loop.run_until_complete(serve())
child = os.fork()
if child == 0:
    assert throttle.acquire({{"client": "a"}}).allowed
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
loop.run_until_complete(serve())
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
print(throttle.peek({{"client": "a"}}, cost=0).remaining)
"""
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": "src"}, timeout=DEADLINE,
    )  # fmt: skip
    assert (told.stdout, told.stderr) == ("997\n", "")


def test_tokens_that_the_parent_has_in_hand_are_not_the_childs_too(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, denial_cache=False, lease=LEASE)
    asked = Asked(Threads(), store, limits("1000/hour"))
    assert asked.acquire().allowed
    in_hand = LEASE - 1
    redis_server.flush()

    def first_is_asked_for():
        return asked.acquire().round_trips == 1

    assert in_child(first_is_asked_for)()
    assert [asked.acquire().round_trips for _ in range(in_hand)] == [0] * in_hand
    store.close()


def test_a_child_does_not_wait_for_what_a_thread_of_its_parent_holds(redis_server):
    store = RedisStore(redis_server.uri, deadline_ms=PATIENT_MS, lease=LEASE)
    asked = Asked(Threads(), store, limits("1000/hour"))
    asked.acquire()
    with store.leases._lock, store.denials._lock:
        waited = in_child(lambda: asked.acquire().allowed and not asked.acquire(cost=1_001).allowed)
    assert waited()
    store.close()


def test_so_do_those_of_a_cluster_which_threads_beside_them_ask(redis_cluster):
    store = RedisStore(redis_cluster.uri, deadline_ms=PATIENT_MS, denial_cache=False, server_time=False)
    asked = Asked(Threads(), store, limits("100000/hour"))
    Threads().at_once([asked.call] * 4)
    childs = in_child(lambda: all(asked.acquire("child").remaining == 100_000 - each for each in range(1, 30)))
    assert all(asked.acquire("parent").remaining == 100_000 - each for each in range(1, 30))
    assert childs()
    store.close()


# ---- gunicorn

APP = """
import os
from apigate import Gateway
from apigate.{kind} import GatewayMiddleware

gateway = Gateway(client_throttle="20/hour", store={uri!r}, name="shop")

def wsgi(environ, start_response):
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    return [b"app"]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"x-worker", str(os.getpid()).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b"app"}})


app = GatewayMiddleware({kind}, gateway)

from apigate import Throttle

warm = Throttle({{"client": "1000/hour"}}, store=gateway.store, name="warm")
assert warm.acquire({{"client": "parent"}}).allowed  # before the fork
"""


@contextmanager
def gunicorn(folder, kind, uri, *options):
    (folder / "served.py").write_text(APP.format(kind=kind, uri=uri))
    port, (holder,) = reserved_port()
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "served:app", "--bind", f"127.0.0.1:{port}", "--workers", "2",
             "--preload", "--no-control-socket", *options],
            cwd=folder, stdout=written, stderr=written, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}/", log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
        holder.close()


WORKERS = {"wsgi": ("--threads", "4"), "asgi": ("--worker-class", "asgi")}


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_workers_forked_after_the_first_call_share_a_limit(redis_server, tmp_path, kind):
    with gunicorn(tmp_path, kind, f"{redis_server.uri}?deadline_ms=5000", *WORKERS[kind]) as (url, log):
        with requests.Session() as session:
            until(lambda: log.read_text().count("Booting worker") == 2, "both workers run")
            until(lambda: session.get(url, timeout=DEADLINE), "they answer")
        workers = re.findall(r"Booting worker with pid: (\d+)", log.read_text())

        def get():
            return requests.get(url, timeout=DEADLINE)

        def get_without(worker):
            """What the other worker answers; left to them, one alone may take all connections."""
            os.kill(int(worker), signal.SIGSTOP)
            try:
                return get()
            finally:
                os.kill(int(worker), signal.SIGCONT)

        answers = [get_without(worker) for worker in workers * 2]
        assert [answer.headers["x-worker"] for answer in answers] == workers[::-1] * 2
        answers += Threads().at_once([get] * 8) + [get() for _ in range(4)]
        admitted = 1 + sum(answer.status_code == 200 for answer in answers)
        answers += Threads().at_once([get] * 16)
        assert admitted == 17
        assert 1 + sum(answer.status_code == 200 for answer in answers) == 20
        assert {answer.status_code for answer in answers} == {200, 429}
