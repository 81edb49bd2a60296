"""apigate's scores, in process: they can neither fall nor rise unseen."""

from functools import partial

import pytest

from tests.conformance.cases import MISSING, find_folder, load_cases
from tests.conformance.gateways import PROFILES, build_apigate
from tests.conformance.grading import grade_all, score
from tests.conformance.runner import Between, run_asgi, run_wsgi
from tests.conformance.shortfalls import EARLY_HINTS, known, shortfall

pytestmark = pytest.mark.skipif(find_folder() is None, reason=MISSING)

RUNS = {"asgi": run_asgi, "wsgi": run_wsgi}


def graded(protocol, profile, between, capsys):
    outcomes = RUNS[protocol](partial(build_apigate, profile=profile, protocol=protocol), load_cases(), between)
    grades = grade_all(load_cases(), outcomes)
    with capsys.disabled():
        print(f"\n{protocol}, {profile}, {between}: {score(load_cases(), grades)}")
    return outcomes, grades


def explained(names, outcomes):
    """The cases, and what was wrong, for whoever reads a failed test."""
    return {name: str(outcomes[name]) for name in sorted(names)}


@pytest.mark.parametrize("disconnect", ["exception", "502"])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("protocol", RUNS)
def test_apigate_falls_short_where_it_is_known_to_and_nowhere_else(protocol, profile, disconnect, capsys):
    outcomes, grades = graded(protocol, profile, Between(disconnect=disconnect), capsys)
    wanted = known(profile).keys()
    assert explained(shortfall(grades) - wanted, outcomes) == {}
    assert wanted - shortfall(grades) == set(), "these go well now: take them out of the table"


@pytest.mark.parametrize("protocol", RUNS)
def test_apigate_itself_strips_what_is_hop_by_hop(protocol, capsys):
    outcomes, grades = graded(protocol, "cookies", Between(hop=False, disconnect="exception"), capsys)
    assert explained(shortfall(grades) - known("cookies").keys(), outcomes) == {}
    assert {name: each.replayed for name, each in outcomes.items() if each.replayed} == {}


def test_early_hints_pass_where_the_server_offers_them(capsys):
    outcomes, grades = graded("asgi", "cookies", Between(early_hints=True), capsys)
    wanted = known("cookies").keys() - EARLY_HINTS
    assert explained(shortfall(grades) - wanted, outcomes) == {}
