"""Encryption at rest: who has no key reads and makes nothing, and keys can be rotated."""

import base64
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate import ConfigurationError
from apigate.caching.encryption import KEY_BYTES, OVERHEAD, Encryption

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
KEY = b"digest".ljust(32, b"\0")


@given(st.binary(), st.binary(min_size=32, max_size=32))
def test_a_value_comes_back_and_is_as_long_as_is_said(value, key):
    encryption = Encryption([OLD])
    raw = encryption.encrypt(key, value)
    assert encryption.decrypt(key, raw) == value
    assert len(raw) == len(value) + OVERHEAD


def test_nothing_of_a_value_can_be_read_and_no_two_are_alike():
    encryption = Encryption([OLD])
    made = {encryption.encrypt(KEY, b"a secret that is long enough") for _ in range(100)}
    assert len(made) == 100
    assert not [raw for raw in made if b"secret" in raw]


@given(st.data())
def test_a_value_that_was_changed_or_cut_off_is_not_there(data):
    raw = Encryption([OLD]).encrypt(KEY, b"hello")
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    assert Encryption([OLD]).decrypt(KEY, raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]) is None
    assert Encryption([OLD]).decrypt(KEY, raw[:at]) is None


@given(st.binary(max_size=100))
def test_no_bytes_raise(raw):
    assert Encryption([OLD]).decrypt(KEY, raw) is None
    assert Encryption([OLD]).decrypt(KEY, Encryption([OLD]).encrypt(KEY, b"x")[:18] + raw) is None


def test_a_value_moved_to_another_key_is_not_there():
    raw = Encryption([OLD]).encrypt(KEY, b"hello")
    assert Encryption([OLD]).decrypt(KEY[::-1], raw) is None


def test_a_key_is_rotated_without_losing_what_lies_there():
    before, both, after = Encryption([OLD]), Encryption([NEW, OLD]), Encryption([NEW])
    assert both.decrypt(KEY, before.encrypt(KEY, b"old")) == b"old"
    assert after.decrypt(KEY, both.encrypt(KEY, b"new")) == b"new"
    assert after.decrypt(KEY, before.encrypt(KEY, b"old")) is None
    assert before.decrypt(KEY, both.encrypt(KEY, b"new")) is None


def test_a_key_may_be_written_in_base64_of_either_alphabet():
    key = b"\xff" * KEY_BYTES
    for text in (base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode()):
        assert Encryption([text]).decrypt(KEY, Encryption([key]).encrypt(KEY, b"x")) == b"x"


@pytest.mark.parametrize(
    "keys", [[], [b"short"], [OLD, "secret!"], [OLD, "é"], OLD, [OLD, OLD], [OLD.hex()], [None]], ids=repr
)
def test_what_is_no_key_is_an_error_that_does_not_tell_it(keys):
    with pytest.raises(ConfigurationError, match="Encryption keys") as error:
        Encryption(keys)
    assert "secret" not in str(error.value)


def test_no_key_shows():
    assert repr(Encryption([OLD, NEW])) == "<Encryption with 2 keys>"


def test_the_package_is_loaded_at_first_use_and_its_lack_is_an_error_that_says_what_to_do():
    script = """
import sys
from apigate.caching.encryption import Encryption
assert "cryptography" not in sys.modules
sys.modules["cryptography"] = None
try:
    Encryption([bytes(32)])
except ValueError as error:
    print(error)
"""
    printed = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert printed == "Encryption needs the package 'cryptography'; pip install 'apigate[crypto]'\n"
