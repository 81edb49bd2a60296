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


@cache
def control_runs():
    return run_over_http(CONTROLS, load_cases())


@cache
def apigate_runs():
    return run_over_http(APIGATE, load_cases())


@pytest.mark.parametrize("served", CONTROLS, ids="-".join)
def test_each_case_of_a_control_ends_as_in_the_real_suite(served):
    outcomes = control_runs()[served]
    known = load_controls()[served.cache]
    differing = {name: (str(each), known[name]) for name, each in outcomes.items() if each.kind != known[name]}
    assert not differing


@pytest.mark.parametrize("served", APIGATE, ids="-".join)
def test_apigate_falls_short_over_http_where_it_is_known_to(served, capsys):
    outcomes = apigate_runs()[served]
    grades = grade_all(load_cases(), outcomes)
    with capsys.disabled():
        print(f"\n{served}: {score(load_cases(), grades)}")
    wanted = known_shortfall(served.cache, over_http=True).keys()
    assert {name: str(outcomes[name]) for name in shortfall(grades) - wanted} == {}
    assert wanted - shortfall(grades) == set(), "these go well now: take them out of the table"
