"""What importing costs: processor time of a fresh interpreter, over one that imports nothing."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import apigate
from benchmarks.measure import Figure, Plan

__all__ = ["figures"]

MODULES = ("apigate", "apigate.asgi", "apigate.wsgi", "limits")


def figures(plan: Plan) -> Iterator[Figure]:
    """Milliseconds added, the median of interleaved runs; each run beside a bare one."""
    modules = [name for name in MODULES if importlib.util.find_spec(name)]
    added: dict[str, list[float]] = {name: [] for name in modules}
    with tempfile.TemporaryDirectory() as cache:
        for name in modules:
            _seconds(f"import {name}", cache)  # compiles it
        for _ in range(plan.rounds // 3 + 2):
            for name in modules:
                bare = (_seconds("pass", cache) + _seconds("pass", cache)) / 2
                added[name].append(_seconds(f"import {name}", cache) - bare)
    for name in modules:
        yield Figure(f"import {name}", median(added[name]) * 1000, "ms")


def _seconds(code: str, cache: str) -> float:
    """Processor time of a new interpreter that runs this code; compiled modules are in `cache`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environ |= {
        "PYTHONPATH": str(Path(apigate.__file__).parents[1]),
        "PYTHONPYCACHEPREFIX": cache,
    }
    code += "; import time; print(time.process_time())"
    run = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True)
    return float(run.stdout)
