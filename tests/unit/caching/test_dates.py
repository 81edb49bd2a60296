"""HTTP-date: three forms are read, and nothing else."""

import pytest

from apigate.caching.dates import parse_http_date

NOW = 1_794_000_000  # November 2026
AUGUST = 2_544_400_878  # 18 August 2050, 02:01:18
NOVEMBER = 784_111_777


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", NOVEMBER),
        ("Sunday, 06-Nov-94 08:49:37 GMT", NOVEMBER),
        ("Sun Nov  6 08:49:37 1994", NOVEMBER),
        ("Sun Nov 06 08:49:37 1994", NOVEMBER),
        ("Thu, 18 Aug 2050 02:01:18 GMT", AUGUST),
        ("Thursday, 18-Aug-50 02:01:18 GMT", AUGUST),
        ("Thu Aug 18 02:01:18 2050", AUGUST),
        ("Tue, 19 Jan 2038 14:14:08 GMT", 2_147_523_248),
        ("Sat, 20 Nov 2286 17:46:39 GMT", 9_999_999_999),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", -62_135_596_800),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
        (" Sun, 06 Nov 1994 08:49:37 GMT\t", NOVEMBER),
    ],
)
def test_the_three_forms_are_read(text, seconds):
    assert parse_http_date(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "THU, 18 Aug 2050 02:01:18 GMT",
        "Thu, 18 AUG 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02:01:18 gMT",
        "tHURSDAY, 18-aug-50 02:01:18 gmt",
        "THU AUG 18 02:01:18 2050",
    ],
)
def test_letters_count_in_any_case_as_caches_are_asked_to_read_them(text):
    assert parse_http_date(text, NOW) == AUGUST


def test_a_day_of_the_week_that_is_not_that_of_the_date_is_no_reason_to_refuse():
    assert parse_http_date("Mon, 18 Aug 2050 02:01:18 GMT", NOW) == AUGUST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "2544400878",
        "Thu, 18 Aug 2050 02:01:18 UTC",
        "Thu, 18 Aug 2050 02:01:18 AEST",
        "Thu, 18 Aug 2050 02:01:18 +0000",
        "Thu, 18 Aug 2050 02:01:18",
        "Thu, 18 Aug 50 02:01:18 GMT",
        "Thu 18 Aug 2050 02:01:18 GMT",
        "Thu,18 Aug 2050 02:01:18 GMT",
        "Thu, 18  Aug  2050 02:01:18 GMT",
        "Thu,  18 Aug 2050 02:01:18 GMT",
        "Thu, 18-Aug-2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02.01.18 GMT",
        "Thu, 18 Aug 2050 2:01:18 GMT",
        "Thu, 8 Aug 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02:01 GMT",
        "Thu, 18 Aug 2050 24:00:00 GMT",
        "Thu, 18 Aug 2050 02:60:18 GMT",
        "Thu, 18 Aug 2050 02:01:61 GMT",
        "Thu, 00 Aug 2050 02:01:18 GMT",
        "Wed, 31 Sep 2050 02:01:18 GMT",
        "Sun, 29 Feb 2026 02:01:18 GMT",
        "Sat, 01 Jan 0000 00:00:00 GMT",
        "August, 18 Aug 2050 02:01:18 GMT",
        "Thursday, 18 Aug 2050 02:01:18 GMT",
        "Thu, 18-Aug-50 02:01:18 GMT",
        "Thurs, 18-Aug-50 02:01:18 GMT",
        "Thu Aug 8 02:01:18 2050",
        "Thu Aug  8 02:01:18 2050 GMT",
        "Thu Aug  8 02:01:18 50",
        "Sun, 18 \u017fep 2050 02:01:18 GMT",  # a long s is an s to the regular expressions of Unicode
        "Thu, 1\u0668 Aug 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02:01:18 GMT\n",
        "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
    ],
)
def test_anything_else_is_no_date(text):
    assert parse_http_date(text, NOW) is None


@pytest.mark.parametrize(
    ("now", "written", "read"),
    [
        ("Sun, 22 Nov 2026 00:00:00 GMT", "Sunday, 22-Nov-76 00:00:00 GMT", "Sun, 22 Nov 2076 00:00:00 GMT"),
        ("Sun, 22 Nov 2026 00:00:00 GMT", "Monday, 22-Nov-76 00:00:01 GMT", "Mon, 22 Nov 1976 00:00:01 GMT"),
        ("Sun, 22 Nov 2026 00:00:00 GMT", "Friday, 01-Jan-77 00:00:00 GMT", "Sat, 01 Jan 1977 00:00:00 GMT"),
        ("Sun, 22 Nov 2026 00:00:00 GMT", "Saturday, 01-Jan-00 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ("Fri, 31 Dec 1999 23:59:59 GMT", "Saturday, 01-Jan-00 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ("Sun, 22 Nov 2090 00:00:00 GMT", "Wednesday, 01-Jan-10 00:00:00 GMT", "Wed, 01 Jan 2110 00:00:00 GMT"),
        ("Tue, 01 Jan 2000 00:00:00 GMT", "Tuesday, 29-Feb-00 00:00:00 GMT", "Tue, 29 Feb 2000 00:00:00 GMT"),
    ],
)
def test_a_year_of_two_digits_is_never_more_than_fifty_years_ahead(now, written, read):
    at = parse_http_date(now, 0)
    assert parse_http_date(written, at) == parse_http_date(read, 0)
