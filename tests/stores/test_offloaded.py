"""A store that blocks and says so: under an event loop it is asked in threads, elsewhere as any store."""

import asyncio
import copy
import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from apigate import ConfigurationError, Gateway, Method, ProtocolError, Throttle, Window
from apigate.core.closing import close
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.stores.address import open_store
from apigate.stores.memory import MemoryStore
from apigate.testing import FakeClock, ThrottleStoreContract
from tests.gateway.asking import ask, ask_in_task, built, task_asks
from tests.outages import FailingStore, WindowsToo
from tests.window_contract import WindowStoreContract

PATIENCE = 60


class Blocking:
    """In memory; it notes which threads asked."""

    offload = True
    deadline_ms = PATIENCE * 1_000

    def __init__(self):
        self.memory = MemoryStore()
        self.threads = set()

    def open(self, limits, now):
        self.threads.add(threading.current_thread())
        return self.memory.open(limits, now)

    def windows(self):
        return self.memory.windows()


class Held(WindowsToo):
    """One that waits at `held_at`, and says so."""

    offload = True
    deadline_ms = PATIENCE * 1_000

    def __init__(self, held_at=""):
        super().__init__()
        self.held_at = held_at


class Hold:
    """Where one question waits in its thread until it is let go."""

    def __init__(self):
        self.entered, self.ends, self.left = threading.Event(), threading.Event(), threading.Event()

    def keep(self):
        self.entered.set()
        assert self.ends.wait(PATIENCE)
        self.left.set()


class InALoop:
    """A store and its buckets, asked where an event loop runs."""

    def __init__(self, contract, subject):
        self._contract, self._subject = contract, subject

    def open(self, limits, now):
        async def opened():
            return self._subject.open(limits, now)

        return InALoop(self._contract, self._contract.answer(opened()))

    def __getattr__(self, name):
        async def asked(*given):
            answer = getattr(self._subject, name)(*given)
            assert isinstance(answer, Awaitable)
            return await answer

        return asked


class TestOffloadedStore(ThrottleStoreContract):
    def make_store(self):
        return open_store(Blocking())


class TestOffloadedStoreUnderALoop(ThrottleStoreContract):
    def make_store(self):
        return InALoop(self, open_store(Blocking()))


class TestOffloadedWindows(WindowStoreContract):
    @pytest.fixture(params=[False, True], ids=["thread", "loop"])
    def windows(self, request):
        self.in_loop = request.param
        return open_store(Blocking()).windows()


APP = """
import asyncio
import threading

from apigate import Gateway, Method
from apigate.asgi import GatewayMiddleware
from apigate.stores.memory import MemoryStore

entered, released = threading.Event(), threading.Event()


class Table:
    offload = True
    deadline_ms = 60_000

    def open(self, limits, now):
        return Buckets(MemoryStore().open(limits, now))


class Buckets:
    def __init__(self, within):
        self.within = within
        self.peek, self.adjust, self.reset = within.peek, within.adjust, within.reset

    def acquire(self, *given):
        entered.set()
        assert released.wait(60)
        return self.within.acquire(*given)


async def shop(scope, receive, send):
    if scope["path"] == "/release":
        await asyncio.to_thread(entered.wait)
        released.set()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


app = GatewayMiddleware(shop, Gateway(store=Table(), methods={"GET /held": Method(throttle="1/hour")}))
"""


