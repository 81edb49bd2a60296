"""Entity tags: read strictly, compared in two ways."""

import pytest

from apigate.caching.etags import EntityTag, matches_strongly, matches_weakly, parse_entity_tag, parse_entity_tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ('"abcdef"', EntityTag("abcdef")),
        ('""', EntityTag("")),
        ('W/"abcdef"', EntityTag("abcdef", weak=True)),
        ('"abcdef\xfc"', EntityTag("abcdef\xfc")),
        ('"a,b\\"', EntityTag("a,b\\")),  # a backslash escapes nothing here
        (' "a"\t', EntityTag("a")),
    ],
)
def test_a_tag_is_read_and_written(text, tag):
    assert parse_entity_tag(text) == tag
    assert str(tag) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abcdef",
        '"abcdef',
        'abcdef"',
        'w/"a"',
        'W/ "a"',
        "W/a",
        '"a b"',
        '"a"b"',
        '"\x7f"',
        '"\u0100"',
        '"a", "b"',
        "*",
    ],
)
def test_what_is_no_tag_is_nothing(text):
    assert parse_entity_tag(text) is None


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('"a"', [EntityTag("a")]),
        ('"a", "b","c"', [EntityTag("a"), EntityTag("b"), EntityTag("c")]),
        ('W/"a,b" ,\t"c"', [EntityTag("a,b", weak=True), EntityTag("c")]),
        (',, "a" ,,', [EntityTag("a")]),
        (' "a" ', [EntityTag("a")]),
    ],
)
def test_several_tags_are_read(text, tags):
    assert parse_entity_tags(text) == tuple(tags)


@pytest.mark.parametrize("text", ["", " ", ",", "a", '"a" "b"', '"a"b', '"a", b', '*, "a"', '"a", *', "**", '"a'])
def test_what_are_no_tags_is_nothing(text):
    assert parse_entity_tags(text) is None


def test_a_star_stands_for_any():
    assert parse_entity_tags(" * ") == "*"


@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [
        ('W/"1"', 'W/"1"', False, True),  # the table of RFC 9110, section 8.8.3.2
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
        ('"a"', '"A"', False, False),
    ],
)
def test_tags_are_compared_strongly_and_weakly(one, other, strongly, weakly):
    first, second = parse_entity_tag(one), parse_entity_tag(other)
    assert matches_strongly(first, second) is matches_strongly(second, first) is strongly
    assert matches_weakly(first, second) is matches_weakly(second, first) is weakly
