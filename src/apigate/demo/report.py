"""What the tour prints, for somebody who sees apigate for the first time."""

import json
from collections.abc import Iterator

from apigate.demo.frameworks import PLAIN, Framework
from apigate.demo.settings import configuration, indented
from apigate.demo.tour import SECOND_CLIENT, Answer, Outcome, Tour

__all__ = ["introduction", "report"]

_GREEN, _RED = 32, 31
_HEADINGS = ("#", "scenario", "sent", "admitted", "refused", "refused by", "Retry-After", "expected")
_NUMBERS = ("#", "sent", "admitted", "refused", "Retry-After")


def introduction(framework: Framework = PLAIN) -> str:
    """What to print before the tour."""
    return f"""\
{framework.introduction}
It is sent real HTTP requests over loopback. These are the gateway's settings:

{indented(configuration("day"))}
A request takes a token at every level that is set for it, or at none where one of them refuses.
Rates are per day here, so that no token flows back meanwhile, and every count is exact.
"""


def report(tour: Tour, *, colour: bool = False) -> str:
    """What was seen on a tour, as a page.

    Args:
        tour: The tour.
        colour: Whether verdicts are coloured, for a terminal.
    """
    parts = [_table(tour, colour=colour), _notes(tour), _refusal(tour), _counts(tour), _summary(tour)]
    if tour.cached:
        parts.insert(3, _cache(tour, colour=colour))
    return "\n".join("".join(f"{line}\n" for line in part) for part in parts)


def _table(tour: Tour, *, colour: bool) -> Iterator[str]:
    """A line for each scenario."""
    cells = [_HEADINGS, *(_cells(number, outcome) for number, outcome in enumerate(tour.all_outcomes, start=1))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    verdicts = ["ok", *(_verdict(ok=outcome.ok, colour=colour) for outcome in tour.all_outcomes)]
    for line, verdict in zip(cells, verdicts, strict=True):
        shown = (
            text.rjust(width) if heading in _NUMBERS else text.ljust(width)
            for heading, text, width in zip(_HEADINGS, line, widths, strict=True)
        )
        yield "  ".join([*shown, verdict])
    if tour.left_out is not None:
        yield f"-  {tour.left_out.title.ljust(widths[1])}  skipped: this machine does not have {SECOND_CLIENT}"


def _cells(number: int, outcome: Outcome) -> tuple[str, ...]:
    scenario, refusals = outcome.scenario, outcome.refusals
    levels = " / ".join(dict.fromkeys(answer.refused_by for answer in refusals)) or "-"
    wait = f"{refusals[0].retry_after} s" if refusals else "-"
    expected = f"{scenario.admitted}, then {scenario.level}" if scenario.level else f"all {scenario.admitted}"
    counts = (len(outcome.answers), outcome.admitted, len(refusals))
    return (str(number), scenario.title, *map(str, counts), levels, wait, expected)


def _verdict(*, ok: bool, colour: bool) -> str:
    text = "ok" if ok else "FAILED"
    return f"\033[{_GREEN if ok else _RED}m{text}\033[0m" if colour else text


def _notes(tour: Tour) -> Iterator[str]:
    """Where the expected numbers come from, and what went wrong."""
    width = max(len(outcome.scenario.request) for outcome in tour.all_outcomes)
    for number, outcome in enumerate(tour.all_outcomes, start=1):
        yield f"{number}  {outcome.scenario.request.ljust(width)}  {outcome.scenario.why}"
        if outcome.failure:
            yield f"   FAILED: {outcome.failure}"


def _refusal(tour: Tour) -> Iterator[str]:
    """One refusal in full."""
    for outcome in tour.outcomes:
        if outcome.refusals:
            yield f"A refusal in full, of {outcome.scenario.request}; its body is laid out for reading:"
            yield ""
            yield indented(_message(outcome.refusals[0])).rstrip("\n")
            return


def _message(answer: Answer) -> str:
    fields = "".join(f"{name}: {value}\n" for name, value in answer.fields)
    return f"HTTP/1.1 {answer.status} {answer.reason}\n{fields}\n{json.dumps(json.loads(answer.body), indent=2)}"


def _cache(tour: Tour, *, colour: bool) -> Iterator[str]:
    """A line for each request that the cache was shown."""
    yield "What the cache of the stage `cached` did, with its clock moved on instead of waiting:"
    yield ""
    cells = [("request", "status", "Age", "Cache-Status", "what happens")]
    cells += [
        (seen.look.request, str(seen.status), "-" if seen.age is None else str(seen.age), seen.cache, seen.look.title)
        for seen in tour.cached
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    verdicts = ["ok", *(_verdict(ok=seen.ok, colour=colour) for seen in tour.cached)]
    for line, verdict in zip(cells, verdicts, strict=True):
        yield "  " + "  ".join([*map(str.ljust, line, widths), verdict])
    yield from (f"  FAILED: {seen.failure}" for seen in tour.cached if seen.failure)


def _counts(tour: Tour) -> Iterator[str]:
    """The gateway's own counters."""
    counts = {
        f"{stage} {method}": ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        for stage, methods in tour.stats.items()
        for method, kinds in methods.items()
        if kinds
    }
    width = max(map(len, counts), default=0)
    yield "What the gateway counted itself, gateway.stats(); requests that match no method stand under *:"
    yield ""
    yield from (f"  {name.ljust(width)}  {kinds}" for name, kinds in counts.items())
    if not tour.is_counted_right:
        yield "  FAILED: these are not the numbers that the clients saw"


def _summary(tour: Tour) -> Iterator[str]:
    good = sum(outcome.ok for outcome in tour.all_outcomes)
    cached = ""
    if tour.cached:
        cached = f" So did {sum(seen.ok for seen in tour.cached)} of {len(tour.cached)} requests to the cache."
    skipped = "" if tour.left_out is None else ", 1 was skipped"
    yield f"{good} of {len(tour.all_outcomes)} scenarios went as configured{skipped}.{cached}"
    yield f"To try it by hand: {tour.framework.command}"
