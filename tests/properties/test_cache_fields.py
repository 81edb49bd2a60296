"""What a cache reads from fields, against models of others and of brute force."""

import calendar
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qsl, quote

import http_sf
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import http_date as werkzeug_date
from werkzeug.http import parse_etags

from apigate.caching import structured
from apigate.caching.dates import parse_http_date
from apigate.caching.directives import LONGEST, parse_age, parse_directives
from apigate.caching.etags import EntityTag, matches_strongly, matches_weakly, parse_entity_tags
from apigate.caching.query import normalized_query
from apigate.caching.ranges import MOST_RANGES, parse_range
from apigate.caching.search import parse_no_vary_search
from apigate.caching.structured import Date, DisplayString, InnerList, Item, Token
from tests.strategies import UNHURRIED

# ---- dates

instants = st.integers(-62_135_596_800, 253_402_300_799)


@given(instants)
@UNHURRIED
def test_a_date_that_others_write_is_read(seconds):
    assert parse_http_date(werkzeug_date(datetime.fromtimestamp(seconds, UTC)), 0) == seconds


@given(now=st.integers(0, 200_000_000_000), ahead=st.integers(-1_560_000_000, 1_570_000_000))
@UNHURRIED
def test_a_date_within_about_fifty_years_keeps_its_century(now, ahead):
    at = datetime.fromtimestamp(now + ahead, UTC)
    text = f"{at:%A}, {at:%d}-{at:%b}-{at:%y} {at:%H:%M:%S} GMT"
    assert parse_http_date(text, now) == now + ahead


@given(st.tuples(*[st.integers(0, 99)] * 5), st.integers(0, 9_999), st.sampled_from(calendar.month_abbr[1:]))
@UNHURRIED
def test_a_day_or_an_hour_that_there_is_not_is_no_date(numbers, year, month):
    day, hour, minute, second, _ = numbers
    try:
        expected = datetime(
            year, list(calendar.month_abbr).index(month), day, hour, minute, min(second, 59), tzinfo=UTC
        )
    except ValueError:
        expected = None
    if second > 60:
        expected = None
    read = parse_http_date(f"Mon, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT", 0)
    assert read == (None if expected is None else int(expected.timestamp()) + max(0, second - 59))


# ---- structured fields

keys = st.from_regex(r"\A[a-z*][a-z0-9_.*-]{0,5}\Z")
ascii_texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)
bare_items = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.integers(-(10**15) + 1, 10**15 - 1).map(lambda thousandths: thousandths / 1_000),
    ascii_texts,
    st.binary(max_size=8),
    st.builds(Token, st.from_regex(r"\A[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]{0,6}\Z")),
    st.builds(Date, st.integers(-(10**10), 10**11)),  # as far as the dates of the model go
    st.builds(DisplayString, st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
)
parameters = st.dictionaries(keys, bare_items, max_size=3)
items = st.builds(Item, bare_items, parameters)
members = items | st.builds(InnerList, st.lists(items, max_size=3).map(tuple), parameters)
lists = st.lists(members, max_size=4).map(tuple)
dictionaries = st.dictionaries(keys, members, max_size=4)

symbols = st.sampled_from(
    [
        *'"\\;=,:?@%*-.()&/ \t',
        *"0159aAzfF_",
        "?1",
        ":aGk=:",
        '%"%c3%bc"',
        '"a"',
        "@1",
        "1.5",
        ", ",
        "a=1",
        ";b",
        "é",
        "\n",
        "\x7f",
        "\x00",
    ]
)
near_misses = st.lists(symbols, max_size=10).map("".join)


def plain(value):  # noqa: PLR0911 - one line for each type
    """A value of ours, or of the model, as what both have in common; with its type, as 1 equals True."""
    match value:
        case InnerList(members, parameters):
            return "inner", [plain(item) for item in members], plain(dict(parameters))
        case Item(bare, parameters):
            return plain(bare), plain(dict(parameters))
        case dict():
            return [(key, plain(member)) for key, member in value.items()]
        case Token(text):
            return "token", text
        case Date(seconds):
            return "date", seconds
        case DisplayString(text):
            return "display", text
        case float() | Decimal():
            return "decimal", f"{float(value):.3f}"
        case _:
            return type(value).__name__, value


