"""Rates, and the text they are written in."""

import copy
from datetime import timedelta

import pytest

from apigate import ConfigurationError, Rate
from apigate.throttling import parse_rates

DAY = 86_400


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/second", Rate(100)),
        ("100 / second", Rate(100)),
        ("100 per second", Rate(100)),
        ("  100/second  ", Rate(100)),
        ("1_000/second", Rate(1_000)),
        ("100/seconds", Rate(100)),
        ("100/s", Rate(100)),
        ("100/sec", Rate(100)),
        ("100/Second", Rate(100)),
        ("5/minute", Rate(5, per=60)),
        ("5/min", Rate(5, per=60)),
        ("5/m", Rate(5, per=60)),
        ("5/hour", Rate(5, per=3_600)),
        ("5/h", Rate(5, per=3_600)),
        ("5/day", Rate(5, per=DAY)),
        ("5/d", Rate(5, per=DAY)),
        ("5/week", Rate(5, per=7 * DAY)),
        ("5/w", Rate(5, per=7 * DAY)),
        ("5 per 10 minutes", Rate(5, per=600)),
        ("5/10minutes", Rate(5, per=600)),
        ("5/10 min", Rate(5, per=600)),
        ("1/0.25 second", Rate(1, per=0.25)),
        ("1/1.5 hours", Rate(1, per=5_400)),
        ("50/second; burst=100", Rate(50, burst=100)),
        ("50/second;burst=100", Rate(50, burst=100)),
        ("50/second; BURST = 1_00", Rate(50, burst=100)),
        ("50/second, burst=100", Rate(50, burst=100)),
    ],
)
def test_text_of_one_rate(text, rate):
    assert parse_rates(text) == (rate,)


@pytest.mark.parametrize("joint", [",", "|", ";", " , ", " | ", " ; "])
def test_rates_are_joined_by_any_of_three_signs(joint):
    assert parse_rates(joint.join(["10/second", "100/minute"])) == (Rate(10), Rate(100, per=60))


def test_a_burst_belongs_to_the_rate_before_it():
    first, second, third = parse_rates("10/second; burst=20, 100/minute | 1000/hour; burst=50")
    assert (first.burst, second.burst, third.burst) == (20, 100, 50)


def test_a_list_may_mix_rates_and_texts():
    assert parse_rates([Rate(1), "2/minute, 3/hour", [Rate(4)]]) == (
        Rate(1),
        Rate(2, per=60),
        Rate(3, per=3_600),
        Rate(4),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a rate"),
        ("second", "is not a rate"),
        ("10", "is not a rate"),
        ("10 second", "is not a rate"),
        ("10/", "is not a rate"),
        ("-1/second", "is not a rate"),
        ("+1/second", "is not a rate"),
        ("1.5/second", "is not a rate"),
        ("1e3/second", "is not a rate"),
        ("1__0/second", "is not a rate"),
        ("_1/second", "is not a rate"),
        ("10//second", "is not a rate"),
        ("10/second/", "is not a rate"),
        ("10perminute", "is not a rate"),
        ("10/second 5/minute", "is not a rate"),
        ("10/second,", "is not a rate"),
        (",10/second", "is not a rate"),
        ("10/second; burst=", "is not a rate"),
        ("10/second; burst=1.5", "is not a rate"),
        ("10/second; burst=-1", "is not a rate"),
        ("10/second burst=5", "is not a rate"),
        ("10/second; bursts=5", "is not a rate"),
        ("\u0661\u0660/second", "is not a rate"),
        ("10/\u017fecond", "is not a rate"),
        ("burst=5", "follows no rate of its own"),
        ("burst=5; 10/second", "follows no rate of its own"),
        ("10/second; burst=5; burst=6", "follows no rate of its own"),
        ("0/second", "not a whole number of at least 1"),
        ("10/second; burst=0", "not a whole number of at least 1"),
        ("10/0 seconds", "is not a period"),
        ("10/0.0000001 second", "is not a period"),
        ("10/53 weeks", "is not a period"),
        ("10/fortnight", "is no unit; allowed are second, minute, hour, day, week"),
        ("10/ms", "is no unit"),
        ("10/ss", "is no unit"),
    ],
)
def test_what_is_no_rate_is_refused_with_the_reason(text, why):
    with pytest.raises(ConfigurationError, match=why) as error:
        parse_rates(text, "Stage 'prod' throttle")
    assert str(error.value).startswith("Stage 'prod' throttle: ")


@pytest.mark.parametrize(("unit", "days"), [("month", 30), ("months", 30), ("year", 365), ("Years", 365)])
def test_calendar_units_are_refused_with_the_days_to_write_instead(unit, days):
    with pytest.raises(ConfigurationError, match=rf"no fixed length; use days, as '{days} day'$"):
        parse_rates(f"1000/{unit}")
    assert parse_rates(f"1000/{days} day") == (Rate(1000, per=days * 86_400),)


