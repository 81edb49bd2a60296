"""The first request of a process: its deadline is for the server, and not for loading what the client is made of."""

import os
import subprocess
import sys

import pytest

from tests.servers import ROOT

CALLS = {
    "threads": "throttle.acquire()",
    "tasks": "asyncio.run(call())",
}

SCRIPT = """
import asyncio, sys
from apigate import Throttle
from apigate.stores.redis import RedisStore

async def call():
    await throttle.acquire_async()
    loaded.append(set(sys.modules))
    await store.close_async()

store = RedisStore(sys.argv[1], deadline_ms=10_000)
throttle = Throttle({{"global": "10/second"}}, store=store, name="first")
loaded = [set(sys.modules)]
{call}
loaded.append(set(sys.modules))
print(*sorted(loaded[1] - loaded[0]))
store.close()
"""


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("kind", ["plain", "cluster", "sentinel"])
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_first_call_loads_no_module(request, library, kind, calls):
    server = request.getfixturevalue({"plain": "redis_server"}.get(kind, f"redis_{kind}"))
    uri = server.uri.replace("redis", library, 1)
    loaded = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(call=CALLS[calls]), uri],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (loaded.stdout.split(), loaded.stderr) == ([], "")