def models(value):  # noqa: PLR0911 - as above
    """The same of what http_sf returns."""
    match value:
        case (list(), dict()):
            return "inner", [models(item) for item in value[0]], models(value[1])
        case (bare, dict()):
            return models(bare), models(value[1])
        case dict():
            return [(key, models(member)) for key, member in value.items()]
        case http_sf.Token():
            return "token", str(value)
        case http_sf.DisplayString():
            return "display", str(value)
        case datetime():
            return "date", round(value.timestamp())
        case _:
            return plain(value)


def by_the_model(text, kind):
    """What http_sf reads, or None; it reads bytes."""
    try:
        found = http_sf.parse(text.encode("utf-8"), tltype=kind)
    except http_sf.StructuredFieldError:
        return None
    return [models(member) for member in found] if kind == "list" else models(found)


def by_us(text, kind):
    found = getattr(structured, f"parse_{kind}")(text)
    if found is None:
        return None
    return [plain(member) for member in found] if kind == "list" else plain(found)


@given(items)
@UNHURRIED
def test_an_item_that_is_written_is_read_back(item):
    text = structured.serialize_item(item)
    assert plain(structured.parse_item(text)) == plain(item)
    assert by_the_model(text, "item") == plain(item)


@given(lists)
@UNHURRIED
def test_a_list_that_is_written_is_read_back(sent):
    text = structured.serialize_list(sent)
    assert by_us(text, "list") == [plain(member) for member in sent]
    assert by_the_model(text, "list") == [plain(member) for member in sent]


@given(dictionaries)
@UNHURRIED
def test_a_dictionary_that_is_written_is_read_back(sent):
    text = structured.serialize_dictionary(sent)
    assert by_us(text, "dictionary") == plain(sent)
    assert by_the_model(text, "dictionary") == plain(sent)


@given(near_misses | near_misses.map(lambda text: f"a={text}"), st.sampled_from(["item", "list", "dictionary"]))
@example("1.0000", "item")
@example("a;b", "dictionary")
@UNHURRIED
def test_what_is_nearly_a_structured_field_is_judged_as_by_others(text, kind):
    assert by_us(text, kind) == by_the_model(text, kind)


# ---- directives

tokens = st.from_regex(r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}\Z")
arguments = st.none() | tokens | st.text(st.characters(max_codepoint=0xFF), max_size=10)


def written(name, argument, *, quoted):
    if argument is None:
        return name
    if not quoted and argument.replace("-", "").isalnum() and argument.isascii():
        return f"{name}={argument}"
    return name + '="' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.dictionaries(tokens.map(str.lower), arguments, max_size=5), st.booleans(), st.data())
@UNHURRIED
def test_directives_that_are_well_written_are_read_back(directives, quoted, data):
    parts = [written(name, argument, quoted=quoted) for name, argument in directives.items()]
    cut = data.draw(st.integers(0, len(parts)))
    assert dict(parse_directives([" , ".join(parts[:cut]), ",".join(parts[cut:])])) == directives


@given(st.integers(0, 10**12), st.integers(0, 5))
@UNHURRIED
def test_seconds_and_age_are_read_alike(seconds, zeros):
    text = "0" * zeros + str(seconds)
    assert parse_directives([f"max-age={text}"]).seconds("max-age") == parse_age([text]) == min(seconds, LONGEST)


@given(near_misses, st.sampled_from(["no-store", "private", "no-cache"]))
@UNHURRIED
def test_no_text_before_it_hides_a_directive_on_a_line_of_its_own(text, name):
    directives = parse_directives([text, name])
    assert name in directives
    assert directives.fields(name) == frozenset()


# ---- entity tags

tags = st.builds(EntityTag, st.text(st.sampled_from("ab,\\ü!~"), max_size=4), st.booleans())


@given(st.lists(tags, min_size=1, max_size=5))
@UNHURRIED
def test_entity_tags_that_are_written_are_read_back(sent):
    text = ", ".join(map(str, sent))
    assert parse_entity_tags(text) == tuple(sent)


@given(st.lists(st.builds(EntityTag, st.text("abc", min_size=1, max_size=2), st.booleans()), min_size=1), tags)
@UNHURRIED
def test_entity_tags_match_as_by_others(sent, wanted):
    theirs = parse_etags(", ".join(map(str, sent)))
    weakly = any(matches_weakly(tag, wanted) for tag in sent)
    strongly = any(matches_strongly(tag, wanted) for tag in sent)
    assert weakly == theirs.contains_weak(wanted.opaque)
    assert strongly == (theirs.is_strong(wanted.opaque) and not wanted.weak)


