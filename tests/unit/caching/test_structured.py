"""Structured fields: strict to the letter."""

import pytest

from apigate.caching.structured import (
    Date,
    DisplayString,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
    serialize_dictionary,
    serialize_item,
    serialize_list,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("042", 42),
        ("-999999999999999", -999_999_999_999_999),
        ("1.5", 1.5),
        ("-0.125", -0.125),
        ("999999999999.999", 999_999_999_999.999),
        ('""', ""),
        (r'"a\"b\\c"', r'a"b\c'),
        ("a", Token("a")),
        ("*a/b:c", Token("*a/b:c")),
        ("::", b""),
        (":aGk=:", b"hi"),
        (":aGk:", b"hi"),
        (":aGl:", b"hi"),  # what is left over of its bits is not looked at
        ("?1", True),
        ("?0", False),
        ("@-5", Date(-5)),
        ('%"a%c3%bc"', DisplayString("aü")),
        ("  a  ", Token("a")),
    ],
)
def test_an_item_is_read(text, value):
    item = parse_item(text)
    assert item == Item(value)
    assert type(item.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\ta",
        "a\n",
        "a b",
        "a,b",
        "-",
        "--1",
        "+1",
        "1.",
        ".5",
        "1.2345",
        "1.2.3",
        "1000000000000000",
        "1234567890123.1",
        '"',
        '"a',
        r'"\a"',
        '"a\\"',
        '"\x7f"',
        '"\xe9"',
        '"a"b',
        "é",
        "=a",
        ":",
        ":a",
        ":a:",
        ":=:",
        ":aGk===:",
        ":a=Gk:",
        ":a-_k:",
        "?",
        "?2",
        "?true",
        "@",
        "@1.5",
        "@a",
        "%",
        "%a",
        '%"%C3%BC"',
        '%"%c3"',
        '%"%',
        "a;",
        "a;A",
        "a;1",
        "a;b=",
        "a ;b",
        "a;b =1",
        "(a)",
    ],
)
def test_what_is_no_item_is_nothing(text):
    assert parse_item(text) is None


def test_parameters_are_in_order_and_the_last_of_a_name_counts():
    parameters = parse_item('a;  b=1;c; d="x";b=?0;*.-_9=@1').parameters
    assert list(parameters.items()) == [("b", False), ("c", True), ("d", "x"), ("*.-_9", Date(1))]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", ()),
        ("  ", ()),
        ("a", (Item(Token("a")),)),
        ("1 \t,\t 2", (Item(1), Item(2))),
        ("(), (a  1;b );c", (InnerList(()), InnerList((Item(Token("a")), Item(1, {"b": True})), {"c": True}))),
    ],
)
def test_a_list_is_read(text, members):
    assert parse_list(text) == members


@pytest.mark.parametrize("text", ["a,", ",a", "a,,b", "a b", "(", "(a", "(a,b)", "(a)b", "(a(b))", '("a""b")', "a,\n"])
def test_what_is_no_list_is_nothing(text):
    assert parse_list(text) is None


def test_a_dictionary_keeps_the_last_of_a_name_in_the_place_of_the_first():
    members = parse_dictionary("a=1, b;x=2, c=(1 2), a=?0;y")
    assert list(members.items()) == [
        ("a", Item(False, {"y": True})),
        ("b", Item(True, {"x": 2})),
        ("c", InnerList((Item(1), Item(2)))),
    ]


@pytest.mark.parametrize("text", ["a,", "A", "1", "a=", "a= 1", "a =1", "a=1 b=2", "a, &&&", "a=1;", "é", "a==1"])
def test_what_is_no_dictionary_is_nothing(text):
    assert parse_dictionary(text) is None


def test_cache_status_is_written():
    members = [
        Item(Token("apigate"), {"hit": True, "ttl": -5, "detail": "a \\ b"}),
        Item('a "cache"', {"fwd": Token("uri-miss"), "fwd-status": 200, "stored": True}),
    ]
    assert serialize_list(members) == (
        r'apigate;hit;ttl=-5;detail="a \\ b", "a \"cache\"";fwd=uri-miss;fwd-status=200;stored'
    )
    assert parse_list(serialize_list(members)) == tuple(members)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "?1"),
        (False, "?0"),
        (10**20, "999999999999999"),
        (-(10**20), "-999999999999999"),
        (1.0, "1.0"),
        (0.0005, "0.001"),
        (-1.25, "-1.25"),
        (float("inf"), "999999999999.999"),
        ("ü\n", '"__"'),
        (b"hi", ":aGk=:"),
        (Date(5), "@5"),
        (DisplayString('"%ü\ud800'), '%"%22%25%c3%bc?"'),
    ],
)
def test_a_value_is_written_so_that_it_can_be_read(value, text):
    assert str(Item(value)) == text
    assert parse_item(text) is not None


def test_a_dictionary_is_written():
    members = {"a": Item(True, {"b": 1}), "c": InnerList((Item(Token("d")), Item(2)), {"e": False}), "f": Item(False)}
    assert serialize_dictionary(members) == "a;b=1, c=(d 2);e=?0, f=?0"
    assert str(members["c"]) == "(d 2);e=?0"


@pytest.mark.parametrize(
    "item",
    [Item(Token("a b")), Item(Token("")), Item(Token("é")), Item(1, {"A": 1}), Item(1, {"": 1}), Item(float("nan"))],
)
def test_a_word_of_the_program_that_cannot_be_written_is_its_error(item):
    with pytest.raises(ValueError, match="cannot be written as a structured field"):
        serialize_item(item)
