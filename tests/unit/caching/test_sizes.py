"""Sizes in a configuration: units as IEC 80000-13 has them, and no guess at what else may be meant."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate.caching.sizes import parse_size
from apigate.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("4096", 4_096),
        (4_097, 4_097),
        ("512MB", 512_000_000),
        ("512 mb", 512_000_000),
        ("1KB", 1_000),
        ("1MiB", 1_048_576),
        ("1kib", 1_024),
        ("1.5GB", 1_500_000_000),
        ("0.5GiB", 536_870_912),
        ("1.0001KB", 1_000),
        ("6.1GB", 6_100_000_000),
        ("2TB", 2_000_000_000_000),
        ("1024TiB", 2**50),
        (1, 1),
    ],
)
def test_a_size_is_a_number_and_a_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MB",
        "512M",
        "512m",
        "1iB",
        "0B",
        "0.4B",
        "-1MB",
        "+1MB",
        "1,5MB",
        "1.MB",
        ".5MB",
        "1e6",
        "1 000",
        "1  MB",
        " 1MB",
        "1MB\n",
        "\u0661MB",
        "1\u212aB",  # the Kelvin sign, which is a k to who ignores case
        "1PB",
        "1025TiB",
        "9" * 5_000,
        0,
        -1,
        2**50 + 1,
        True,
        1.5,
        None,
        b"1MB",
    ],
)
def test_nonsense_is_a_configuration_error_that_says_what_is_allowed(text):
    with pytest.raises(ConfigurationError, match=r"^max_bytes: .* is no size; give .*'512MB'.*from 1 byte to 1024TiB$"):
        parse_size(text, "max_bytes")


@given(st.text() | st.text("0123456789.KMGTIBkmgtib ", max_size=12))
def test_any_text_is_a_size_within_bounds_or_a_configuration_error(text):
    with suppress(ConfigurationError):
        assert 1 <= parse_size(text) <= 2**50


@given(st.integers(1, 2**50))
def test_whole_bytes_are_what_they_are(size):
    assert parse_size(size) == parse_size(str(size)) == parse_size(f"{size} B") == size
