"""The runner is tried on three trivial caches whose results are known, before anything is measured by it."""

from collections import Counter
from email.utils import parsedate_to_datetime

import pytest

from tests.conformance.cases import MISSING, find_folder, load_cases, load_controls, published_totals
from tests.conformance.controls import CONTROLS, Sticky, around_asgi, around_wsgi
from tests.conformance.conversation import Outcome
from tests.conformance.grading import grade_all, score
from tests.conformance.native import asgi_request, collect_asgi, send_asgi
from tests.conformance.report import SECTIONS, beside_products, by_section
from tests.conformance.runner import Between, run_asgi, run_wsgi, start_clock
from tests.conformance.wire import Answer

pytestmark = pytest.mark.skipif(find_folder() is None, reason=MISSING)

# Where no client library of HTTP stands in the way, this one goes well; section 9.
IN_PROCESS = {("sticky", "headers-store-Transfer-Encoding"): "pass"}

GRADES = {
    "none": {
        "required": {"pass": 9, "fail": 5, "setup_fail": 1, "dependency_fail": 68},
        "optimal": {"optional_fail": 14, "dependency_fail": 40},
        "check": {"yes": 3, "no": 12, "dependency_fail": 35},
    },
    "sticky": {
        "required": {"fail": 7, "setup_fail": 1, "dependency_fail": 75},
        "optimal": {"pass": 5, "optional_fail": 2, "dependency_fail": 47},
        "check": {"yes": 8, "no": 3, "dependency_fail": 39},
    },
    "reval": {
        "required": {"pass": 10, "fail": 8, "dependency_fail": 65},
        "optimal": {"pass": 1, "optional_fail": 13, "dependency_fail": 40},
        "check": {"yes": 3, "no": 19, "setup_fail": 1, "dependency_fail": 27},
    },
}


def outcomes_of(control, protocol):
    if protocol == "asgi":
        return run_asgi(lambda app, clock: around_asgi(CONTROLS[control](), app), load_cases())
    return run_wsgi(lambda app, clock: around_wsgi(CONTROLS[control](), app), load_cases())


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
@pytest.mark.parametrize("control", CONTROLS)
def test_each_case_of_a_control_ends_as_in_the_real_suite(control, protocol):
    outcomes = outcomes_of(control, protocol)
    known = load_controls()[control]
    assert outcomes.keys() == known.keys()
    differing = {
        name: (str(outcome), wanted)
        for name, outcome in outcomes.items()
        if outcome.kind != (wanted := IN_PROCESS.get((control, name), known[name]))
    }
    assert not differing


@pytest.mark.parametrize("control", CONTROLS)
def test_outcomes_are_graded_as_the_real_suite_grades_them(control):
    outcomes = {name: Outcome(kind) for name, kind in load_controls()[control].items()}
    grades = grade_all(load_cases(), outcomes)
    for kind, wanted in GRADES[control].items():
        assert Counter(grades[case.name] for case in load_cases() if case.kind == kind) == wanted


def test_a_cache_that_stores_only_after_its_last_byte_is_found_out():
    def around(app, clock):
        sticky = Sticky()

        async def late(scope, receive, send):
            request = asgi_request(scope)
            kept = sticky.before(request)
            answer = kept if isinstance(kept, Answer) else await collect_asgi(app, scope, receive)
            await send_asgi(send, answer)
            sticky.after(request, [], answer)

        return late

    [case] = [case for case in load_cases() if case.name == "heuristic-200-cached"]  # it has no pause
    assert run_asgi(around, [case])[case.name].kind == "assertion"


def test_a_cache_that_never_answers_does_not_hang_the_runner(monkeypatch):
    monkeypatch.setattr("tests.conformance.runner.PATIENCE", 0.05)

    async def reads_on(scope, receive, send):
        await receive()
        await receive()

    case = load_cases()[0]
    assert run_asgi(lambda app, clock: reads_on, [case])[case.name].kind == "timeout"


def test_without_a_hop_a_cache_that_strips_nothing_is_told_apart():
    outcomes = run_asgi(lambda app, clock: around_asgi(Sticky(), app), load_cases(), Between(hop=False))
    assert outcomes["headers-store-Keep-Alive"] == Outcome("pass", replayed=("Keep-Alive",))
    assert outcomes["headers-omit-headers-listed-in-Connection"].kind == "assertion"


def test_literal_dates_that_must_lie_ahead_do():
    steps = [step for case in load_cases() for step in case.steps]
    dates = [value for step in steps for name, value, *_ in step.get("response_headers", ()) if name == "Expires"]
    literal = [parsedate_to_datetime(value).timestamp() for value in dates if isinstance(value, str)]
    assert literal
    assert min(literal) > start_clock().wall()


def test_the_report_has_a_row_for_each_group_of_cases_and_each_product():
    grades = grade_all(load_cases(), {case.name: Outcome("pass") for case in load_cases()})
    assert score(load_cases(), grades) == (83, 54, 50)
    assert {case.suite for case in load_cases()} == SECTIONS.keys()
    assert by_section(load_cases(), {"ours": grades}).endswith("| **all** | **83/83** | **54/54** | **50/50** |")
    assert len(published_totals()) == 11
    assert "| Squid 6.13 | 64 | 34 | 31 |" in beside_products(load_cases(), {"ours": grades})
