"""Callers at once, in threads or in tasks: how many calls they get done, and how long the slowest take.

Rule: all that are compared stay connected throughout; one at a time is called, in a fresh order each round, each for as
long as the others; and every single call is timed.
"""

import gc
import random
from asyncio import AbstractEventLoop, gather
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from time import perf_counter
from typing import TypeAlias

from benchmarks.measure import Load, Plan, quiet
from benchmarks.redis_askers import CLIENTS, Ask, AskTask

__all__ = ["Calling", "in_tasks", "in_threads", "measure_callers"]

Calling: TypeAlias = Callable[[float], Sequence[float]]
"""Lets all callers call for so many seconds, and tells how many each call took."""


def measure_callers(title: str, callings: Mapping[str, Calling], left_out: Mapping[str, str], plan: Plan) -> Load:
    """Let each be called in turn, round by round."""
    rounds, seconds = max(1, plan.rounds // 2), max(0.02, 0.25 * plan.scale)
    rates: dict[str, list[float]] = {name: [] for name in callings}
    slowest: dict[str, list[float]] = {name: [] for name in callings}
    order = random.Random(rounds)
    for calling in callings.values():
        calling(seconds)  # connects
    with quiet():
        for _ in range(rounds):
            for name in order.sample(list(callings), len(callings)):
                gc.collect()
                start = perf_counter()
                taken = callings[name](seconds)
                rates[name].append(len(taken) / (perf_counter() - start))
                slowest[name].append(sorted(taken)[len(taken) * 99 // 100])
    return Load(title, rates, left_out, "decisions", slowest)


def _clients(caller: int) -> Iterator[str]:
    """All clients in turn, forever; every caller begins with another one."""
    return islice(cycle(CLIENTS), caller, None)


def in_threads(ask: Ask, callers: int) -> Calling:
    """As many threads, of which each calls again as soon as it has its answer."""

    def call(caller: int, end: float) -> list[float]:
        taken: list[float] = []
        begun = perf_counter()
        for client in _clients(caller):
            assert ask(client), "refused"
            done = perf_counter()
            taken.append(done - begun)
            if done >= end:
                break
            begun = done
        return taken

    def calling(seconds: float) -> Sequence[float]:
        end = perf_counter() + seconds
        if callers == 1:
            return call(0, end)
        with ThreadPoolExecutor(callers) as pool:
            return [each for taken in pool.map(call, range(callers), [end] * callers) for each in taken]

    return calling


def in_tasks(ask: AskTask, callers: int, loop: AbstractEventLoop) -> Calling:
    """The same in tasks of one event loop."""

    async def call(caller: int, end: float) -> list[float]:
        taken: list[float] = []
        begun = perf_counter()
        for client in _clients(caller):
            assert await ask(client), "refused"
            done = perf_counter()
            taken.append(done - begun)
            if done >= end:
                break
            begun = done
        return taken

    async def all_at_once(end: float) -> list[float]:
        return [each for taken in await gather(*(call(caller, end) for caller in range(callers))) for each in taken]

    def calling(seconds: float) -> Sequence[float]:
        return loop.run_until_complete(all_at_once(perf_counter() + seconds))

    return calling
