"""Cache-Control, targeted fields, Age: what restricts counts however it is written, what allows only well written."""

import pytest

from apigate.caching.directives import LONGEST, Directives, parse_age, parse_directives, targeted_directives

# ---- Cache-Control


@pytest.mark.parametrize(
    ("values", "directives"),
    [
        ([], {}),
        ([""], {}),
        ([" , ,,"], {}),
        (["no-store"], {"no-store": None}),
        (["No-StOrE, MAX-AGE=5"], {"no-store": None, "max-age": "5"}),
        (["max-age=5", "public"], {"max-age": "5", "public": None}),
        ([" max-age=5\t,\tpublic "], {"max-age": "5", "public": None}),
        (['max-age="3600"'], {"max-age": "3600"}),
        (['a="b\\"c\\\\d"'], {"a": 'b"c\\d'}),
        (['no-cache="a, b", max-age=1'], {"no-cache": "a, b", "max-age": "1"}),
        (['extension="max-age=3600", max-age=1'], {"extension": "max-age=3600", "max-age": "1"}),
        (['max-age=1, extension="max-age=3600"'], {"extension": "max-age=3600", "max-age": "1"}),
        (["&&&=1, max-age=1"], {"&&&": "1", "max-age": "1"}),  # odd, but a token
        (["(), max-age=1, =5"], {"max-age": "1"}),
        (["max-age=1, max-age=1800"], {"max-age": "1"}),
        (["max-age=1800", "max-age=1"], {"max-age": "1800"}),
    ],
)
def test_every_directive_is_there_with_its_first_argument(values, directives):
    assert dict(parse_directives(values)) == directives


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=3600", 3_600),
        ("max-age=003600", 3_600),
        ('max-age="3600"', 3_600),
        ("max-age=0", 0),
        ("max-age=000", 0),
        ("max-age=2147483647", LONGEST - 1),
        ("max-age=2147483648", LONGEST),
        ("max-age=99999999999", LONGEST),
        ("max-age=" + 10_000 * "9", LONGEST),
        ("max-age=" + 10_000 * "0", 0),
        ("s-maxage=5", None),
        ("", None),
        ('x="max-age=5"', None),
    ],
)
def test_seconds_are_whole_and_not_without_bound(value, seconds):
    assert parse_directives([value]).seconds("max-age") == seconds


@pytest.mark.parametrize(
    "value",
    [
        "max-age",
        "max-age=",
        'max-age=""',
        "max-age=-3600",
        "max-age=+3600",
        "max-age=3600.0",
        "max-age=3600.5",
        "max-age=a3600",
        "max-age=3600a",
        "max-age='3600'",
        "max-age =3600",
        "max-age= 3600",
        "max-age = 3600",
        "max-age=3600;x",
        "max-age==3600",
        "max-age=36 00",
        'max-age="3600',
        'max-age="3600"0',
        "max-age:3600",
        "max-age=\xb2",
        "max-age=\u0663",
        "max-age=x, max-age=3600",
    ],
)
def test_a_lifetime_that_cannot_be_read_is_none_at_all(value):
    assert parse_directives([value]).seconds("max-age") == 0


def test_only_max_stale_means_any_number_where_it_has_no_argument():
    assert parse_directives(["max-stale"]).seconds("max-stale") == LONGEST
    assert parse_directives(["max-stale=5"]).seconds("max-stale") == 5
    assert parse_directives(["max-stale=x"]).seconds("max-stale") == 0
    assert parse_directives(["max-stale x"]).seconds("max-stale") == 0
    assert parse_directives(["min-fresh"]).seconds("min-fresh") == 0


@pytest.mark.parametrize(
    "value",
    [
        "no-store foo",
        "no-store;foo",
        "no-store =x",
        "no-store=",
        'no-store="',
        "max-age=5;a=b, no-store",
        'foo="bar, no-store',
        'foo="bar"baz, no-store',
        'foo="a\\", no-store',
        '", no-store',
    ],
)
def test_what_restricts_counts_however_badly_it_is_written(value):
    assert "no-store" in parse_directives([value])


def test_what_is_quoted_is_no_directive():
    assert dict(parse_directives(['foo=", no-store, x="'])) == {"foo": ", no-store, x="}