def test_while_the_store_blocks_another_request_to_the_loop_is_answered(tmp_path):
    (tmp_path / "blocked.py").write_text(APP, encoding="utf-8")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "blocked:app", "--lifespan", "off", "--log-level", "error"]
    with listener:
        server = subprocess.Popen(
            [*command, "--fd", str(listener.fileno())],
            cwd=tmp_path,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def get(path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    try:
        with ThreadPoolExecutor() as threads:
            held = threads.submit(get, "/held")
            assert get("/release") == (200, b"/release")  # which the app answers when the store is entered
            assert held.result() == (200, b"/held")
        assert get("/held")[0] == 429
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)


def test_a_gateway_that_is_built_in_a_loop_opens_it_in_a_thread_too():
    store = Blocking()

    async def serve():
        gateway = built(store=store, client_throttle="1/hour")
        return [(await task_asks(gateway)).status for _ in range(2)]

    assert asyncio.run(serve()) == [200, 429]
    assert store.threads
    assert threading.current_thread() not in store.threads


def test_in_a_thread_it_is_asked_right_there():
    store = Blocking()
    gateway = built(store=store, client_throttle="1/hour")
    assert [ask(gateway).status for _ in range(2)] == [200, 429]
    assert store.threads == {threading.current_thread()}


def test_threads_and_tasks_share_its_buckets_and_a_change_of_rate():
    gateway = built(store=Blocking(), client_throttle="2/hour")
    assert [ask(gateway).status, ask_in_task(gateway).status, ask(gateway).status] == [200, 200, 429]
    gateway.stage().update(client_throttle="4/hour")
    assert [ask_in_task(gateway).status, ask_in_task(gateway).status, ask(gateway).status] == [200, 200, 429]


def test_windows_and_buckets_in_one_decision_and_what_is_given_back():
    gateway = built(
        store=Blocking(),
        throttle="100/hour",
        client_throttle=Window("2/hour", kind="moving"),
        methods={"POST /login": Method(throttle="100/hour", refund="404")},
    )
    answers = [ask_in_task(gateway, "POST /login", status).status for status in (404, 200, 200, 200)]
    assert answers == [404, 200, 200, 429]
    explained = asyncio.run(gateway.explain_async("POST", "/login"))  # what another client would leave
    assert {level.policy: level.remaining for level in explained.levels} == {"global": 96, "method": 97, "client": 1}


def test_an_answer_that_does_not_come_by_the_deadline_is_an_outage_and_a_task_finds_out_when_it_is_over():
    events = []
    store = Held()
    store.deadline_ms = 1
    clock = FakeClock()
    gateway = built(
        store=store, name="shop", client_throttle="1/hour", outage="closed", on_event=events.append, clock=clock
    )
    store.held_at = "acquire"

    async def serve():
        while not any(isinstance(event, StoreOutage) for event in events):
            assert (await task_asks(gateway)).status == 503  # or no thread was free to begin in time: then as well
        store.held_at = ""
        store.goes_on.set()
        gateway.store.store._deadline_ms = PATIENCE * 1_000
        while not any(isinstance(event, StoreRecovered) for event in events):
            clock.advance(10)
            await task_asks(gateway)
            await asyncio.sleep(0)
        return (await task_asks(gateway)).status

    assert asyncio.run(serve()) in (200, 429)


@pytest.mark.parametrize("answers_others", [True, False])
def test_only_a_store_that_has_answered_nobody_is_to_blame_for_an_answer_that_does_not_come(answers_others):
    """Where there is too much to ask it, a burst would make an outage of that, in which more may be admitted."""
    events = []
    store = Held("acquire")
    gateway = built(store=store, name="shop", client_throttle="9/hour", outage="closed", on_event=events.append)

    async def serve():
        loop = asyncio.get_running_loop()
        time = loop.time()
        loop.time = lambda: time  # the deadline comes when the test says so
        first = asyncio.ensure_future(task_asks(gateway))
        assert await asyncio.to_thread(store.is_held.wait, PATIENCE)
        store.held_at = ""
        if answers_others:
            assert (await task_asks(gateway)).status == 200
        time += PATIENCE + 0.001
        try:
            return (await first).status
        finally:
            store.goes_on.set()

    assert asyncio.run(serve()) == 503
    assert [type(event) for event in events if isinstance(event, StoreOutage)] == [StoreOutage] * (not answers_others)


def test_a_store_that_is_too_slow_for_everybody_is_to_blame_though_it_answers_all_the_while():
    events = []
    holds = [Hold(), Hold(), Hold()]

    class Slower(FailingStore):
        offload = True
        deadline_ms = PATIENCE * 1_000
        asked = iter(holds)

        def check(self, operation):
            super().check(operation)
            if operation == "acquire":
                next(self.asked).keep()

    gateway = built(store=Slower(), name="shop", client_throttle="9/hour", outage="closed", on_event=events.append)

    async def serve():
        loop = asyncio.get_running_loop()
        time = loop.time()
        loop.time = lambda: time
        statuses = []
        early, late, later = holds
        tasks = []
        try:
            for hold in (early, late):
                tasks.append(asyncio.ensure_future(task_asks(gateway)))
                assert await asyncio.to_thread(hold.entered.wait, PATIENCE)
            early.ends.set()
            statuses.append((await tasks[0]).status)
            time += PATIENCE + 0.001
            statuses.append((await tasks[1]).status)  # the early one was answered meanwhile
            tasks.append(asyncio.ensure_future(task_asks(gateway)))
            assert await asyncio.to_thread(later.entered.wait, PATIENCE)
            assert not outages()
            late.ends.set()
            assert await asyncio.to_thread(late.left.wait, PATIENCE)
            time += PATIENCE + 0.001
            statuses.append((await tasks[2]).status)  # and meanwhile only the late one was, which came to nobody
        finally:
            for hold in holds:
                hold.ends.set()
        return statuses

    def outages():
        return [event for event in events if isinstance(event, StoreOutage)]

    assert asyncio.run(serve()) == [200, 503, 503]
    assert len(outages()) == 1


def test_a_failure_goes_by_the_outage_policy_and_another_exception_reaches_the_app():
    store = Held()
    gateway = built(store=store, name="shop", client_throttle="1/hour", outage="closed")
    store.error = TimeoutError
    with pytest.raises(TimeoutError, match="acquire"):
        ask_in_task(gateway)
    store.fail()
    assert ask_in_task(gateway).status == 503


def test_an_answer_that_nobody_awaits_is_never_asked_for():
    store = FailingStore()
    store.offload = True
    throttle = Throttle({"global": "1/hour"}, store=store, name="shop")

    async def meet():
        with pytest.raises(ProtocolError, match="acquire_async"):
            throttle.acquire()

    asyncio.run(meet())
    assert store.calls == ["open"]


@pytest.mark.parametrize("deadline", [0, 2.5, "1"])
def test_a_deadline_that_is_none_is_refused(deadline):
    store = Blocking()
    store.deadline_ms = deadline
    with pytest.raises(ConfigurationError, match=r"Blocking deadline_ms: .* is not a whole number from 1 to 60,000"):
        Gateway(store=store)


def test_what_else_the_store_has_is_had_through_it():
    store = FailingStore()
    store.offload = True
    with pytest.raises(ConfigurationError, match="<the store> is shared with other processes, so a name is needed"):
        Gateway(store=store)
    with pytest.raises(ConfigurationError, match="<the store> holds no windows"):
        Gateway(store=store, name="shop", client_throttle=Window("1/hour", kind="fixed"))


def test_closing_lets_its_threads_end_and_a_closed_one_is_asked_again():
    store = Blocking()
    gateway = built(store=store, client_throttle="2/hour")
    before = set(threading.enumerate())
    for status in (200, 200, 429):
        assert ask_in_task(gateway).status == status
        asking = set(threading.enumerate()) - before
        close(gateway.store)
        for thread in asking:
            thread.join(PATIENCE)
        assert asking
        assert not any(thread.is_alive() for thread in asking)


def test_it_can_be_copied():
    limits = Throttle({"client": "1/hour"}, store=copy.copy(open_store(Blocking())))
    assert [limits.acquire({"client": "alice"}).allowed for _ in range(2)] == [True, False]
