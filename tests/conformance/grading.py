"""From outcomes to grades and scores; section 7."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.conformance.cases import Case
from tests.conformance.conversation import Outcome

GOOD = ("pass", "yes")
_BAD = {"required": "fail", "optimal": "optional_fail", "check": "no"}


class Score(NamedTuple):
    """What counts."""

    required: int
    optimal: int
    check: int


def grade_all(cases: Iterable[Case], outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """The grade of each case."""
    known = {case.name: case for case in cases}
    grades: dict[str, str] = {}

    def grade(name: str) -> str:
        if name not in grades:
            case, outcome = known[name], outcomes[name].kind
            if any(grade(other) not in GOOD for other in case.depends_on):
                grades[name] = "dependency_fail"
            else:
                grades[name] = _alone(case, outcome)
        return grades[name]

    return {name: grade(name) for name in known}


def _alone(case: Case, outcome: str) -> str:
    match outcome:
        case "setup":
            return "setup_fail"
        case "retry":
            return "retry"
        case "timeout":
            return "harness_fail"
        case "pass":
            return "yes" if case.kind == "check" else "pass"
        case _:
            return _BAD[case.kind]


def score(cases: Iterable[Case], grades: Mapping[str, str]) -> Score:
    """How many passed, and how many questions were answered yes."""
    good = [case.kind for case in cases if grades[case.name] in GOOD]
    return Score(*(good.count(kind) for kind in Score._fields))
