"""A process that hammers overlapping levels with eight threads, in a store given by its address, at one frozen instant.

`python -m tests.properties.hammer threads ADDRESS LEVELS CALLS` says `ready`, waits until its input ends, and writes
how often each method and client was admitted; `tasks` does it with as many tasks of an event loop. `killed ADDRESS
KILLS` forks processes that it kills in the middle of their work.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
import threading
import time
from collections import Counter
from itertools import product

from apigate import Rate, Throttle
from apigate.stores.address import open_store
from apigate.testing import FakeClock

__all__ = ["ASKED", "PLENTY", "throttle"]

THREADS = 8
PLENTY = 600_000
"""About as much as a bucket of an hour can hold; those that are killed would come to its end in ten seconds or more."""
ASKED = [{"method": method, "client": client} for method, client in product("xy", "abcd")]
HOUR = 3_600


def throttle(address: str, levels: dict[str, int]) -> Throttle:
    """Levels whose buckets hold so much, and get nothing back, as no time passes."""
    rates = {level: Rate(1, per=HOUR, burst=burst) for level, burst in levels.items()}
    return Throttle(rates, store=open_store(address, print), clock=FakeClock(), name="hammer")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def by_threads(address: str, levels: str, calls: str) -> None:
    limits = throttle(address, json.loads(levels))
    admitted: list[Counter[str]] = []

    def hit(seed: int) -> None:
        mine: Counter[str] = Counter()
        for keys in random.Random(seed).choices(ASKED, k=int(calls)):
            mine[keys["method"] + keys["client"]] += limits.acquire(keys).allowed
        admitted.append(mine)

    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=hit, args=(os.getpid() * THREADS + number,)) for number in range(THREADS)]
    say("ready")
    sys.stdin.read()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(json.dumps(sum(admitted, Counter())))


def by_tasks(address: str, levels: str, calls: str) -> None:
    limits = throttle(address, json.loads(levels))

    async def hit(seed: int) -> Counter[str]:
        mine: Counter[str] = Counter()
        for keys in random.Random(seed).choices(ASKED, k=int(calls)):
            mine[keys["method"] + keys["client"]] += (await limits.acquire_async(keys)).allowed
        return mine

    async def hammer() -> list[Counter[str]]:
        return await asyncio.gather(*[hit(os.getpid() * THREADS + number) for number in range(THREADS)])

    say("ready")
    sys.stdin.read()
    say(json.dumps(sum(asyncio.run(hammer()), Counter())))


def killed(address: str, kills: str) -> None:
    """Write how many admissions the killed reported; each may have been admitted once more without a report.

    They are killed at random moments, but for a machine so busy that they hardly come to work: then a kill waits until
    there have been more reports than kills.
    """
    limits = throttle(address, dict.fromkeys(("global", "method", "client"), PLENTY))
    heard, said = os.pipe()
    os.set_blocking(heard, False)
    reported = 0
    moments = random.Random(kills)
    alive: list[tuple[float, int]] = []
    for number in range(1, int(kills) + 1):
        while len(alive) < 3:
            child = os.fork()
            if child == 0:
                while limits.acquire(ASKED[0]).allowed:
                    os.write(said, b"+")
                os._exit(1)
            alive.append((time.monotonic() + moments.uniform(0, 0.008), child))
        due, child = alive.pop(0)
        while (left := due - time.monotonic()) > 0 or reported <= number:
            if select.select([heard], [], [], left if reported > number else None)[0]:
                reported += len(os.read(heard, 1 << 16))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for _, child in alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    while select.select([heard], [], [], 0)[0]:
        reported += len(os.read(heard, 1 << 16))
    say(str(reported))


if __name__ == "__main__":
    _, command, *arguments = sys.argv
    {"threads": by_threads, "tasks": by_tasks, "killed": killed}[command](*arguments)
