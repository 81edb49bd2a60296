"""The scores as Markdown, for the documentation."""

from collections.abc import Mapping, Sequence

from tests.conformance.cases import Case, published_totals
from tests.conformance.grading import GOOD, Score, score

# What each group of cases is about.
SECTIONS = {
    "cc-freshness": "RFC 9111, 4.2.1: freshness lifetime",
    "cc-parse": "RFC 9111, 4.2.1 and 5.2: parsing Cache-Control",
    "age-parse": "RFC 9111, 5.1: parsing Age",
    "expires": "RFC 9111, 5.3: Expires",
    "expires-parse": "RFC 9110, 5.6.7: parsing dates",
    "cc-response": "RFC 9111, 5.2.2: response directives",
    "stale": "RFC 9111, 4.2.4, and RFC 5861: stale responses",
    "heuristic": "RFC 9111, 4.2.2: heuristic freshness",
    "status": "RFC 9111, 3: status codes",
    "cc-request": "RFC 9111, 5.2.1: request directives",
    "pragma": "RFC 9111, 5.4: Pragma",
    "vary": "RFC 9111, 4.1: Vary",
    "vary-parse": "RFC 9110, 12.5.5: parsing Vary",
    "conditional-lm": "RFC 9111, 4.3: validation by date",
    "conditional-inm": "RFC 9111, 4.3: validation by entity tag",
    "headers": "RFC 9111, 3.1: storing fields",
    "update304": "RFC 9111, 4.3.4: freshening by 304",
    "updateHEAD": "RFC 9111, 4.3.5: freshening by HEAD",
    "invalidation": "RFC 9111, 4.4: invalidation",
    "partial": "RFC 9111, 3.3 and 3.4: partial content",
    "auth": "RFC 9111, 3.5: Authorization",
    "other": "RFC 9111, 2, 3.1 and 5.1: keys, Age, other fields",
    "cdn-cache-control": "RFC 9213: CDN-Cache-Control",
    "interim": "RFC 9110, 15.2: interim responses",
}
KINDS = Score._fields


def by_section(cases: Sequence[Case], runs: Mapping[str, Mapping[str, str]]) -> str:
    """A row for each group of cases, and for each run its required, optimal and check.

    Args:
        cases: The cases.
        runs: For each run, by what it is to be called, the grade of each case.
    """
    rows = [["section", *(f"{run}: {kind}" for run in runs for kind in KINDS)]]
    for suite in dict.fromkeys(case.suite for case in cases):
        group = [case for case in cases if case.suite == suite]
        rows.append([SECTIONS[suite], *(_of(group, grades, kind) for grades in runs.values() for kind in KINDS)])
    rows.append(["**all**", *(f"**{_of(cases, grades, kind)}**" for grades in runs.values() for kind in KINDS)])
    return _table(rows)


def beside_products(cases: Sequence[Case], runs: Mapping[str, Mapping[str, str]]) -> str:
    """What others reach on the same cases, and what we do."""
    totals = [sum(case.kind == kind for case in cases) for kind in KINDS]
    rows = [["cache", *(f"{kind} /{total}" for kind, total in zip(KINDS, totals, strict=True))]]
    rows += [[f"**{run}**", *(f"**{each}**" for each in score(cases, grades))] for run, grades in runs.items()]
    rows += [list(row) for row in published_totals()]
    return _table(rows)


def _of(cases: Sequence[Case], grades: Mapping[str, str], kind: str) -> str:
    of_kind = [case for case in cases if case.kind == kind]
    return f"{sum(grades[case.name] in GOOD for case in of_kind)}/{len(of_kind)}" if of_kind else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "| --- |" + " ---: |" * (len(rows[0]) - 1), *others])
