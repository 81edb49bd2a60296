"""The one Redis on loopback that all benchmarks of stores share, found as the tests find theirs."""

import atexit
from functools import cache
from typing import TYPE_CHECKING

from benchmarks.measure import missing

if TYPE_CHECKING:
    from tests.servers import RedisServer

__all__ = ["lacking", "server", "why_not"]


@cache
def server() -> "RedisServer":
    """The server, which ends with this process."""
    from tests.servers import RedisServer

    started = RedisServer()
    atexit.register(started.stop)
    return started


@cache
def lacking() -> str:
    """Why nothing can be measured here, in plain words; empty where it can."""
    if missing(("redis",)):
        return "redis is not installed"
    from tests.servers import redis_programs

    return "" if redis_programs() else "there is no redis-server (apt-get install redis-server)"


def why_not(*needs: str) -> str:
    """Why a row that needs these modules cannot be measured here; empty where it can."""
    module = missing(needs)
    return lacking() or (f"{module} is not installed" if module else "")
