"""The command line: measure the sections asked for, print the report, write it."""

import argparse
import cProfile
import pstats
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from benchmarks import (
    cache_keys,
    cache_servers,
    caching,
    eviction,
    file_store,
    frameworks,
    gate,
    imports,
    memory,
    methods,
    outages,
    redis_counts,
    redis_store,
    report,
    servers,
    throttling,
)
from benchmarks.measure import Case, Figure, Group, Load, Plan, Samples, measure, missing, pinned

FULL = Plan(rounds=60, batch=0.004, scale=1.0)
QUICK = Plan(rounds=3, batch=0.0005, scale=0.02)
SMOKE = ", a smoke whose figures mean nothing"
TOGGLE = "--toggle-collect=_PyEval_CallTracing"
RESULTS = Path(__file__).with_name("RESULTS.md")


class Section(NamedTuple):
    """A part of the report: cases that are timed, figures measured in another way, servers under load."""

    groups: Callable[[Plan], Iterable[Group]] = lambda _plan: ()
    figures: Callable[[Plan], Iterable[Figure]] = lambda _plan: ()
    loads: Callable[[Plan], Iterable[Load]] = lambda _plan: ()


SECTIONS = {
    "throttling": Section(throttling.groups),
    "memory": Section(memory.groups, memory.figures),
    "gate": Section(gate.groups),
    "frameworks": Section(frameworks.groups),
    "methods": Section(methods.groups),
    "caching": Section(caching.groups, cache_keys.figures, cache_servers.loads),
    "eviction": Section(eviction.groups, eviction.figures),
    "file-store": Section(file_store.groups, file_store.figures),
    "import": Section(figures=imports.figures),
    "servers": Section(loads=servers.loads),
    "outages": Section(figures=outages.figures),
    "redis": Section(redis_store.groups, redis_counts.figures, redis_store.loads),
}


def main() -> None:
    """Measure what is asked for, print the report, and write it where it belongs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", choices=SECTIONS, action="append", help="this section alone; may be repeated")
    add("--quick", action="store_true", help="show that all of it runs; writes only to --out")
    add("--rounds", type=int, help=f"instead of {FULL.rounds}")
    add("--out", type=Path, help=f"the file to write; default {RESULTS.name} if all was measured")
    add("--profile", metavar="CASE", help="show where the time of the cases so named goes")
    add("--count", metavar="CASE", help=f"for callgrind {TOGGLE}: run the one case so named 1,000 times")
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else FULL
    plan = Plan(chosen.rounds or plan.rounds, plan.batch, plan.scale)
    sections = [SECTIONS[name] for name in chosen.only or SECTIONS]
    if chosen.profile:
        profile(plan, sections, chosen.profile)
        return
    if chosen.count:
        count(plan, sections, chosen.count)
        return
    measured = list(run(plan, sections))
    text = report.markdown(measured, report.how(plan.rounds, SMOKE * chosen.quick))
    print(text)
    whole = not chosen.quick and not chosen.only
    out = chosen.out or (RESULTS if whole else None)
    if out is not None:
        out.write_text(text, encoding="utf-8")


def run(plan: Plan, sections: Sequence[Section]) -> Iterator[tuple[Group, Samples] | Load | Figure]:
    """Measure the sections one after the other, telling on stderr how far it is."""
    for section in sections:
        for group in section.groups(plan):
            print(f"{group.title} ...", file=sys.stderr)
            with nullcontext() if group.waits else pinned():
                samples = measure(group, plan)
            yield group, samples
        for load in section.loads(plan):
            print(f"{load.title} ...", file=sys.stderr)
            yield load
        for figure in section.figures(plan):
            print(f"{figure.what} ...", file=sys.stderr)
            yield figure


def profile(plan: Plan, sections: Sequence[Section], name: str) -> None:
    """Run the cases whose group and name contain this under the profiler; if none, list them."""
    cases = named(plan, sections)
    found = {title: case for title, case in cases.items() if name.lower() in title.lower()}
    for title, case in found.items():
        print(f"\n# {title}\n")
        show(case)
    if not found:
        print(f"No case is named {name!r}; there are:", *cases, sep="\n  ")


def named(plan: Plan, sections: Sequence[Section]) -> Mapping[str, Case]:
    """The cases that are timed, by group and name."""
    return {
        f"{group.title}: {case.name}": case
        for section in sections
        for group in section.groups(plan)
        for case in group.cases
    }


def show(case: Case, times: int = 20_000, lines: int = 10) -> None:
    """The functions in which a case spends its time, their own time first; calls are exact, and time is inflated."""
    if (module := missing(case.needs)) is not None:
        print(f"skipped: {module} is not installed")
        return
    batch = case.build()
    batch(1000)
    profiler = cProfile.Profile()
    profiler.runcall(batch, times)
    found = pstats.Stats(profiler).strip_dirs().stats
    costly = sorted(found.items(), key=lambda item: item[1][2], reverse=True)
    calls, time = (sum(cost[place] for cost in found.values()) for place in (1, 2))
    print("| calls a request | of the time | function |\n| --- | --- | --- |")
    for (file, line, function), cost in costly[:lines]:
        where = f"{file}:{line} " if line else ""
        print(f"| {cost[1] / times:.2f} | {cost[2] / time:.1%} | {where}`{function}` |")
    print(f"| {calls / times:.1f} | 100 % | all {len(costly)} |")


def count(plan: Plan, sections: Sequence[Section], title: str) -> None:
    """Run a case a thousand times inside a function of the interpreter that nothing else calls."""
    batch = named(plan, sections)[title].build()
    batch(1000)
    sys.call_tracing(batch, (1000,))


if __name__ == "__main__":
    main()
