"""Stores that several processes share: exact under all of them, and whoever is killed takes nothing along.

Each test takes an address, so that a further store is a further row.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.properties.hammer import ASKED, PLENTY, throttle
from tests.servers import RedisServer

PROCESSES = 4
DEADLINE = 300
KILLS = 300
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["file", "redis"])
def address(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/apigate.state?max_keys=100&deadline_ms=20000"
    else:
        with RedisServer() as server:
            yield f"{server.uri}?deadline_ms=20000"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.properties.hammer", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answers(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Let all go at once; what each writes at last; none of them may fail."""
    for process in processes:
        process.stdin.close()
        process.stdin = None
    printed = [process.communicate(timeout=DEADLINE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return printed


@pytest.mark.parametrize(
    ("levels", "admitted"),
    [
        ({"global": 500, "method": 300, "client": 200}, 500),
        ({"global": 1_000, "method": 150, "client": 200}, 2 * 150),
        ({"global": 1_000, "method": 300, "client": 37}, 4 * 37),
    ],
    ids=["global binds", "methods bind", "clients bind"],
)
@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_4_processes_of_8_are_admitted_as_often_as_the_narrowest_level_allows(address, levels, admitted, how):
    processes = [start(how, address, json.dumps(levels), "150") for _ in range(PROCESSES)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * PROCESSES
    total = sum((Counter(json.loads(answer)) for answer in answers(processes)), Counter())
    assert total.total() == admitted
    limits = throttle(address, levels)
    with closing(limits.store):  # or the garbage collector blames whichever test runs just then
        for keys in ASKED:
            left = limits.peek(keys, cost=0).levels
            method, client = keys["method"], keys["client"]
            assert left["global"].remaining == levels["global"] - admitted
            assert left["method"].remaining == levels["method"] - sum(total[method + other] for other in "abcd")
            assert left["client"].remaining == levels["client"] - sum(total[other + client] for other in "xy")


def test_whoever_is_killed_in_the_middle_leaves_all_of_a_decision_or_nothing(address):
    (answer,) = answers([start("killed", address, str(KILLS))])
    reported = int(answer)
    limits = throttle(address, dict.fromkeys(("global", "method", "client"), PLENTY))
    with closing(limits.store):
        taken = {PLENTY - level.remaining for level in limits.peek(ASKED[0], cost=0).levels.values()}
    assert len(taken) == 1
    assert reported > KILLS
    assert reported <= taken.pop() <= reported + KILLS + 2