@pytest.mark.parametrize("value", ["public foo", "public;x", "public =1", "immutable,public:", "(public)", '"public"'])
def test_what_allows_counts_only_where_it_is_well_written(value):
    assert "public" not in parse_directives([value])


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        (['private="Set-Cookie, X-User"'], {"set-cookie", "x-user"}),
        (["private=set-cookie"], {"set-cookie"}),
        (['private=" , a,, b "'], {"a", "b"}),
        (['private="a", private="b"'], {"a", "b"}),
        (['private="a"', 'private="b"'], {"a", "b"}),
        (["private"], set()),
        (["max-age=5"], set()),
        (['private=""'], set()),
        (['private=","'], set()),
        (['private="a b"'], set()),
        (['private="a, b c"'], set()),
        (["private=a b"], set()),
        (['private="a'], set()),
        (['private="a"; x'], set()),
        (['private="a", private'], set()),
        (['private, private="a"'], set()),
        (['private="a", private=;'], set()),
        (['private="a", private=""'], set()),
    ],
)
def test_what_is_private_in_part_is_so_only_where_the_fields_can_be_told(values, fields):
    assert parse_directives(values).fields("private") == fields


def test_long_values_are_read_as_short_ones():
    padding = ", ".join(f"x{number}" for number in range(1_000))
    directives = parse_directives([padding, "max-age=7"])
    assert len(directives) == 1_001
    assert directives.seconds("max-age") == 7


def test_directives_are_a_mapping_that_nobody_changes():
    directives = parse_directives(["a=1"])
    assert directives == {"a": "1"}
    assert directives == parse_directives(["a=1"])
    assert repr(directives) == "Directives({'a': '1'})"
    assert not Directives()
    with pytest.raises(TypeError):
        directives["a"] = "2"
    with pytest.raises(TypeError):
        directives.update(a="2")


# ---- targeted fields


@pytest.mark.parametrize(
    ("values", "directives"),
    [
        (["max-age=3600"], {"max-age": "3600"}),
        (["foobar, max-age=3600"], {"foobar": None, "max-age": "3600"}),
        (["no-store", "max-age=5"], {"no-store": None, "max-age": "5"}),
        (["max-age=5;x=y, no-store;z"], {"max-age": "5", "no-store": None}),
        (["max-age=5, max-age=7"], {"max-age": "7"}),  # in a Dictionary the last one counts
        (['no-cache="a, b"'], {"no-cache": "a, b"}),
        (["no-cache=a"], {"no-cache": "a"}),
        (["no-store=?0"], {}),
        (["none"], {"none": None}),
    ],
)
def test_a_targeted_field_is_a_dictionary(values, directives):
    assert dict(targeted_directives(values)) == directives


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["", ""],
        ["max-age=10000, &&&&&"],
        ["max-age= 100"],
        ["max-age =100"],
        ["MaX-aGe=3600"],
        ["max-age=3600,"],
        ["max-age=3600", ""],
        ["no-store;"],
        ["max-age=9999999999999999"],
        ["no-store, \xe9"],
    ],
)
def test_a_targeted_field_that_is_empty_or_invalid_is_as_good_as_absent(values):
    assert targeted_directives(values) is None


@pytest.mark.parametrize(
    ("argument", "seconds"),
    [
        ("=99999999999", LONGEST),
        ("=0", 0),
        ("=-5", 0),
        ('="10000"', 0),
        ("=10.5", 0),
        ("=a", 0),
        ("", 0),
        ("=(1)", 0),
        ("=@5", 0),
        ("=:aGk=:", 0),
        ("=?0", None),
    ],
)
def test_seconds_of_a_targeted_field_are_an_integer(argument, seconds):
    assert targeted_directives([f"max-age{argument}, x"]).seconds("max-age") == seconds


def test_fields_of_a_targeted_field_are_in_a_string():
    assert targeted_directives(['private="A, b"']).fields("private") == {"a", "b"}
    assert targeted_directives(['private=("a" "b")']).fields("private") == frozenset()
    assert "private" in targeted_directives(['private=("a" "b")'])


# ---- Age


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([], None),
        ([""], None),
        (["0"], 0),
        (["7200"], 7_200),
        (["007200"], 7_200),
        (["7200, 0"], 7_200),
        (["0, 7200"], 0),
        (["0", "7200"], 0),
        (["7200", "0"], 7_200),
        (["", " , 7200"], 7_200),
        (["2147483647"], LONGEST - 1),
        (["2147483649"], LONGEST),
        (["9" * 5_000], LONGEST),
        (["abc"], None),
        (["-7200"], None),
        (["7200.0"], None),
        (["7200;foo=111"], None),
        (["abc, 7200"], None),
        (["\xb2"], None),
        (["7 200"], None),
    ],
)
def test_age_is_its_first_member_and_ignored_where_that_is_no_number(values, seconds):
    assert parse_age(values) == seconds
