"""Imports point inwards only.

The tables are the rule; what follows reads them over the syntax tree of every module.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "apigate"

DOMAINS = {"throttling", "caching", "auth", "usage", "versioning", "staging"}
INNER = {"core", *DOMAINS}
GATEWAY = {*INNER, "stores", "gateway", "config", "pipeline", "running_stage", "stage_caches"}
ADAPTERS = {"asgi", "wsgi", "decorators", "flask", "fastapi", "django"}

MAY_IMPORT: dict[str, set[str]] = {
    # a room of apigate: the other rooms it may import. A new room needs a row.
    "core": set(),
    **{domain: {"core"} for domain in DOMAINS},
    "stores": INNER,
    "config": GATEWAY,
    "pipeline": GATEWAY,
    "running_stage": GATEWAY,
    "stage_caches": GATEWAY,
    # Gateway.throttle, explain and lint hand over to rooms of their own, at first use
    "gateway": {*GATEWAY, "cache_decorator", "decorators", "explain", "lint"},
    "audit": GATEWAY,
    "explain": GATEWAY,
    "lint": {*GATEWAY, "findings", "lint_caching"},
    "lint_caching": {*GATEWAY, "findings"},
    "findings": GATEWAY,
    "routing": {"core", "caching"},
    "asgi": {*GATEWAY, "routing", "asgi_exchange"},
    "wsgi": {*GATEWAY, "routing", "wsgi_exchange"},
    "asgi_exchange": {"core", "caching"},
    "wsgi_exchange": {"core", "caching"},
    "decorators": {*GATEWAY, "routing", "endpoint_gate"},
    "cache_decorator": {*GATEWAY, "routing", "decorators", "endpoint_gate"},
    "endpoint_gate": {*GATEWAY, "routing"},
    "flask": {*GATEWAY, "routing", "wsgi", "audit", "cli"},
    "fastapi": {*GATEWAY, "routing", "asgi"},
    "django": {*GATEWAY, "routing", "asgi_exchange", "wsgi_exchange"},
    "testing": {*GATEWAY, *ADAPTERS},
    "demo": {*GATEWAY, *ADAPTERS},
    "cli": {"__init__", "audit", *GATEWAY, *ADAPTERS, "routing", "demo"},
    "__main__": {"cli"},
    "__init__": GATEWAY,
}

EXCEPTIONS = {
    # a primitive that is usable alone needs somewhere to keep its buckets; it is given another store elsewhere
    ("throttling.throttle", "stores"),
}

ONLY_IN = {
    # a module from outside: where it may be imported; a room stands for all that is in it
    "time": {"core.clock"},
    "asyncio": {
        "asgi",
        "asgi_exchange",
        "caching.coalescing",
        "django",
        "core.clock",
        "core.loops",
        "demo",
        "stores",
        "testing",
    },
    "flask": {"demo", "flask", "routing.flask", "routing.flask_exchange"},
    "werkzeug": {"flask", "routing.flask"},
    "fastapi": {"demo"},
    "starlette": {"fastapi", "routing.starlette", "routing.starlette_layers"},
    "django": {"demo", "django", "routing.django", "routing.django_exchange"},
    "asgiref": {"django", "demo"},
    "click": {"flask"},
    "uvicorn": {"cli", "demo"},
    "pydantic": {"demo"},
    "waitress": {"demo"},
    "pytest": {"testing"},
    "cryptography": {"caching.encryption"},
}

AT_FIRST_USE = {"limits", "wrapt", "redis", "valkey"}  # only inside functions: heavy, or extras

CLOCK_READS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def imports(node: ast.AST, *, at_load: bool = True) -> Iterator[tuple[str, bool]]:
    """Every imported name in full, and whether it is imported when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names):
                yield from ((alias.name, at_load) for alias in names)
            case ast.ImportFrom(module, names, level):
                base = "." * level + (module or "")
                yield from ((f"{base}.{alias.name}", at_load) for alias in names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If(ast.Name("TYPE_CHECKING")):
                yield from imports(child, at_load=False)
            case _:
                yield from imports(child, at_load=at_load)


def offends(module: str, name: str, *, at_load: bool) -> bool:
    """Whether `module` ("core.clock") may not import `name` ("apigate.gateway.Gateway")."""
    room = module.partition(".")[0]
    root, *path = name.split(".")
    if root == "apigate":
        target = path[0] if path and path[0] in MAY_IMPORT else "__init__"
        values_only = room == "stores" and target in DOMAINS
        if (module, target) in EXCEPTIONS:
            return False
        return target not in {room, *MAY_IMPORT[room]} or (values_only and "policy" in path)
    if root in ONLY_IN:
        return not ONLY_IN[root] & {room, module}
    if root in AT_FIRST_USE:
        return at_load
    return root not in sys.stdlib_module_names  # of others, or none at all: a relative import


def offences(module: str, source: str) -> list[str]:
    """What in the source of `module` breaks the tables."""
    tree = ast.parse(source)
    found = [name for name, at_load in imports(tree) if offends(module, name, at_load=at_load)]
    if module != "core.clock":
        calls = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [call for call in calls if call.removeprefix("datetime.") in CLOCK_READS]
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(SRC.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_inwards(module):
    assert offences(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_all_modules_were_seen():
    assert {"__init__", "core.clock", "gateway"} <= MODULES.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.message", "from apigate.throttling.rate import Rate"),
        ("throttling.policy", "import apigate.caching.key"),
        ("throttling.policy", "from apigate import caching"),
        ("auth.policy", "def f():\n    from apigate.gateway import Gateway"),
        ("auth.policy", "if TYPE_CHECKING:\n    from apigate.gateway import Gateway"),
        ("gateway", "from apigate.asgi import GatewayMiddleware"),
        ("gateway", "from apigate import Rate"),
        ("gateway", "from .core import errors"),
        ("stores.memory", "from apigate.throttling.policy import ThrottlePolicy"),
        ("wsgi", "import asyncio"),
        ("core.message", "import httpx"),
        ("wsgi", "from starlette.types import Scope"),
        ("throttling.rate", "import time"),
        ("core.clock", "class A:\n    import limits.storage"),
        ("decorators", "import wrapt"),
        ("routing.flask", "import django"),
        ("usage.quota", "import datetime\ndatetime.datetime.now(tz)"),
        ("usage.quota", "from datetime import date\ndate.today()"),
    ],
)
def test_offence_is_found(module, source):
    assert len(offences(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.clock", "import time\nasync def sleep():\n    import asyncio"),
        ("throttling.policy", "from apigate.core import policy\nimport apigate.throttling.rate"),
        ("stores.memory", "from apigate.throttling.rate import Rate"),
        ("fastapi", "from starlette.types import Scope"),
        ("decorators", "def f():\n    import wrapt"),
        ("decorators", "if TYPE_CHECKING:\n    import wrapt"),
        ("usage.quota", "clock.now()\nnow = datetime.fromtimestamp(wall, tz)"),
    ],
)
def test_allowed_import_is_not_an_offence(module, source):
    assert offences(module, source) == []
