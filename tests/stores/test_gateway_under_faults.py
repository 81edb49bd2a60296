"""Gateways under load on a real Redis, which is killed, paused, cut off, filled, made a replica, or loses its scripts.

Each policy of an outage has a gateway that threads ask (WSGI) and one that tasks ask (ASGI); these two share a limit.
A fault stands until everybody has been answered in it several times, however long that takes: so nobody has waited for
the server. What was admitted is held to the formulas of docs/explanation/outages.md, by the time that all of it took.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from typing import Any, NamedTuple, Self

import pytest

from apigate import Gateway, Rate
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.stores import redis_line
from tests.gateway.asking import Answer, ask, ask_in_task, task_asks
from tests.outages import attempts_end
from tests.relay import Relay
from tests.servers import DEADLINE, RedisServer, until
from tests.threads import in_threads

POLICIES = ("local", "closed", "open")
CLIENTS = {"WSGI": 4, "ASGI": 8}
"""How many ask each gateway at the same time: threads, and tasks of the one loop that all gateways of tasks have."""

WORKERS = len(CLIENTS)  # gateways that share a limit, as processes do
RATE, BURST = 1, 20  # a second
SHARE = BURST // WORKERS

PATIENT_MS, PAUSED_MS = 30_000, 3_000
"""The stores' deadlines: one that only a fault of apigate's makes anybody wait for, and one that is waited for."""

PAUSE = 0.005  # between a client's requests, for the others to have their turn
ROUNDS = 5
"""How often each client is answered before a fault, in it, and after it."""


class Told(NamedTuple):
    """What a client was told, and when it had asked.

    Attributes:
        status: The status, or the exception that none should have seen.
        is_local: Of a request that was admitted, whether that was without the store.
    """

    begun: float
    ended: float
    status: int | Exception
    is_local: bool | None = None


@dataclass
class Client:
    """Somebody who asks a gateway time and again."""

    gateway: Gateway
    told: list[Told] = field(default_factory=list)

    def ask_in_thread(self, stopping: Event) -> None:
        while not stopping.wait(PAUSE):
            with self.hearing() as answers:
                answers.append(ask(self.gateway))

    async def ask_in_task(self, stopping: Event) -> None:
        while not stopping.is_set():
            with self.hearing() as answers:
                answers.append(await task_asks(self.gateway))
            await asyncio.sleep(PAUSE)

    @contextmanager
    def hearing(self) -> Iterator[list[Answer]]:
        answers: list[Answer] = []
        begun = monotonic()
        try:
            yield answers
        except Exception as error:  # noqa: BLE001 - whichever it is
            self.told.append(Told(begun, monotonic(), error))
        for answer in answers:
            is_local = answer.context.decision.local if answer.status == 200 else None
            self.told.append(Told(begun, monotonic(), answer.status, is_local))

    def has_been_answered(self, since: float, rounds: int) -> bool:
        return len(self.told) >= rounds and self.told[-rounds].begun >= since


class Gate:
    """A gateway, those who ask it, and what it told of its store."""

    def __init__(self, uri: str, policy: str, way: str) -> None:
        self.changes: list[StoreOutage | StoreRecovered] = []
        self.policy, self.way = policy, way
        self.gateway = Gateway(
            name=policy,
            store=uri,
            outage=policy,
            workers=WORKERS,
            throttle=Rate(10_000),
            client_throttle=Rate(RATE, burst=BURST),
            on_event=self._hear,
        )
        self.clients = [Client(self.gateway) for _ in range(CLIENTS[way])]

    def _hear(self, event: object) -> None:
        if isinstance(event, StoreOutage | StoreRecovered):
            self.changes.append(event)

    def has_told(self, kind: type) -> bool:
        return any(isinstance(change, kind) for change in list(self.changes))

    def ask(self, **given: Any) -> Answer:
        return ask(self.gateway, **given) if self.way == "WSGI" else ask_in_task(self.gateway, **given)

    @property
    def told(self) -> list[Told]:
        return [told for client in self.clients for told in list(client.told)]


class Load:
    """Every gateway on one Redis, and the clients of all."""

    def __init__(self, port: int) -> None:
        uri = f"redis://127.0.0.1:{port}/0?deadline_ms={PATIENT_MS}&denial_cache=0"  # so every request asks the server
        self.gates = [Gate(uri, policy, way) for policy in POLICIES for way in CLIENTS]
        self.clients = [client for gate in self.gates for client in gate.clients]
        self._stopping = Event()
        threads: list[Callable[[], object]] = [
            lambda client=client: client.ask_in_thread(self._stopping) for client in self._clients("WSGI")
        ]
        self._asking = Thread(target=in_threads, args=([*threads, lambda: asyncio.run(self._loop())],), daemon=True)

    def _clients(self, way: str) -> list[Client]:
        return [client for gate in self.gates if gate.way == way for client in gate.clients]

    async def _loop(self) -> None:
        await asyncio.gather(*(client.ask_in_task(self._stopping) for client in self._clients("ASGI")))

    def set_deadline(self, milliseconds: int) -> None:
        """For the calls to come; no store is to change it while it runs, but here the machine is to do no harm."""
        for gate in self.gates:
            gate.gateway.store.store.connections.deadline_ms = milliseconds

    def all_answered(self, meanwhile: Callable[[], None] = lambda: None, rounds: int = ROUNDS) -> tuple[float, float]:
        """Wait until each client has been answered so often what it asks from now on; tells from when to when."""
        since = monotonic()

        def are_answered() -> bool:
            meanwhile()
            return all(client.has_been_answered(since, rounds) for client in self.clients)

        until(are_answered, "every client is answered")
        return since, monotonic()

    def all_told(self, kind: type) -> bool:
        return all(gate.has_told(kind) for gate in self.gates)

    def of(self, policy: str) -> list[Told]:
        """What the clients of both gateways of a policy were told."""
        return [told for gate in self.gates if gate.policy == policy for told in gate.told]

    def __enter__(self) -> Self:
        self._asking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._asking.join(DEADLINE)
        assert not self._asking.is_alive()
        attempts_end()
        for gate in self.gates:
            gate.gateway.store.close()


# ---- faults: each stands as long as it is entered


@dataclass
class Place:
    """The server, what lies before it, and the load on it."""

    server: RedisServer
    relay: Relay
    load: Load


@contextmanager
def killed(place: Place) -> Iterator[None]:
    place.server.kill()
    yield
    place.server.start()


@contextmanager
def paused(place: Place) -> Iterator[None]:
    """Only while it stands has a call a deadline that a busy machine, too, might have it miss."""
    place.load.set_deadline(PAUSED_MS)
    place.load.all_answered(rounds=1)  # so no call under way has the other one
    place.server.pause()
    yield
    place.load.set_deadline(PATIENT_MS)
    place.server.resume()


@contextmanager
def cut_in_mid_call(place: Place) -> Iterator[None]:
    """No call ends but by the end of its connection, until those who asked before the outage have been answered."""
    place.relay.hold()
    until(lambda: place.relay.cut() or place.load.all_told(StoreOutage), "every gateway's call is cut")
    place.load.all_answered(meanwhile=place.relay.cut)
    yield
    place.relay.release()


@contextmanager
def full(place: Place) -> Iterator[None]:
    place.server.fill()
    yield
    place.server.drain()


@contextmanager
def read_only(place: Place) -> Iterator[None]:
    place.server.command("REPLICAOF", "127.0.0.1", 1)  # of nobody, so it keeps what it has
    yield
    place.server.command("REPLICAOF", "NO", "ONE")


# ---- what is shown


def between(told: list[Told], since: float, to: float) -> list[Told]:
    return [each for each in told if since <= each.begun and each.ended <= to]


def admitted(told: list[Told], *, local: bool) -> int:
    return sum(each.is_local is local for each in told)


def assert_within_bounds(load: Load, losses: int) -> None:
    """Nobody admits more than is stated: not the store, which may have lost its memory, and not the shares."""
    for policy in POLICIES:
        told = load.of(policy)
        seconds = max(each.ended for each in told) - min(each.begun for each in told)
        assert admitted(told, local=False) <= BURST * (1 + losses) + RATE * seconds
        if policy != "open":
            shares = WORKERS * SHARE + RATE * seconds if policy == "local" else 0
            assert admitted(told, local=True) <= shares


DURING = {"local": {200, 429}, "closed": {503}, "open": {200}}
"""What each policy has those told who ask in an outage."""


@pytest.mark.parametrize("fault", [killed, paused, cut_in_mid_call, full, read_only])
def test_a_fault_under_load_is_one_outage_that_nobody_waits_for_and_that_ends_by_itself(
    own_redis, relay, monkeypatch, fault
):
    monkeypatch.setattr(redis_line, "_LATE_S", 60)  # a busy machine's loop hears late that a server does not answer
    with Load(relay.port if fault is cut_in_mid_call else own_redis.port) as load:
        load.all_answered()
        assert [gate.changes for gate in load.gates if gate.changes] == []
        with fault(Place(own_redis, relay, load)):
            until(lambda: load.all_told(StoreOutage), "every gateway notices")
            during = load.all_answered()
        until(lambda: load.all_told(StoreRecovered), "every gateway recovers")
        after = load.all_answered()
        others = [gate.ask(peer="192.0.2.2") for gate in load.gates]

    assert {told.status for gate in load.gates for told in gate.told} <= {200, 429, 503}
    assert_within_bounds(load, losses=1 if fault is killed else 0)
    assert [(other.status, other.context.decision.local) for other in others] == [(200, False)] * len(load.gates)
    for gate in load.gates:
        assert [type(change) for change in gate.changes] == [StoreOutage, StoreRecovered]
        assert {told.status for told in between(gate.told, *during)} <= DURING[gate.policy]
        assert admitted(between(gate.told, *during), local=False) == 0
        assert admitted(gate.told, local=True) > 0 or gate.policy == "closed"
        assert {told.status for told in between(gate.told, *after)} <= {200, 429}
        assert admitted(between(gate.told, *after), local=True) == 0


def test_scripts_that_the_server_forgets_under_load_are_no_fault(own_redis):
    with Load(own_redis.port) as load:
        for _ in range(5):
            load.all_answered()
            own_redis.command("SCRIPT", "FLUSH")
        load.all_answered()

    assert_within_bounds(load, losses=0)
    assert [gate.changes for gate in load.gates if gate.changes] == []
    for policy in POLICIES:
        assert {told.status for told in load.of(policy)} == {200, 429}
        assert admitted(load.of(policy), local=True) == 0
