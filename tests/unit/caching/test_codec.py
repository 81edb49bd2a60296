"""Stored responses as bytes: all of them come back, and nothing comes of bytes that are not theirs."""

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate.caching.codec import decode, decode_variance, encode, encode_variance, key_digest
from apigate.caching.entry import StoredResponse
from tests.strategies import UNHURRIED

MARK = bytes(range(24))
NAMES = st.text(st.characters(max_codepoint=127, exclude_characters="\r\n\0"))
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))
ANY = st.text(st.characters())  # lone surrogates too, as decoded paths may have them
SECONDS = st.floats(0, 2**31)

responses = st.builds(
    StoredResponse,
    status=st.integers(200, 599),
    fields=st.lists(st.tuples(NAMES, VALUES)),
    body=st.binary(max_size=500),
    initial_age=SECONDS,
    received_us=st.integers(0, 2**50),
    lifetime=SECONDS,
    grace=SECONDS,
    vary=st.lists(st.tuples(ANY, st.none() | ANY)).map(tuple),
    scopes=st.lists(ANY).map(tuple),
    shared=st.booleans(),
)
KEPT = ("status", "fields", "body", "initial_age", "lifetime", "grace", "vary", "scopes", "shared")


def a_response(**settings):
    given_too = {"fields": (("content-type", "text/plain"),), "vary": (("accept", None),), "scopes": ("path:/é",)}
    return StoredResponse(
        status=200, body=b"hello", initial_age=3.0, received_us=1_000_000, lifetime=60.0, grace=10.0,
        **{**given_too, **settings},
    )  # fmt: skip


@UNHURRIED
@given(responses, st.integers(0, 2**50), SECONDS, st.integers(0, 2**50))
def test_every_part_of_a_response_comes_back(response, later_us, wall, now_us):
    raw = encode(response, MARK, wall, response.received_us + later_us)
    decoded = decode(raw, wall, now_us, lambda mark: 7 if mark == MARK else None)
    assert decoded.mark == MARK
    assert [getattr(decoded.response, name) for name in KEPT] == [getattr(response, name) for name in KEPT]
    assert decoded.response.epoch == 7
    assert now_us - decoded.response.received_us == later_us


def test_an_age_goes_on_while_a_response_lies_and_on_another_machine():
    raw = encode(a_response(), MARK, wall=1_000.0, now_us=3_000_000)
    response = decode(raw, wall=1_004.5, now_us=50).response
    assert response.age(50) == pytest.approx(3 + 2 + 4.5)
    assert response.initial_age == 3.0
    assert response.fresh_until_us == 50 + 50_500_000


def test_a_wall_clock_that_was_set_back_makes_nothing_younger():
    raw = encode(a_response(), MARK, wall=1_000.0, now_us=3_000_000)
    assert decode(raw, wall=0.0, now_us=50).response.age(50) == pytest.approx(5)


def test_a_response_whose_mark_says_nothing_is_not_there():
    assert decode(encode(a_response(), MARK, 0.0, 0), 0.0, 0, lambda _: None) is None


@UNHURRIED
@given(st.binary(max_size=300), st.sampled_from([b"", b"R\x01", b"V\x01", b"R\x02"]), st.booleans())
def test_no_bytes_raise_whether_or_not_their_checksum_is_right(content, prefix, is_sealed):
    raw = prefix + struct.pack(">I", crc32(content)) + content if is_sealed else prefix + content
    assert decode(raw, 0.0, 0) is None or is_sealed
    assert decode_variance(raw) is None or is_sealed


@UNHURRIED
@given(responses, st.data())
def test_a_response_that_is_cut_off_or_changed_is_not_there(response, data):
    raw = encode(response, MARK, 5.0, response.received_us)
    assert decode(raw[: data.draw(st.integers(0, len(raw) - 1))], 5.0, 0) is None
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    assert decode(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :], 5.0, 0) is None


@UNHURRIED
@given(responses, st.data())
def test_a_response_that_was_changed_under_a_right_checksum_raises_nothing(response, data):
    content = bytearray(encode(response, MARK, 5.0, response.received_us)[6:])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content) - 1, 120)))] = data.draw(st.integers(0, 255))
    decode(b"R\x01" + struct.pack(">I", crc32(content)) + bytes(content), 5.0, 0)


def test_one_kind_of_record_is_not_taken_for_the_other():
    assert decode(encode_variance(["accept"]), 0.0, 0) is None
    assert decode_variance(encode(a_response(), MARK, 0.0, 0)) is None


@given(st.lists(ANY))
def test_the_names_of_a_variance_come_back(names):
    assert list(decode_variance(encode_variance(names)).names) == names


parts = st.lists(ANY, max_size=4).map(tuple)
selections = st.lists(st.tuples(ANY, st.none() | ANY), max_size=3).map(tuple)


@UNHURRIED
@given(parts, selections, parts, selections)
def test_digests_are_those_of_equal_keys_only(key, vary, other, varied):
    assert (key_digest(key, vary) == key_digest(other, varied)) == ((key, vary) == (other, varied))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((("a", "b"), ()), (("ab",), ())),
        ((("a", "b"), ()), ((), (("a", "b"),))),
        (((), (("a", None),)), ((), (("a", ""),))),
        (((), (("a", "b"), ("c", "d"))), (("a", "b"), (("c", "d"),))),
    ],
)
def test_nothing_can_be_forged_by_what_separates_parts(one, other):
    assert key_digest(*one) != key_digest(*other)
    assert len(key_digest(*one)) == 32
