"""A hundred thousand mutated field values: none makes a parser of the cache raise, none takes it long.

Everything is drawn from one seed, which a failure prints; run it again with `APIGATE_FUZZ_SEED=<seed>`.
"""

import os
import random

import pytest

from apigate.caching.dates import parse_http_date
from apigate.caching.directives import parse_age, parse_directives, targeted_directives
from apigate.caching.etags import parse_entity_tag, parse_entity_tags
from apigate.caching.groups import parse_groups
from apigate.caching.query import normalized_query
from apigate.caching.ranges import parse_range
from apigate.caching.search import parse_no_vary_search
from apigate.caching.structured import parse_dictionary, parse_item, parse_list

SEED = int(os.environ.get("APIGATE_FUZZ_SEED", "20261122"))
VALUES = 100_000
NOW = 1_794_000_000
NAMES = frozenset({"a", "b"})

SEEDS = [
    'max-age=60, no-cache="set-cookie, x", private, s-maxage=5, stale-while-revalidate=30, public',
    'extension="a\\"b, max-age=3600", no-store',
    "max-stale, min-fresh=5, only-if-cached",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    'W/"abc", "d,e", ""',
    "*",
    "bytes=0-1, 5-, -9",
    "bytes 4-9/10",
    'params, except=("a" "%C3%A9"), key-order',
    '"pets";x=1, "dogs";y, ("a" b 1.5 :aGk=: ?1 @5 %"%c3%bc");z=-5',
    "a=1&b=%20+&%61;b=2&&c",
    "7200, 0",
]
ODD = [
    *'"\\,;=:?@%*-./()& \t\r\n\x00\x7f\x80\xff',
    *["é", "日", "\u202e", "\ud800", "\U0001f600", "\u0130", "\u017f", "\u0663", "\xb2", "\x1c", "\x85", "\u2028"],
    *["9" * 400, "9" * 5_000, "0" * 50, "-1", "1e9", "inf", "%", "%FF", "%ud800", '\\"', '="', '"a', "W/", "bytes="],
]


def read_all(text):
    """Hand a text to every parser, and what they found to what can be asked of it."""
    lines = text.split("\n")
    parse_http_date(text, NOW)
    parse_age(lines)
    for directives in (parse_directives(lines), targeted_directives(lines)):
        for name in directives or ():
            assert directives.seconds(name) >= 0
            directives.fields(name)
    parse_entity_tag(text)
    parse_entity_tags(text)
    for length in (0, 11):
        parse_range(text, length)
    for parse in (parse_item, parse_list, parse_dictionary):
        parse(text)
    parse_groups(lines)
    if variance := parse_no_vary_search(lines):
        variance.normalized(text)
    for names in (None, NAMES):
        normalized_query(text, names, ordered=False)


def mutated(dice):
    """One of the seeds with some of its characters changed, left out, doubled, or put in from elsewhere."""
    text = dice.choice(SEEDS)
    for _ in range(dice.randint(1, 6)):
        at = dice.randint(0, len(text))
        match dice.randrange(5):
            case 0:
                text = text[:at] + dice.choice(ODD) + text[at:]
            case 1:
                text = text[:at] + text[at + dice.randint(1, 3) :]
            case 2:
                text = text[:at] + dice.choice(ODD) + text[at + 1 :]
            case 3:
                text += dice.choice([", ", ",", "\n", ";", ""]) + dice.choice(SEEDS)
            case _:
                text = text[:at] + text[at:].swapcase()
    return text


def test_no_value_makes_a_parser_raise():
    dice = random.Random(SEED)
    for number in range(VALUES):
        text = mutated(dice)
        try:
            read_all(text)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            pytest.fail(f"value {number} of seed {SEED}, {text!r}: {error!r}")


PIECES = [
    *ODD,
    *SEEDS,
    "a",
    "1",
    " ,",
    'a="',
    'a="\\',
    'a="\\",',
    'a="b"c,',
    '""',
    "(a",
    "a;",
    ";a=1",
    '"a",',
    "1-,",
    "%a",
]


@pytest.mark.parametrize("before", ["", '"', 'a="', "(", '%"', ":", "bytes=", '"a"'])
def test_no_value_of_sixty_four_kilobytes_takes_for_ever(before):
    for piece in dict.fromkeys(PIECES):
        read_all((before + piece * (65_536 // len(piece)))[:65_536] + "\x01")
