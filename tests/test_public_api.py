"""What `import apigate` promises: the reviewed names, each explained, and nothing heavy loaded."""

import subprocess
import sys

import pytest

import apigate

# Changed only on purpose, together with the CHANGELOG.
PUBLIC = {
    "CORS",
    "ApigateError",
    "CachePolicy",
    "ConfigurationError",
    "Decision",
    "Gateway",
    "GatewayResponse",
    "LevelState",
    "Method",
    "ProtocolError",
    "Rate",
    "Reservation",
    "ResponseCache",
    "Stage",
    "StoreError",
    "StoreTimeoutError",
    "Throttle",
    "Throttled",
    "Window",
}

CLIENTS = {"limits", "wrapt", "redis", "uvicorn"}
STORES = {f"apigate.stores.{module}" for module in ("address", "memory", "memory_windows", "shown")}
FRAMEWORKS = {"django", "fastapi", "flask", "starlette", "werkzeug"}


def test_public_names_are_the_reviewed_list():
    assert set(apigate.__all__) == PUBLIC


def test_public_names_are_unique():
    assert sorted(apigate.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_has_its_own_docstring(name):
    assert vars(getattr(apigate, name)).get("__doc__")


def test_import_loads_nothing_heavy():
    script = "import apigate, sys; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", script], text=True).split())
    assert "apigate" in loaded
    assert not loaded & {"asyncio", *CLIENTS, *FRAMEWORKS}
    assert {name for name in loaded if name.startswith("apigate.stores.")} == STORES
