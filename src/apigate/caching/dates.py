"""HTTP-date: the three forms that a recipient has to read.

Rule: what is none of the three is no date. A lenient parser finds a lifetime in a field that its sender got wrong.

Source: RFC 9110, section 5.6.7; RFC 9111, section 4.2.
"""

import re
from datetime import UTC, datetime, timedelta

__all__ = ["parse_http_date"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Texts, compiled at first use. The flags: letters in any case, as RFC 9111 asks of caches, but only those of ASCII.
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = (
    f"(?ai:{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT)",
    f"(?ai:{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT)",
    f"(?ai:{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}}))",
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = -62_135_596_800  # the first second of year 1
_LAST = 253_402_300_799  # the last one of year 9999


def parse_http_date(text: str, now: float) -> int | None:
    """The instant that an HTTP-date names, in seconds since 1970.

    IMF-fixdate, the form of RFC 850 and that of asctime, with every space, comma and digit where the grammar has it;
    letters in any case, as section 4.2 of RFC 9111 asks of a cache. The day of the week is read but not checked.

    Args:
        text: The field value.
        now: Seconds since 1970. A year of two digits that would lie more than 50 years after it is one of the past.

    Returns:
        Seconds since 1970, negative before; None where the text is no HTTP-date, as with another zone than GMT or a day
        that its month does not have.

    Source: RFC 9110, section 5.6.7; RFC 9111, section 4.2.

    >>> parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT", now=0)
    784111777
    >>> parse_http_date("Sun, 06 Nov 1994 08:49:37 UTC", now=0) is None
    True
    """
    for form in _FORMS:
        if match := re.fullmatch(form, text.strip(" \t")):
            break
    else:
        return None
    month = _MONTHS.index(match["month"].capitalize()) + 1
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    year = int(match["year"])
    if len(match["year"]) == 2:
        year = _full_year(year, (month, day, hour, minute, second), now)
    if second > 60:  # 60 is a leap second, which the grammar allows
        return None
    try:
        whole = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:  # 31 February, 24 o'clock, the year 0
        return None
    return (whole - _EPOCH) // timedelta(seconds=1) + second


def _full_year(year: int, rest: tuple[int, ...], now: float) -> int:
    """The latest year of these two digits in which the date is not more than 50 years after `now`."""
    at = _moment(now)
    limit = (at.year + 50, at.month, at.day, at.hour, at.minute, at.second)
    year += at.year // 100 * 100 + 100
    while (year, *rest) > limit:
        year -= 100
    return year


def _moment(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=min(max(seconds, _FIRST), _LAST) // 1)