# ---- ranges

specs = st.tuples(st.none() | st.integers(0, 25), st.none() | st.integers(0, 25)).filter(any)


def bytes_of(spec, length):
    """The positions that a range asks for, one by one; None where it is invalid."""
    first, last = spec
    if first is None:
        return [at for at in range(length) if at >= length - last]
    if last is not None and last < first:
        return None
    return [at for at in range(length) if at >= first and (last is None or at <= last)]


@given(st.lists(specs.filter(lambda spec: spec != (None, None)), min_size=1, max_size=10), st.integers(1, 20))
@UNHURRIED
def test_ranges_are_the_bytes_that_were_asked_for(asked, length):
    def shown(position):
        return "" if position is None else str(position)

    text = "bytes=" + ", ".join(f"{shown(first)}-{shown(last)}" for first, last in asked)
    expected = [bytes_of(spec, length) for spec in asked]
    positions = [at for found in expected if found for at in found]
    ranges = parse_range(text, length)
    if None in expected or len(asked) > MOST_RANGES or len(positions) > len(set(positions)):
        assert ranges is None
    else:
        assert ranges == tuple((found[0], found[-1]) for found in expected if found)


# ---- queries

query_parts = st.lists(
    st.sampled_from(["a", "b", "c", "%61", "%C3%A9", "é", "=", "&", "&", "+", "%20", "%", ";", "1", "2", "%FF", "%26"]),
    max_size=14,
)
queries = query_parts.map("".join)
asked_names = st.none() | st.frozensets(st.sampled_from(["a", "b", "c", "", "é", " "]))


def sorted_pairs(query, names):
    """What an app sees, as far as it was asked to count, in the order of names."""
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    return sorted((pair for pair in pairs if names is None or pair[0] in names), key=lambda pair: pair[0])


@given(queries, asked_names, st.booleans())
@UNHURRIED
def test_a_normalized_query_is_normalized(query, names, ordered):
    once = normalized_query(query, names, ordered=ordered)
    assert normalized_query(once, names, ordered=ordered) == once


@given(queries, asked_names, st.booleans())
@UNHURRIED
def test_a_normalized_query_holds_all_that_an_app_was_asked_to_tell_apart(query, names, ordered):
    """So that two queries with the same one are the same to the app."""
    query = query.replace("é", "\xc3\xa9").replace(";", "")
    once = normalized_query(query, names, ordered=ordered)
    decoded = once.replace("\xc3\xa9", "é"), query.replace("\xc3\xa9", "é")
    assert sorted_pairs(decoded[0], None) == sorted_pairs(decoded[1], names)
    assert sorted(once.split("&")) == sorted(part for part in query.split("&") if part in once.split("&")) or once == ""


@given(queries, asked_names)
@UNHURRIED
def test_what_is_kept_of_a_query_is_as_it_was_sent(query, names):
    sent = iter(query.split("&"))
    kept = normalized_query(query, names, ordered=True)
    assert all(part in sent for part in kept.split("&")) or kept == ""


@given(queries, st.permutations(range(4)))
@UNHURRIED
def test_the_order_of_names_makes_no_difference_where_it_was_asked_not_to(query, order):
    parts = [f"{name}={quote(query)}" for name in "wxyz"]
    shuffled = "&".join(parts[index] for index in order)
    assert normalized_query(shuffled, None, ordered=False) == "&".join(parts)


@given(
    queries, queries, st.sampled_from(["key-order", 'params=("a")', 'params, except=("a" "b")', 'params=("%C3%A9")'])
)
@UNHURRIED
def test_queries_make_no_difference_exactly_where_their_parsed_parameters_make_none(one, other, field):
    variance = parse_no_vary_search([field])

    def seen(query):
        pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
        listed = {name.decode() for name in variance.listed}
        pairs = [pair for pair in pairs if (pair[0] in listed) is variance.only_listed]
        return pairs if variance.ordered else sorted(pairs, key=lambda pair: pair[0])

    ours = [variance.normalized(query.replace("é", "\xc3\xa9")) for query in (one, other)]
    assert (ours[0] == ours[1]) == (seen(one) == seen(other))
    assert variance.normalized(ours[0]) == ours[0]
