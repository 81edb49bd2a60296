"""Cache groups: a List of Strings."""

import pytest

from apigate.caching.groups import parse_groups


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        (['"scripts"'], ["scripts"]),
        (['"scripts", "styles"', '"fonts"'], ["scripts", "styles", "fonts"]),
        (['"a";foo=?1, "b"'], ["a", "b"]),
        (['"a", "a", "A"'], ["a", "A"]),
        (['""'], [""]),
        ([], []),
        ([""], []),
        (["scripts"], []),
        (['("scripts")'], []),
        (['"a", b'], []),
        (['"a",'], []),
        (['"a'], []),
        (['"é"'], []),
    ],
)
def test_groups_are_strings_and_nothing_else(values, groups):
    assert parse_groups(values) == tuple(groups)


def test_as_many_groups_as_the_standard_asks_for_and_more():
    groups = tuple(f"{number:0>64}" for number in range(200))
    assert parse_groups([", ".join(f'"{group}"' for group in groups)]) == groups
