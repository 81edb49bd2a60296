"""Ranges: which bytes are asked for, and several in one body."""

from email import message_from_bytes
from email.policy import HTTP

import pytest

from apigate.caching.ranges import MOST_RANGES, multipart_byteranges, parse_range


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("bytes=0-1", [(0, 1)]),
        ("bytes=-1", [(10, 10)]),
        ("bytes=-5", [(6, 10)]),
        ("bytes=-99", [(0, 10)]),
        ("bytes=5-", [(5, 10)]),
        ("bytes=5-99", [(5, 10)]),
        ("bytes=0-18446744073709551615", [(0, 10)]),
        ("bytes=000-001", [(0, 1)]),
        ("BYTES=0-1", [(0, 1)]),
        ("bytes=9-9, 0-1 ,\t-1", [(9, 9), (0, 1), (10, 10)]),
        ("bytes=,0-0,,", [(0, 0)]),
        ("bytes=0-1, 99-100", [(0, 1)]),
        ("bytes=0-1, -0", [(0, 1)]),
        ("bytes=0-4,5-9", [(0, 4), (5, 9)]),
    ],
)
def test_ranges_that_can_be_satisfied(text, ranges):
    assert parse_range(text, 11) == tuple(ranges)


@pytest.mark.parametrize("text", ["bytes=11-", "bytes=11-12", "bytes=-0", "bytes=99-, -0", f"bytes={'9' * 5_000}-"])
def test_ranges_of_which_none_can_be_satisfied(text):
    assert parse_range(text, 11) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=1",
        "bytes=2-1",
        "bytes=0-1, 3-2",
        "bytes=a-b",
        "bytes=0-1, x",
        "bytes= 0 - 1",
        "bytes=-1-2",
        "bytes=--1",
        "bytes=+0-1",
        "bytes=0-1;x",
        "bytes =0-1",
        "bytes:0-1",
        "items=0-1",
        "0-1",
        "bytes=\u0660-1",
        "bytes=0-1\n",
        "bytes=0-5, 5-9",
        "bytes=0-, -1",
        "bytes=0-0, 0-0",
        "bytes=99999999999999999999-99999999999999999998",
    ],
)
def test_a_range_that_is_malformed_or_overlaps_itself_is_ignored(text):
    assert parse_range(text, 11) is None


def test_no_more_than_a_few_ranges_are_cut_out():
    several = [f"{first}-{first}" for first in range(0, 100, 2)]
    assert len(parse_range(f"bytes={','.join(several[:MOST_RANGES])}", 1_000)) == MOST_RANGES
    assert parse_range(f"bytes={','.join(several[: MOST_RANGES + 1])}", 1_000) is None


def test_of_nothing_there_is_no_part():
    assert parse_range("bytes=0-", 0) == ()
    assert parse_range("bytes=-0", 0) == ()
    assert parse_range("bytes=-5", 0) is None


def test_several_parts_are_one_body_that_other_parsers_read():
    body = bytes(range(256))
    ranges = [(0, 9), (250, 255), (13, 13)]
    sent = multipart_byteranges(body, ranges, "application/json", "b0undary")
    head = b"Content-Type: multipart/byteranges; boundary=b0undary\r\n\r\n"
    parts = list(message_from_bytes(head + sent, policy=HTTP).iter_parts())
    assert [part["Content-Range"] for part in parts] == ["bytes 0-9/256", "bytes 250-255/256", "bytes 13-13/256"]
    assert {part["Content-Type"] for part in parts} == {"application/json"}
    for (first, last), piece in zip(ranges, sent.split(b"--b0undary")[1:-1], strict=True):
        assert piece.partition(b"\r\n\r\n")[2] == body[first : last + 1] + b"\r\n"
    assert sent.endswith(b"\r\n--b0undary--\r\n")
