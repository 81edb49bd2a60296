"""What the property tests draw from."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from apigate import Rate

__all__ = ["UNHURRIED", "levels", "rates", "small_rates", "waits_us"]

UNHURRIED = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    report_multiple_bugs=False,
)
"""No test fails because its machine is busy, nor for a seed of which many examples say nothing: the others are as many
as ever. And one bug is found at a time, for it takes minutes to shrink more.
"""

_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400
_WEEK = 604_800

_PRIMES = [2, 3, 7, 997, 999_983]
"""Counts that share no factor with a period, so that nothing divides evenly."""

counts = st.sampled_from(_PRIMES) | st.integers(1, 999_983)
periods = st.sampled_from([0.001, 0.25, 1, 1.5, 7, 10, _MINUTE, _HOUR, _DAY, _WEEK])
bursts = st.integers(1, 1_000)

rates = st.builds(Rate, counts, per=periods, burst=bursts)
"""Rates as they are in use, from 1 a week to 999,983 a millisecond, with bursts up to 1,000."""

small_rates = st.builds(Rate, st.integers(1, 7), per=st.sampled_from([0.25, 1, 3, 7, _MINUTE]), burst=st.integers(1, 5))
"""Rates so slow that a handful of steps meets their limits."""

levels = st.dictionaries(
    st.sampled_from(["global", "stage", "method", "client"]),
    st.lists(small_rates, min_size=1, max_size=2),
    min_size=1,
)
"""One to four levels, each with one rate or two."""

waits_us = st.one_of(
    st.integers(0, 3),
    st.integers(0, 20_000_000),
    st.sampled_from([250_000, 999_999, 1_000_000, 1_000_001, 7_000_000, 60_000_000]),
)
"""Times between two steps, in microseconds: none, nearly none, and around the periods of `small_rates`."""
