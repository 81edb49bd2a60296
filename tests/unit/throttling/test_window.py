"""Windows as values."""

import pytest

from apigate import ConfigurationError, Gateway, Rate, Window
from apigate.throttling.rate import parse_rates


def test_a_window_is_a_count_a_period_and_a_kind():
    window = Window("5 per 10 minutes", kind="sliding")
    assert (window.count, window.period_us, window.size, window.window) == (5, 600_000_000, 5, 600)
    assert repr(window) == "Window('5/10 minute', kind='sliding')"
    assert str(window) == "5/10 minute in a sliding window"


def test_windows_are_compared_by_what_they_mean():
    assert Window("60/hour", kind="fixed") == Window("60 per 60 minutes", kind="fixed")
    assert len({Window("60/h", kind="fixed"), Window("60/hour", kind="fixed"), Window("60/h", kind="moving")}) == 2
    assert Window("60/hour", kind="fixed") != Rate(60, per=3_600)


def test_the_long_run_is_that_of_a_rate():
    assert Window("90/minute", kind="fixed").per_second == Rate(90, per=60).per_second


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5/month", "'month' in '5/month' has no fixed length; use days, as '30 day'"),
        ("5/year", "'year' in '5/year' has no fixed length; use days, as '365 day'"),
        ("5/minute; burst=9", "is not one count and period without a burst"),
        ("5/minute, 9/hour", "is not one count and period without a burst"),
        ("5/0.5 seconds", "is not a count of at least 1 in whole seconds"),
        ("0/minute", "is not a count of at least 1 in whole seconds"),
        ("100000000000000/week", "is too large for exact arithmetic"),
        ("5/53 weeks", "is not a period"),
        ("five a minute", "is not a rate"),
        (5, "5 is not one count and period"),
        (None, "None is not one count and period"),
    ],
)
def test_what_is_no_window_is_refused(text, why):
    with pytest.raises(ConfigurationError, match=why):
        Window(text, kind="fixed")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigurationError, match="'rolling' is unknown; allowed are fixed, moving, sliding"):
        Window("5/minute", kind="rolling")


def test_a_window_stands_among_rates_and_in_a_table_of_a_file():
    written = {"window": "100/minute", "kind": "moving"}
    assert parse_rates([written, "5/second"]) == (Window("100/minute", kind="moving"), Rate(5))


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"window": "100/minute"}, "write {window = '100/minute', kind = 'moving'}"),
        ({"window": "100/minute", "kind": "moving", "burst": 5}, "is no window"),
        ({"window": "100/month", "kind": "moving"}, "client_throttle: Window: 'month'"),
        ({"window": 100, "kind": "moving"}, "100 is not one count"),
        ({"window": "1/second", "kind": []}, r"\[\] is unknown"),
        ({"rate": "100/minute"}, "is not a rate"),
    ],
)
def test_a_table_that_is_no_window_is_refused_where_it_stands(table, why):
    with pytest.raises(ConfigurationError, match=why):
        Gateway.from_dict({"client_throttle": table})


def test_a_share_keeps_the_period_and_at_least_one():
    assert Window("10/minute", kind="moving").divided(4) == Window("2/minute", kind="moving")
    assert Window("2/5 minutes", kind="fixed").divided(4) == Window("1/5 minutes", kind="fixed")
