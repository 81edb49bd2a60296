"""The report, in Markdown: what ran on what, each budget met or missed, then every figure."""

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata

from benchmarks.budgets import BOUNDS, BUDGETS, Budget
from benchmarks.measure import Cost, Figure, Group, Samples

__all__ = ["Measured", "markdown"]

PEERS = ("limits", "throttled-py", "pyrate-limiter", "fastapi", "slowapi", "Flask", "Flask-Limiter")
PREFACE = """\
Written by `python -m benchmarks`; do not edit. A budget is a ratio within one run: each round times
the case and its floor, and the median of the rounds' ratios counts. Microseconds are processor time
(of threads: wall time), and for orientation only.
"""
Measured = Sequence[tuple[Group, Samples] | Figure]
"""What the sections measured, in order."""


def markdown(measured: Measured, how: str) -> str:
    """The whole report."""
    groups = [item for item in measured if not isinstance(item, Figure)]
    figures = [item for item in measured if isinstance(item, Figure)]
    verdicts = [row for group, samples in groups for row in _judged(group, samples)]
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
    if figures:
        rows = [(figure.what, f"{figure.value:,.1f} {figure.unit}") for figure in figures]
        parts += ["## Memory and import\n", _table(("what", "measured"), rows)]
    return "\n".join(parts)


def how(rounds: int, note: str) -> str:
    """What ran, and on what; nothing that tells whose machine it was."""
    peers = ", ".join(f"{name} {version}" for name in PEERS if (version := _version(name)))
    return (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}; {rounds} rounds{note}. Peers: {peers or 'none installed'}."
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _judged(group: Group, samples: Samples) -> Iterator[tuple[str, ...]]:
    for budget in BUDGETS.get(group.title, ()):
        what = f"{group.title}: {budget.what}" + (f" ({budget.note})" if budget.note else "")
        lacking = _lacking(budget, samples)
        if lacking is not None:
            yield what, "", "", f"<= {budget.at_most:.3g}", f"skipped: {lacking} is not installed"
            continue
        low, middle, high = samples.ratio(budget.cost, budget.floor)
        spread = f"{low:.3g} to {high:.3g}"
        yield (
            what,
            f"{middle:.3g} x",
            spread,
            f"<= {budget.at_most:.3g}",
            _verdict(middle, budget.at_most),
        )


def _lacking(budget: Budget, samples: Samples) -> str | None:
    names = (getattr(cost, name) for cost in (budget.cost, budget.floor) for name in ("case", "over", "per"))
    return next((samples.left_out[name] for name in names if name in samples.left_out), None)


def _bounded(figure: Figure) -> tuple[str, ...] | None:
    at_most = BOUNDS.get(figure.what)
    if at_most is None:
        return None
    return (
        figure.what,
        f"{figure.value:,.1f} {figure.unit}",
        "",
        f"<= {at_most:g}",
        _verdict(figure.value, at_most),
    )


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


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
