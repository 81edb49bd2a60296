"""Counters that are exact under threads."""

import pytest

from apigate.core.counters import Counters
from tests.threads import in_threads


def test_kinds_are_counted_apart_and_those_that_never_came_are_not_there():
    counters = Counters()
    counters.counter("admitted")
    for kind in ("admitted", "THROTTLED", "admitted"):
        counters.add(kind)
    assert counters.counts() == {"admitted": 2, "THROTTLED": 1}


def test_what_turned_out_to_be_of_another_kind_is_withdrawn():
    counters = Counters()
    counters.add("admitted")
    counters.withdraw("admitted")
    counters.add("THROTTLED")
    assert counters.counts() == {"THROTTLED": 1}


def test_a_counter_and_its_name_are_the_same():
    counters = Counters()
    next(counters.counter("admitted"))
    counters.add("admitted")
    assert counters.counts() == {"admitted": 2}


@pytest.mark.usefixtures("restless_interpreter")
def test_threads_lose_no_count():
    counters = Counters()

    def count():
        for number in range(2_000):
            counters.add(f"kind {number % 20}")

    in_threads([count] * 8)
    assert counters.counts() == {f"kind {number}": 800 for number in range(20)}
