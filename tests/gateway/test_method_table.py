"""Which method a request is for: verbs, templates, and what goes before what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apigate import ConfigurationError
from apigate.core.routes import MethodTable, has_dot_segment, method_key


def table(*names: str) -> MethodTable[str]:
    return MethodTable({name: name for name in names})


PETS = table("GET /pets", "GET /pets/mine", "GET /pets/{id}", "* /pets/{id}", "GET /{proxy+}", "POST /{kind}/{id}")


@pytest.mark.parametrize(
    ("verb", "path", "method"),
    [
        ("GET", "/pets", "GET /pets"),
        ("GET", "/pets/mine", "GET /pets/mine"),
        ("GET", "/pets/7", "GET /pets/{id}"),
        ("PUT", "/pets/7", "* /pets/{id}"),
        ("POST", "/pets/7", "* /pets/{id}"),  # the literal segment comes first, then the verb
        ("POST", "/cats/7", "POST /{kind}/{id}"),
        ("PUT", "/pets/mine", "* /pets/{id}"),  # the literal segment has no PUT
        ("GET", "/cats", "GET /{proxy+}"),
        ("GET", "/pets/7/toys/9", "GET /{proxy+}"),
        ("DELETE", "/pets", None),
        ("GET", "/", None),
    ],
)
def test_literal_goes_before_parameter_before_greedy_and_the_verb_itself_before_any(verb, path, method):
    assert PETS.find(verb, path) == (() if method is None else (method,))


def test_a_literal_that_leads_nowhere_gives_way_to_the_parameter():
    found = table("GET /a/b/c", "GET /a/{x}/d", "GET /{y}/b/e", "GET /{proxy+}")
    assert found.find("GET", "/a/b/d") == ("GET /a/{x}/d",)
    assert found.find("GET", "/a/b/e") == ("GET /{y}/b/e",)
    assert found.find("GET", "/a/b/f") == ("GET /{proxy+}",)


def test_a_greedy_parameter_takes_at_least_one_segment():
    files = table("GET /files/{proxy+}")
    assert files.find("GET", "/files/a") == files.find("GET", "/files/a/b/c") == ("GET /files/{proxy+}",)
    assert files.find("GET", "/files") == files.find("GET", "/files/") == files.find("GET", "/file") == ()


def test_a_parameter_is_one_segment_that_is_not_empty():
    pets = table("GET /pets/{id}")
    assert pets.find("GET", "/pets/") == pets.find("GET", "/pets") == pets.find("GET", "/pets/1/2") == ()
    assert (
        pets.find("GET", "/pets/ ")
        == pets.find("GET", "/pets/{id}")
        == pets.find("GET", "/pets/é")
        == ("GET /pets/{id}",)
    )


@pytest.mark.parametrize("verb", ["GET", "get", "Get", "HEAD", "head"])
def test_letter_case_of_a_verb_does_not_matter_and_head_is_get(verb):
    assert PETS.find(verb, "/pets") == ("GET /pets",)


def test_head_is_not_any_verb_where_get_is_named():
    assert table("* /x", "GET /x").find("HEAD", "/x") == ("GET /x",)
    assert table("* /x").find("HEAD", "/x") == ("* /x",)
    assert table("POST /x").find("HEAD", "/x") == ()


def test_a_path_alone_stands_for_any_verb():
    assert [table("/x").find(verb, "/x") for verb in ("GET", "PURGE", "x-own")] == [("/x",)] * 3


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/a", ["GET /a"]),
        ("/a/", ["GET /a"]),
        ("//a", ["GET /a"]),
        ("//a//", ["GET /a"]),
        ("/b/", ["GET /b/", "GET /b"]),
        ("/b", ["GET /b"]),
        ("/b//", ["GET /b/", "GET /b"]),
        ("/c//d", ["GET /c/{proxy+}", "GET /c/d"]),
        ("/c/d", ["GET /c/d"]),
        ("/c//e", ["GET /c/{proxy+}"]),
        ("/", ["GET /"]),
        ("//", ["GET /"]),
        ("", ["GET /"]),
        ("a", []),
        ("*", []),
    ],
)
def test_doubled_and_trailing_slashes_are_looked_up_as_sent_and_collapsed(path, methods):
    found = table("GET /", "GET /a", "GET /b", "GET /b/", "GET /c/{proxy+}", "GET /c/d")
    assert found.find("GET", path) == tuple(methods)


def test_a_path_of_many_segments_or_slashes_costs_no_more_than_its_length():
    deep = table(*[f"GET /{''.join(f'{{p{n}}}/' for n in range(depth))}x" for depth in range(1, 30)], "GET /a/{proxy+}")
    assert deep.find("GET", "/a" * 50_000) == ("GET /a/{proxy+}",)
    assert deep.find("GET", "/" * 100_000) == ()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/.", True),
        ("/..", True),
        ("/a/./b", True),
        ("/a/../b", True),
        ("/a/..", True),
        ("/...", False),
        ("/.well-known/x", False),
        ("/a..b/c.", False),
        ("/..a", False),
        ("/", False),
        ("", False),
    ],
)
def test_a_dot_segment_is_a_whole_segment_of_one_or_two_dots(path, found):
    assert has_dot_segment(path) is found


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("GET /pets/{id}", ("GET", "/pets/{id}")),
        ("* /x", ("*", "/x")),
        ("/x", ("*", "/x")),
        ("  POST   /x ", ("POST", "/x")),
        ("PURGE /", ("PURGE", "/")),
        ("ANY /x", ("*", "/x")),
        ("GET /{a.b-c_d}/{rest+}", ("GET", "/{a.b-c_d}/{rest+}")),
        ("POST /v1/things:cancel", ("POST", "/v1/things:cancel")),
        ("GET /a*/*b", ("GET", "/a*/*b")),
    ],
)
def test_a_methods_name_is_read(name, key):
    assert method_key(name) == key


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pets", "not a method"),
        ("", "not a method"),
        ("get /pets", "verb in capitals"),
        ("GET pets", "not a method"),
        ("GET /a b", "not a method"),
        ("GET", "not a method"),
        ("GET POST /a", "not a method"),
        ("HEAD /a", "HEAD counts as GET"),
        ("GET /a/../b", "dot segment"),
        ("GET /a/{id}.json", "whole parameter"),
        ("GET /{id", "whole parameter"),
        ("GET /id}", "whole parameter"),
        ("GET /{}", "whole parameter"),
        ("GET /<id>", "with braces"),
        ("GET /<int:id>", "with braces"),
        ("GET /orders/:id", "parameter ':id' with braces, as {id}$"),
        ("GET /:shop/orders", "parameter ':shop' with braces"),
        ("GET /orders/*", r"'\*' with braces, as {id} for any one segment or, at the end, {rest\+} for one or more$"),
        ("GET /*/orders", r"'\*' with braces"),
        ("/**", r"'\*\*' with braces"),
        ("GET /{1st}", "whole parameter"),
        ("GET /{rest+}/a", "must come last"),
        ("GET /{a}/{a}", "twice"),
    ],
)
def test_what_is_no_method_is_refused_by_name(name, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        method_key(name)
    assert repr(name) in str(caught.value)
    assert str(caught.value).startswith("methods: ")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GET /{a}", "GET /{b}"),
        ("* /x", "/x"),
        ("ANY /x", "* /x"),
        ("GET /a/{b+}", "GET /a/{c+}"),
        ("GET /x", "GET  /x"),
    ],
)
def test_two_names_of_the_same_requests_are_refused(one, other):
    with pytest.raises(ConfigurationError, match="match the same requests") as caught:
        table(one, other)
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)


# ---- against a matcher that tries every template

SEGMENTS = ["a", "b", "pets"]
VERBS = ["GET", "POST", "*"]


@st.composite
def names(draw: st.DrawFn) -> str:
    inner = draw(st.lists(st.sampled_from([*SEGMENTS, "{}"]), max_size=4))
    if draw(st.booleans()):
        inner.append("{+}")
    numbered = [part.replace("{", f"{{p{number}") for number, part in enumerate(inner)]
    tail = "/" if inner and inner[-1] != "{+}" and draw(st.integers(0, 5)) == 0 else ""
    return f"{draw(st.sampled_from(VERBS))} /{'/'.join(numbered)}{tail}"


def shape(name: str) -> str:
    return "/".join(("{+}" if "+" in part else "{}") if part.startswith("{") else part for part in name.split("/"))


TABLES = st.lists(names(), max_size=12, unique_by=shape)
PATHS = st.lists(st.sampled_from([*SEGMENTS, "x", "", ""]), max_size=6).map(lambda parts: "/" + "/".join(parts))


def rank(name: str, verb: str, path: str) -> tuple[list[int], bool] | None:
    """How well a template matches, smaller is better; None if it does not."""
    own_verb, _, template = name.partition(" ")
    if own_verb not in (verb, "*"):
        return None
    parts, segments = template.split("/")[1:], path.split("/")[1:]
    kinds = []
    for place, part in enumerate(parts):
        if part.endswith("+}"):
            return (([*kinds, 2], own_verb == "*")) if "/".join(segments[place:]) else None
        if place >= len(segments):
            return None
        is_parameter = part.startswith("{")
        if segments[place] != part and not (is_parameter and segments[place]):
            return None
        kinds.append(int(is_parameter))
    return (kinds, own_verb == "*") if len(parts) == len(segments) else None


def best(methods: list[str], verb: str, path: str) -> list[str]:
    ranked = [(found, name) for name in methods if (found := rank(name, verb, path)) is not None]
    return [min(ranked)[1]] if ranked else []


def naive(methods: list[str], verb: str, path: str) -> tuple[str, ...]:
    sent = best(methods, verb, path)
    parts = [part for part in path.split("/") if part]
    merged = "/" + "/".join(parts) + ("/" if parts and path.endswith("/") else "")
    return tuple(dict.fromkeys(sent + best(methods, verb, merged) + best(methods, verb, "/" + "/".join(parts))))


@settings(max_examples=600, deadline=None)
@given(TABLES, st.sampled_from(["GET", "POST", "PUT"]), st.lists(PATHS, min_size=1, max_size=8))
def test_the_table_finds_what_trying_every_template_finds(methods, verb, paths):
    built = table(*methods)
    for path in paths:
        assert built.find(verb, path) == naive(methods, verb, path)


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_the_short_cut_for_static_paths_agrees_with_the_table(methods):
    built = table(*methods)
    for (verb, path), found in built.static.items():
        assert found == built.find(verb, path) == naive(methods, "GET" if verb == "HEAD" else verb, path)
    assert {path for verb, path in built.static if verb != "HEAD"} == {
        name.partition(" ")[2] for name in methods if "{" not in name and not name.startswith("*")
    }
