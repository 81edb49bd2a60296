"""Rates as text: what is written is read back, and no text raises anything but `ConfigurationError`."""

from contextlib import suppress
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from apigate import ConfigurationError, Rate
from apigate.throttling import parse_rates
from tests.strategies import UNHURRIED, rates

counts = st.integers(1, 2**51) | st.integers(1, 1_000)
periods = st.integers(1, 366 * 86_400 * 10**6).map(lambda us: us / 10**6) | st.timedeltas(
    min_value=timedelta(microseconds=1), max_value=timedelta(days=366)
)

words = st.sampled_from(
    [
        *"0123456789_",
        "per",
        "/",
        ";",
        ",",
        "|",
        "burst",
        "=",
        " ",
        ".",
        "-",
        "1",
        "10",
        "second",
        "minutes",
        "s",
        "week",
        "month",
    ]
)


def any_rate(count: int, per: float | timedelta, burst: int | None) -> Rate | None:
    with suppress(ConfigurationError):
        return Rate(count, per=per, burst=burst)
    return None


every_rate = st.builds(any_rate, counts, periods, st.none() | counts).filter(lambda rate: rate is not None)
"""Whatever `Rate` takes, exact microseconds and all."""


@UNHURRIED
@given(st.lists(rates | every_rate, min_size=1, max_size=4), st.sampled_from([", ", "|", " ; "]))
def test_text_is_read_back_as_the_same_rates(given_rates, joint):
    assert parse_rates(joint.join(map(str, given_rates))) == tuple(given_rates)


@UNHURRIED
@given(rates | every_rate)
def test_repr_is_the_text(rate):
    assert eval(repr(rate), {"Rate": lambda text: parse_rates(text)[0]}) == rate


@UNHURRIED
@given(st.text() | st.lists(words, max_size=12).map("".join) | st.from_regex(r"\d+ ?(/|per) ?\w+(; ?burst=\d+)?"))
def test_no_text_raises_anything_but_a_configuration_error(text):
    with suppress(ConfigurationError):
        assert parse_rates(text)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9) | rates,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@UNHURRIED
@given(ANYTHING)
def test_no_value_raises_anything_but_a_configuration_error(value):
    with suppress(ConfigurationError):
        assert parse_rates(value)


@UNHURRIED
@given(ANYTHING, ANYTHING, ANYTHING)
def test_no_rate_raises_anything_but_a_configuration_error(count, per, burst):
    with suppress(ConfigurationError):
        rate = Rate(count, per=per, burst=burst)
        assert rate.size >= 1
        assert rate.window >= 1
        assert rate.capacity <= 2**51
