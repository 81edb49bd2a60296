"""The method table: what routing costs by the number of methods.

Rule: a request asks for the last method of its table, through the whole gate, for that is what must
stay flat. A table holds as many static paths as templates; the lookup of a template is timed alone.
"""

from itertools import repeat

from apigate import Gateway, Method, asgi
from apigate.core.routes import MethodTable
from benchmarks.drive import asgi_batch
from benchmarks.measure import Batch, Case, Group, Plan
from benchmarks.raw_apps import raw_asgi
from benchmarks.throttling import FAST, floor_once

__all__ = ["groups"]

SIZES = (10, 100, 1000)


def groups(_plan: Plan) -> tuple[Group, ...]:
    """Static paths and templates, in tables of three sizes."""
    cases = [case for size in SIZES for case in _cases(size)]
    floor = Case("floor decision", lambda: floor_once(FAST))
    return (Group("Method table", (floor, *cases), rebuilt=False),)


def _cases(size: int) -> tuple[Case, ...]:
    static = f"/pets{size // 2 - 1}"
    return (
        Case(f"request, static path of {size}", lambda: requests(size, static)),
        Case(f"request, template of {size}", lambda: requests(size, f"{static}/7")),
        Case(f"lookup, template of {size}", lambda: lookups(size, f"{static}/7")),
    )


def _methods(size: int) -> dict[str, Method]:
    paths = [f"GET /pets{number}" for number in range(size // 2)]
    return {name: Method() for path in paths for name in (path, path + "/{id}")}


def requests(size: int, path: str) -> Batch:
    methods = {"*": Method(throttle=FAST)} | _methods(size)
    gateway = Gateway(throttle=FAST, client_throttle=FAST, methods=methods)
    return asgi_batch(asgi.GatewayMiddleware(raw_asgi, gateway), path=path, field="ratelimit")


def lookups(size: int, path: str) -> Batch:
    find = MethodTable(_methods(size)).find
    if not find("GET", path):
        raise AssertionError(f"{path} is not in the table")

    def batch(times: int) -> None:
        for _ in repeat(None, times):
            find("GET", path)

    return batch
