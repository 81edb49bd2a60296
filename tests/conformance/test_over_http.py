"""The cases over real HTTP: uvicorn and waitress, real sockets, real pauses of three seconds.

All 187 cases run through both; those of one test run at the same time, so each takes about twelve seconds.
"""

from functools import cache

import pytest

from tests.conformance.cases import MISSING, find_folder, load_cases, load_controls
from tests.conformance.grading import grade_all, score
from tests.conformance.over_http import Served, run_over_http
from tests.conformance.shortfalls import known as known_shortfall
from tests.conformance.shortfalls import shortfall

pytestmark = pytest.mark.skipif(find_folder() is None, reason=MISSING)

CONTROLS = [
    Served("asgi", "none", "502"),
    Served("wsgi", "none", "502"),
    Served("asgi", "sticky", "exception"),
    Served("wsgi", "reval", "exception"),
]
APIGATE = [
    Served("asgi", "default", "502"),
    Served("asgi", "cookies", "exception"),
    Served("wsgi", "default", "exception"),
    Served("wsgi", "cookies", "502"),
]


def run_until_as_known(served, differing):
    """Run all; the cases that end otherwise than is known once more, and again: a busy machine stretches a pause.

    What ends so three times is no chance. The runner with the injected clock, in process, has one try.
    """
    cases = load_cases()
    runs = run_over_http(served, cases)
    for _ in range(2):
        again = {name for each in served for name in differing(each, runs[each])}
        if again:
            for each, outcomes in run_over_http(served, [case for case in cases if case.name in again]).items():
                wrong = differing(each, runs[each])
                runs[each].update({name: outcome for name, outcome in outcomes.items() if name in wrong})
    return runs


def unlike_the_suite(served, outcomes):
    known = load_controls()[served.cache]
    return {name: (str(each), known[name]) for name, each in outcomes.items() if each.kind != known[name]}


def unlike_the_table(served, outcomes):
    """The cases that fall short and should not, and the reverse."""
    return shortfall(grade_all(load_cases(), outcomes)) ^ known_shortfall(served.cache, over_http=True).keys()


@cache
def control_runs():
    return run_until_as_known(CONTROLS, unlike_the_suite)


@cache
def apigate_runs():
    return run_until_as_known(APIGATE, unlike_the_table)


@pytest.mark.parametrize("served", CONTROLS, ids="-".join)
def test_each_case_of_a_control_ends_as_in_the_real_suite(served):
    assert not unlike_the_suite(served, control_runs()[served])


@pytest.mark.parametrize("served", APIGATE, ids="-".join)
def test_apigate_falls_short_over_http_where_it_is_known_to(served, capsys):
    outcomes = apigate_runs()[served]
    grades = grade_all(load_cases(), outcomes)
    with capsys.disabled():
        print(f"\n{served}: {score(load_cases(), grades)}")
    wanted = known_shortfall(served.cache, over_http=True).keys()
    assert {name: str(outcomes[name]) for name in shortfall(grades) - wanted} == {}
    assert wanted - shortfall(grades) == set(), "these go well now: take them out of the table"