@pytest.mark.parametrize("value", [None, 5, 5.0, True, b"1/second", {}, [], (), [[]], {"1/second"}, object()])
def test_what_is_no_text_and_no_rate_is_refused(value):
    with pytest.raises(ConfigurationError, match="is not a rate"):
        parse_rates(value)


@pytest.mark.parametrize(
    "text", ["9" * 5_000 + "/second", "1/second; burst=" + "9" * 5_000, "1/" + "9" * 400 + " second"]
)
def test_numbers_of_any_length_are_a_configuration_error(text):
    """Python itself refuses to read numbers of more than 4,300 digits, with another error."""
    with pytest.raises(ConfigurationError):
        parse_rates(text)


@pytest.mark.parametrize("count", [0, -1, 1.5, 1.0, "1", None, True, float("nan")])
def test_a_count_is_a_whole_number_of_at_least_1(count):
    with pytest.raises(ConfigurationError, match="Rate count"):
        Rate(count)


def test_a_count_of_any_length_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"Rate count.*too large"):
        Rate(10**5_000)
    with pytest.raises(ConfigurationError, match=r"Rate burst.*too large"):
        Rate(1, burst=10**5_000)


def test_a_fraction_of_a_token_is_answered_with_the_longer_period():
    with pytest.raises(ConfigurationError, match=r"make the period longer, as in Rate\(1, per=10\)"):
        Rate(0.1)


@pytest.mark.parametrize("burst", [0, -1, 1.5, "1", True])
def test_a_burst_is_a_whole_number_of_at_least_1(burst):
    with pytest.raises(ConfigurationError, match="Rate burst"):
        Rate(1, burst=burst)


@pytest.mark.parametrize(
    "per", [0, -1, 0.0000001, 367 * DAY, float("inf"), float("nan"), "1", None, True, timedelta(0), timedelta(days=-1)]
)
def test_a_period_is_from_a_microsecond_to_366_days(per):
    with pytest.raises(ConfigurationError, match="Rate per"):
        Rate(1, per=per)


@pytest.mark.parametrize(
    ("per", "period_us"),
    [
        (0.000001, 1),
        (1, 1_000_000),
        (1.5, 1_500_000),
        (0.1, 100_000),
        (366 * DAY, 366 * DAY * 1_000_000),
        (timedelta(milliseconds=250), 250_000),
        (timedelta(microseconds=1), 1),
        (timedelta(days=7), 7 * DAY * 1_000_000),
    ],
)
def test_a_period_is_kept_in_whole_microseconds(per, period_us):
    assert Rate(1, per=per).period_us == period_us


def test_equal_rates_are_equal_however_they_are_written():
    assert Rate(60, per=timedelta(minutes=1)) == Rate(60, per=60.0, burst=60) == parse_rates("60/minute")[0]
    assert len({Rate(60, per=60), Rate(60, per=timedelta(minutes=1))}) == 1
    assert Rate(60, per=60) != Rate(1)  # the same speed, another burst


def test_count_and_period_are_brought_to_smallest_terms():
    assert (Rate(90, per=60).n, Rate(90, per=60).p) == (3, 2_000_000)


def test_what_exceeds_exact_arithmetic_is_refused_with_a_way_out():
    with pytest.raises(ConfigurationError, match=r"too large for exact arithmetic.*such as 1000000"):
        Rate(999_983, per=DAY)
    assert Rate(1_000_000, per=DAY).capacity < 2**51


@pytest.mark.parametrize(
    ("rate", "window", "per_second"),
    [
        (Rate(10), 1, 10.0),
        (Rate(10, burst=25), 3, 10.0),
        (Rate(1, per=60), 60, 1 / 60),
        (Rate(3, per=7, burst=1), 3, 3 / 7),
        (Rate(1_000, burst=1), 1, 1_000.0),
    ],
    ids=str,
)
def test_window_is_when_an_empty_bucket_is_full_again_in_whole_seconds(rate, window, per_second):
    assert rate.window == window
    assert rate.per_second == pytest.approx(per_second)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(10), "10/second"),
        (Rate(10, burst=20), "10/second; burst=20"),
        (Rate(1, per=600), "1/10 minute"),
        (Rate(1, per=90), "1/90 second"),
        (Rate(1, per=14 * DAY), "1/2 week"),
        (Rate(1, per=0.25), "1/0.25 second"),
    ],
    ids=str,
)
def test_a_rate_is_shown_as_the_text_that_makes_it(rate, text):
    assert str(rate) == text
    assert repr(rate) == f"Rate('{text}')"


def test_a_rate_is_a_value():
    rate = Rate(10, burst=20)
    with pytest.raises(AttributeError):
        rate.burst = 30
    assert copy.deepcopy(rate) == rate
