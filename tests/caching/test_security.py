"""The attacker's view: poisoning, deception, crashes, exhaustion, ways around. Each through ASGI and WSGI."""

import asyncio
import pickle
import time

import pytest

from apigate import CachePolicy, Method, asgi, asgi_exchange
from tests.caching.asking import Broken, Principal, Reply, World, cached, numbered

PUBLIC = cached()


def echoing(*names, fields=PUBLIC):
    """An app whose answer shows what it was sent in these fields, without Vary."""
    return lambda seen: Reply(200, fields, (repr([seen.fields.get(name) for name in names]).encode(),))


# ---- other users' data


def test_what_is_private_is_not_shared_though_it_says_public_or_s_maxage_too(world):
    for said in ("private, s-maxage=60", "public, private, max-age=60", "s-maxage=60, PRIVATE"):
        shop = world(numbered(("Cache-Control", said)), policies=[Principal()])
        assert shop.ask(authorization="Bearer alice").body == b"1"
        assert shop.ask(authorization="Bearer bob").body == b"2"
        assert shop.ask().body == b"3"


def test_what_is_private_is_still_kept_for_its_principal(world):
    shop = world(numbered(("Cache-Control", "private, max-age=60")), policies=[Principal()])
    assert [shop.ask(authorization="Bearer alice").body for _ in range(2)] == [b"1", b"1"]


def test_what_was_made_for_nobody_is_not_given_to_a_principal(world):
    shop = world(
        lambda seen: Reply(200, cached(), (seen.fields.get("authorization", "please log in").encode(),)),
        policies=[Principal()],
    )
    assert shop.ask().body == b"please log in"
    assert shop.ask(authorization="Bearer alice").body == b"Bearer alice"
    assert shop.ask().body == b"please log in"


def test_what_the_app_makes_public_is_given_to_everybody(world):
    shop = world(numbered(("Cache-Control", "public, max-age=60")), policies=[Principal()])
    assert [shop.ask(authorization=f"Bearer {who}").body for who in ("alice", "bob")] == [b"1", b"1"]
    assert shop.ask().body == b"1"


def test_an_owner_cannot_be_forged_by_what_a_client_sends(world):
    shop = world(
        lambda seen: Reply(200, cached(), (seen.fields["x-claims"].encode(),)),
        CachePolicy(per="claim:tenant"),
        policies=[Principal()],
    )
    assert shop.ask(x_claims="tenant=a").body == b"tenant=a"
    assert shop.ask("/", x_claims="tenant=b").body == b"tenant=b"
    assert shop.ask("/claim:tenant='a'", x_claims="tenant=b").body == b"tenant=b"
    assert shop.ask("/", x_claims="other=a").hit is False


def test_fields_that_a_targeted_field_keeps_private_are_not_stored(world):
    shop = world(
        lambda seen: Reply(
            200,
            [
                ("CDN-Cache-Control", 'max-age=60, private="x-user", no-cache="x-token"'),
                ("X-User", "alice"),
                ("X-Token", "t"),
            ],
        )
    )
    assert shop.ask().one("x-user") == "alice"
    got = shop.ask()
    assert got.hit
    assert got.one("x-user") is None
    assert got.one("x-token") is None


def test_fields_that_a_304_keeps_private_are_not_stored(world):
    def app(seen):
        if "if-none-match" in seen.fields:
            return Reply(304, [("Cache-Control", 'max-age=60, private="x-user"'), ("X-User", "bob")], ())
        return Reply(200, [("Cache-Control", "max-age=1"), ("ETag", '"a"')])

    shop = world(app)
    shop.ask()
    shop.clock.advance(2)
    shop.ask()
    got = shop.ask()
    assert got.hit
    assert got.one("x-user") is None


def test_a_304_that_forbids_storing_ends_what_is_stored(world):
    for said in ("no-store", "private", "max-age=60, private"):

        def app(seen, said=said):
            if "if-none-match" in seen.fields:
                return Reply(304, [("Cache-Control", said)], ())
            return Reply(200, [("Cache-Control", "max-age=1, stale-while-revalidate=600"), ("ETag", '"a"')])

        shop = world(app, methods={"*": Method(cache=CachePolicy(stale_if_error=600))})
        shop.ask()
        shop.clock.advance(2)
        shop.ask(cache_control="no-cache")
        assert not shop.ask().hit


def test_a_304_that_sets_a_cookie_is_told_to_its_client_alone(world):
    def app(seen):
        if "if-none-match" in seen.fields:
            return Reply(304, [("Cache-Control", "max-age=60"), ("Set-Cookie", "session=alice")], ())
        return Reply(200, [("Cache-Control", "max-age=1"), ("ETag", '"a"')])

    shop = world(app)
    shop.ask()
    shop.clock.advance(2)
    shop.ask()
    assert shop.ask(cache_control="only-if-cached").all("set-cookie") == []


def test_what_a_middleware_further_out_adds_to_a_hit_does_not_stay_in_the_cache():
    shop = World("asgi", numbered(*PUBLIC))
    try:
        shop.ask()

        async def hit(cookie):
            sent = []

            async def send(message):
                if message["type"] == "http.response.start":
                    message["headers"].append((b"set-cookie", cookie))
                sent.append(message)

            await shop.wrapped(shop.scope("/", "GET", [("host", "shop.example")]), None, send)
            return [value for name, value in sent[0]["headers"] if name == b"set-cookie"]

        assert shop.loop.run_until_complete(hit(b"session=alice")) == [b"session=alice"]
        assert shop.loop.run_until_complete(hit(b"session=bob")) == [b"session=bob"]
        assert shop.ask().all("set-cookie") == []
    finally:
        shop.close()


def test_what_a_middleware_further_out_adds_to_a_hit_does_not_stay_in_the_cache_under_wsgi():
    shop = World("wsgi", numbered(*PUBLIC))
    shop.ask()

    def hit():
        got = []

        def start_response(status, headers, exc_info=None):
            headers.append(("Set-Cookie", "session=alice"))
            got.extend(headers)

        list(shop.wrapped(shop.environ("/", "GET", b"", [("host", "shop.example")]), start_response))
        return [value for name, value in got if name == "Set-Cookie"]

    assert hit() == hit() == ["session=alice"]
    assert shop.ask().all("set-cookie") == []


def test_a_body_in_a_buffer_that_the_app_uses_again_is_kept_as_it_was(world):
    buffer = bytearray(b"first")

    def app(_):
        return Reply(200, PUBLIC, (memoryview(buffer),))

    shop = world(app)
    if shop.kind == "wsgi":
        pytest.skip("WSGI allows bytes alone")
    shop.ask()
    buffer[:] = b"other"
    assert shop.ask().body == b"first"


# ---- poisoning by what is not in the key


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "front-end-https",
        "x-forwarded-host",
        "x-forwarded-path",
        "x-forwarded-proto",
        "x-forwarded-protocol",
        "x-forwarded-ssl",
        "x-forwarded-uri",
        "x-original-uri",
        "x-scheme",
        "x-script-name",
        "x-url-scheme",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-host",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
    ],
)
def test_a_field_that_changes_urls_poisons_nobody(world, name):
    shop = world(echoing(name), CachePolicy(ttl=60))
    shop.ask(fields=[(name, "evil.example")])
    assert b"evil" not in shop.ask().body
    assert b"evil" not in shop.ask(fields=[(name, "good.example")]).body


def test_the_content_of_a_get_poisons_nobody(world):
    shop = world(lambda seen: Reply(200, PUBLIC, (seen.body or b"none",)), CachePolicy(ttl=60))
    for method in ("GET", "HEAD"):
        assert not shop.ask("/search?q=1", method=method, body=b"q=evil").hit
    assert shop.ask("/search?q=1").body == b"none"
    assert shop.ask("/search?q=1", method="GET", body=b"q=mine").body == b"q=mine"
    assert not shop.ask("/search?q=1", transfer_encoding="chunked").hit
    for nothing in ("0", ""):
        assert shop.ask("/search?q=1", content_length=nothing).hit


def test_forwarded_poisons_nobody_but_its_for_makes_no_other_key(world):
    shop = world(echoing("forwarded"), CachePolicy(ttl=60))
    shop.ask(forwarded="for=192.0.2.1;host=evil.example")
    assert b"evil" not in shop.ask().body
    assert b"evil" not in shop.ask(forwarded="for=192.0.2.1;host=good.example").body
    assert shop.ask(forwarded="for=192.0.2.9;host=evil.example").hit


@pytest.mark.parametrize("name", ["x-http-method-override", "x-http-method", "x-method-override"])
def test_a_request_that_may_be_of_another_verb_neither_reads_nor_writes(world, name):
    shop = world(echoing(name), CachePolicy(ttl=60))
    shop.ask(fields=[(name, "POST")])
    assert shop.ask().body == b"[None]"
    assert not shop.ask(fields=[(name, "POST")]).hit


def test_a_field_sent_twice_is_not_taken_for_its_first_value(world):
    shop = world(lambda seen: Reply(200, [*cached(), ("Vary", "Accept")], (seen.fields.get("accept", "").encode(),)))
    shop.ask(fields=[("accept", "a"), ("accept", "b")])
    assert not shop.ask(accept="a").hit
    assert not shop.ask(accept="b").hit
    shop = world(echoing("host"), CachePolicy(ttl=60))
    shop.ask(fields=[("host", "shop.example"), ("host", "evil.example")])
    assert not shop.ask().hit


@pytest.mark.parametrize(
    "cookie",
    [
        "lang =evil",
        " lang\t= evil",
        'x="; lang=evil; "',
        "a=1, lang=evil",
        "lang=evil\x1c",
        "\xa0lang=evil",
        "lang",
        "lang=en; lang=evil",
        ";;;lang=evil",
        'lang="evil',
        "lang==evil",
        "=lang=evil",
        "\x00lang=evil",
    ],
)
def test_a_cookie_of_odd_syntax_has_a_response_of_its_own(world, cookie):
    policy = CachePolicy(ttl=60, cookies=["lang"])
    shop = world(echoing("cookie"), policy)
    shop.ask(cookie=cookie)
    for plain in ("", "lang=en", "lang=evil"):
        assert not shop.ask(fields=[("cookie", plain)] if plain else []).hit


def test_a_well_formed_cookie_that_the_policy_does_not_name_makes_no_other_key(world):
    shop = world(numbered(*PUBLIC), CachePolicy(ttl=60, cookies=["lang"]))
    assert shop.ask(cookie="lang=en; tracker=1").body == b"1"
    assert shop.ask(cookie="tracker=2; lang=en").body == b"1"
    assert shop.ask(cookie="lang=de; tracker=1").body == b"2"
    assert shop.ask(cookie="tracker=1").body == b"3"
    assert shop.ask(cookie="lang=; tracker=1").body == b"4"


def test_queries_that_apps_tell_apart_are_told_apart(world):
    shop = world(lambda seen: Reply(200, PUBLIC, (seen.query.encode(),)), CachePolicy(ttl=60))
    queries = [
        "a=1&b=2",
        "b=2&a=1",
        "a=1&b=2&",
        "a=1;b=2",
        "a=%31&b=2",
        "a=1&a=2",
        "a=2&a=1",
        "a",
        "a=",
        "A=1",
        "",
        "a=1%26b=2",
        "a=1+",
        "a=1%20",
        "?a=1",
        "a=1#x",
    ]
    for query in queries:
        assert shop.ask(f"/?{query}").body == query.encode()
    for query in queries:
        assert shop.ask(f"/?{query}").body == query.encode()


def test_a_parameter_behind_a_semicolon_is_not_left_out_of_an_allow_list(world):
    shop = world(lambda seen: Reply(200, PUBLIC, (seen.query.encode(),)), CachePolicy(ttl=60, key={"query": ["page"]}))
    shop.ask("/?utm=1;page=evil")
    assert shop.ask("/?utm=1").body == b"utm=1"
    assert shop.ask("/?page=1&utm=3").body == b"page=1&utm=3"
    assert shop.ask("/?utm=4&p%61ge=evil").body == b"utm=4&p%61ge=evil"
    assert shop.ask("/?utm=5&page=1").body == b"page=1&utm=3"


# ---- deception


@pytest.mark.parametrize(
    "path",
    [
        "/account/x.css",
        "/account;x.css",
        "/account%2Fx.css",
        "/account%00.js",
        "/account/..%2Fstatic.js",
        "/account%3Fx.png",
        "/account%23.css",
        "/account//x.css",
        "/account/.css",
        "/ACCOUNT",
    ],
)
def test_no_path_makes_an_account_public(world, path):
    shop = world(
        lambda seen: Reply(200, (), (seen.fields.get("authorization", seen.fields.get("cookie", "")).encode(),)),
        methods={"*": Method(cache=CachePolicy(ttl=60))},
    )
    for sent in ({"authorization": "Bearer alice"}, {"cookie": "session=alice"}):
        shop.ask(path, **sent)
        assert b"alice" not in shop.ask(path).body


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a%2Fb", "/a/b"),
        ("/a", "/a/"),
        ("/a//b", "/a/b"),
        ("/A", "/a"),
        ("/%61", "/a"),
        ("/a%20", "/a"),
        ("/a;b", "/a"),
        ("/a%C3%A9", "/a%E9"),
        ("/a%FF", "/a%FE"),
        ("/a%EF%BF%BD", "/a%FE"),
    ],
)
def test_paths_that_differ_as_sent_are_told_apart(world, one, other):
    shop = world(numbered(*PUBLIC))
    assert shop.ask(one).body == b"1"
    assert shop.ask(other).body == b"2"


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2e/b", "/./a", "/a/%2E", "/a\x00", "/a%0d%0aX:%20y", "a"])
def test_a_path_that_means_another_is_refused_or_told_apart(world, path):
    shop = world(numbered(*PUBLIC))
    shop.ask("/b")
    got = shop.ask(path)
    assert got.status == 400 or got.body != b"1"


def test_a_target_in_absolute_form_is_told_apart_by_its_host(world):
    shop = world(echoing("host"), CachePolicy(ttl=60))
    if shop.kind == "wsgi":
        for raw in ("http://evil.example/", "http://shop.example/", "//evil.example/"):
            environ = shop.environ("/", "GET", b"", [("host", "shop.example")])
            environ["RAW_URI"] = raw
            list(shop.wrapped(environ, lambda *_: None))
        assert shop.calls == 3
    assert b"evil" not in shop.ask().body


# ---- HEAD, parts, and answers nobody asked for


def test_a_head_does_not_write_what_a_get_reads(world):
    shop = world(numbered(*PUBLIC, ("Content-Length", "1")), CachePolicy(ttl=60))
    shop.ask(method="HEAD")
    got = shop.ask()
    assert (got.hit, got.body) == (False, b"2")
    assert shop.ask(method="HEAD").hit


def test_a_part_that_the_app_sends_is_passed_on_and_not_stored(world):
    def app(seen):
        if "range" in seen.fields:
            return Reply(206, [*PUBLIC, ("Content-Range", "bytes 0-1/4")], (b"ab",))
        return Reply(200, PUBLIC, (b"abcd",))

    shop = world(app, CachePolicy(ttl=60))
    assert shop.ask(range="bytes=0-1").status == 206
    assert shop.ask().body == b"abcd"


def test_a_part_that_calls_itself_whole_is_not_stored(world):
    shop = world(lambda _: Reply(200, [*PUBLIC, ("Content-Range", "bytes 0-1/4")], (b"ab",)), CachePolicy(ttl=60))
    shop.ask()
    assert not shop.ask().hit


def test_a_304_that_nobody_asked_for_is_not_stored(world):
    answers = iter([Reply(304, [*PUBLIC, ("ETag", '"a"')], ()), Reply(200, PUBLIC, (b"whole",))])
    shop = world(lambda _: next(answers), CachePolicy(ttl=60))
    assert shop.ask().status == 304
    assert shop.ask().body == b"whole"


def test_a_304_to_the_condition_of_a_client_is_its_alone(world):
    def app(seen):
        return Reply(304, PUBLIC, ()) if "if-none-match" in seen.fields else Reply(200, PUBLIC, (b"whole",))

    shop = world(app, CachePolicy(ttl=60))
    assert shop.ask(if_none_match='"x"').status == 304
    got = shop.ask()
    assert (got.status, got.body) == (200, b"whole")


@pytest.mark.parametrize("length", ["3", "5", "-1", "4, 4", "x", "\xb2", "99999999999999999999", "+4", "4.0", ""])
def test_a_content_length_that_lies_keeps_the_response_out(world, length):
    shop = world(lambda _: Reply(200, [*PUBLIC, ("Content-Length", length)], (b"ab", b"c", b"d")), CachePolicy(ttl=60))
    shop.ask()
    got = shop.ask()
    assert not got.hit or got.body == b"abc"  # a server sends no more than was declared


def test_two_content_lengths_keep_the_response_out(world):
    fields = [*PUBLIC, ("Content-Length", "4"), ("Content-Length", "5")]
    shop = world(lambda _: Reply(200, fields, (b"abcd",)), CachePolicy(ttl=60))
    shop.ask()
    assert not shop.ask().hit


@pytest.mark.parametrize("status", [100, 101, 103, 199, 206, 304, 600, 999])
def test_statuses_that_are_no_final_whole_answer_are_not_stored(world, status):
    shop = world(numbered(*PUBLIC, status=status), CachePolicy())
    shop.ask()
    assert not shop.ask().hit


# ---- fields of the app that would fool the cache


@pytest.mark.parametrize("named", ["cache-control", "vary", "Cache-Control, Vary"])
def test_connection_cannot_take_out_what_the_cache_goes_by(world, named):
    fields = [("Cache-Control", "max-age=60, no-cache"), ("Vary", "Accept"), ("Connection", named), ("ETag", '"a"')]
    shop = world(lambda seen: Reply(200, fields, (seen.fields.get("accept", "").encode(),)), CachePolicy(ttl=60))
    shop.ask(accept="a")
    assert not shop.ask(accept="a").hit
    fields[0] = ("Cache-Control", "max-age=60")
    shop = world(lambda seen: Reply(200, fields, (seen.fields.get("accept", "").encode(),)), CachePolicy(ttl=60))
    shop.ask(accept="a")
    assert shop.ask(accept="b").body == b"b"


def test_no_cache_cannot_take_out_vary(world):
    fields = [("Cache-Control", 'max-age=60, private="vary", no-cache="vary, cache-control"'), ("Vary", "Accept")]
    shop = world(lambda seen: Reply(200, fields, (seen.fields.get("accept", "").encode(),)))
    shop.ask(accept="a")
    assert shop.ask(accept="b").body == b"b"


@pytest.mark.parametrize("vary", ["*", "Accept, *", "*, Accept", " * ", "accept,*foo", "Accept\t,\t*", ",*,"])
def test_a_star_anywhere_in_vary_matches_nobody(world, vary):
    shop = world(numbered(*PUBLIC, ("Vary", vary)), CachePolicy(ttl=60))
    shop.ask()
    assert not shop.ask().hit


def test_a_star_in_a_second_line_of_vary_matches_nobody(world):
    shop = world(numbered(*PUBLIC, ("Vary", "Accept"), ("VARY", "*")), CachePolicy(ttl=60))
    shop.ask()
    assert not shop.ask().hit


@pytest.mark.parametrize(
    "said",
    [
        "no-store",
        "NO-STORE",
        "private",
        "Private",
        "max-age=60, no-store",
        "max-age=60,private",
        "no-store=x",
        "no-store;",
        'private="',
        'private=""',
        'x="a, b", no-store',
        "\tno-store\t",
        "max-age=60\t,\tno-store",
        'x="no-store, no-store',
    ],
)
def test_whatever_restricts_counts_however_it_is_written(world, said):
    shop = world(numbered(("Cache-Control", said)), CachePolicy(ttl=60))
    shop.ask()
    assert not shop.ask().hit


def test_a_second_line_that_restricts_counts(world):
    shop = world(numbered(("Cache-Control", "max-age=60"), ("cache-control", "no-store")), CachePolicy(ttl=60))
    shop.ask()
    assert not shop.ask().hit


@pytest.mark.parametrize("name", ["Set-Cookie", "set-cookie", "SET-COOKIE"])
@pytest.mark.parametrize(
    "value", ["session=a", "", "=", "theme=dark, session=a", "Theme=dark", "theme =x;", ";theme=x"]
)
def test_a_cookie_is_not_stored_unless_just_that_is_allowed(world, name, value):
    shop = world(numbered(*PUBLIC, (name, value)), CachePolicy(ttl=60, set_cookies=["other"]))
    shop.ask()
    assert not shop.ask().hit


def test_of_two_cookies_one_that_is_not_allowed_is_enough(world):
    fields = [*PUBLIC, ("Set-Cookie", "theme=dark; Path=/"), ("Set-Cookie", "session=a")]
    shop = world(numbered(*fields), CachePolicy(ttl=60, set_cookies=["theme"]))
    shop.ask()
    assert not shop.ask().hit
    shop = world(numbered(*fields[:2]), CachePolicy(ttl=60, set_cookies=["theme"]))
    shop.ask()
    assert shop.ask().one("set-cookie") == "theme=dark; Path=/"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Expires", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("Cache-Control", "max-age=99999999999999999999999"),
        ("Cache-Control", f"max-age={'9' * 5_000}"),
        ("Cache-Control", "s-maxage=2147483648, stale-while-revalidate=99999999999999, stale-if-error=9999999999999"),
    ],
)
def test_lifetimes_of_thousands_of_years_are_counted(world, name, value):
    shop = world(numbered((name, value), ("Date", "Thu, 01 Jan 2026 00:00:00 GMT")))
    shop.ask()
    shop.clock.advance(60 * 86_400 * 365)
    got = shop.ask()
    assert got.hit
    assert got.one("age") == str(60 * 86_400 * 365)


@pytest.mark.parametrize(
    ("age", "hit"),
    [
        ("-1", True),
        ("59", True),
        ("60", False),
        ("99999999999999999999", False),
        ("1e9", True),
        ("\xb2", True),
        ("", True),
        ("59, 70", True),
        ("70, 59", False),
        ("  70", False),
        ("0x70", True),
        ("60.5", True),
    ],
)
def test_an_age_of_the_app_is_counted_where_it_is_a_number(world, age, hit):
    shop = world(numbered(*PUBLIC, ("Age", age)))
    shop.ask()
    assert shop.ask().hit is hit


@pytest.mark.parametrize(
    "date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "0", "x", "\x00", ""]
)
def test_no_date_of_the_app_makes_a_response_young(world, date):
    shop = world(numbered(*PUBLIC, ("Date", date)))
    shop.ask()
    shop.clock.advance(61)
    assert not shop.ask().hit


# ---- crashes


ODD = [
    "",
    " ",
    "\t",
    ",",
    ",,,",
    '"',
    '"\\',
    "=",
    "\x00",
    "\x7f",
    "\xff" * 50,
    "9" * 6_000,
    "a" * 60_000,
    "bytes=" + "0-0," * 5_000,
    "\r\n x",
    "%",
    "W/",
    "*",
    '"a", *',
    "max-age=-1",
    "max-age=",
    "bytes=-0",
    "bytes=9-1",
    "http://[",
    "[::1",
    "a b",
    "Thu, 99 Foo 0000 99:99:99 GMT",
    "Fri, 31 Dec 9999 23:59:60 GMT",
]


@pytest.mark.parametrize(
    "name",
    [
        "cache-control",
        "pragma",
        "range",
        "if-range",
        "if-none-match",
        "if-modified-since",
        "if-match",
        "if-unmodified-since",
        "cookie",
        "authorization",
        "host",
        "forwarded",
        "x-forwarded-host",
        "accept",
        "content-length-x",
        "upgrade",
        "accept-encoding",
    ],
)
def test_no_value_of_a_request_field_is_an_error(world, name):
    shop = world(
        lambda _: Reply(
            200, [*PUBLIC, ("Vary", "Accept, Accept-Encoding"), ("ETag", '"a"'), ("No-Vary-Search", "key-order")]
        ),
        CachePolicy(cookies=["a"], key={"headers": ["accept"]}),
    )
    for value in ODD:
        for method in ("GET", "HEAD"):
            for _ in range(2):
                assert shop.ask(method=method, fields=[(name, value)]).status in (200, 206, 304, 416, 504)


@pytest.mark.parametrize(
    "name",
    [
        "Cache-Control",
        "CDN-Cache-Control",
        "Vary",
        "ETag",
        "Last-Modified",
        "Expires",
        "Date",
        "Age",
        "Set-Cookie",
        "Connection",
        "Content-Length",
        "Content-Range",
        "Content-Type",
        "No-Vary-Search",
        "Cache-Groups",
        "Access-Control-Allow-Origin",
        "Cache-Group-Invalidation",
        "Location",
        "Content-Location",
    ],
)
def test_no_value_of_a_response_field_is_an_error(world, name):
    for policy in (CachePolicy(), CachePolicy(ttl=60)):
        for value in ODD:
            shop = world(lambda _, value=value: Reply(200, [*PUBLIC, ("ETag", '"a"'), (name, value)]), policy)
            for method in ("GET", "GET", "HEAD", "POST"):
                assert shop.ask(method=method).status == 200
            shop.clock.advance(61)
            assert shop.ask(range="bytes=0-0", if_none_match='"b"').status in (200, 206)


def test_a_websocket_is_not_answered_from_the_cache():
    shop = World("asgi", numbered(*PUBLIC))
    try:
        shop.ask("/feed")
        scope = {**shop.scope("/feed", "GET", [("host", "shop.example")]), "type": "websocket", "scheme": "http"}
        del scope["method"]
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message["type"])

        shop.loop.run_until_complete(shop.wrapped(scope, receive, send))
        assert sent == ["websocket.accept", "websocket.close"]
    finally:
        shop.close()


# ---- exhaustion


@pytest.mark.parametrize("pad", [" ", "\t", ",", " ,", "; ", "=", '"'])
def test_a_long_field_takes_no_long_time(world, pad):
    fields = [*PUBLIC, ("Vary", "Accept-Language, X-Odd")]
    shop = world(lambda _: Reply(200, fields), CachePolicy(cookies=["a"]))
    value = "en" + pad * (60_000 // len(pad)) + "x"
    before = time.process_time()
    for _ in range(2):
        shop.ask(fields=[("accept-language", value), ("x-odd", value), ("cookie", value), ("if-none-match", value)])
    assert time.process_time() - before < 1


def test_a_bomb_of_ranges_is_answered_whole(world):
    shop = world(lambda _: Reply(200, PUBLIC, (b"x" * 100_000,)), CachePolicy(ttl=60))
    shop.ask()
    for asked in ("bytes=" + ",".join(f"{n}-" for n in range(1_000)), "bytes=" + ",".join(["0-99999"] * 8)):
        got = shop.ask(range=asked)
        assert (got.status, len(got.body)) == (200, 100_000)


def test_queries_and_variants_without_end_stay_within_the_budget(world):
    shop = world(lambda _: Reply(200, [*PUBLIC, ("Vary", "Accept")]), CachePolicy(ttl=60), cache={"max_bytes": 100_000})
    for number in range(500):
        shop.ask(f"/?{number}")
        shop.ask("/", accept=str(number))
        assert shop.cache.stats()["bytes"] <= 100_000
    assert shop.cache.stats()["evictions"] > 0


def test_long_targets_with_no_vary_search_take_no_memory_of_their_own(world):
    shop = world(lambda _: Reply(404, [*PUBLIC, ("No-Vary-Search", "key-order")]), cache={"max_bytes": 200_000})
    for number in range(200):
        shop.ask(f"/{number}{'x' * 30_000}?b&a")
    taken = len(pickle.dumps(shop.cache.searches))
    assert taken < 100_000


def test_no_target_makes_the_memory_of_invalidations_grow(world):
    shop = world(lambda _: Reply(200))
    for number in range(100):
        shop.ask(f"/{number}{'x' * 20_000}", "POST")
    assert shop.cache.generations.bytes < 100_000


def test_a_client_cannot_flush_by_a_request_that_fails(world):
    shop = world(lambda seen: Reply(200 if seen.method == "GET" else 405, PUBLIC))
    shop.ask()
    for method in ("POST", "DELETE", "FOO", "get"):
        shop.ask(method=method)
        assert shop.ask().hit


def test_a_client_that_has_left_does_not_keep_an_endless_response_going_for_ever():
    shop = World("asgi", None, CachePolicy(ttl=60), cache={"max_item_bytes": 1_000})
    produced = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            produced.append(1)
            await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
            await asyncio.sleep(0)

    wrapped = asgi.GatewayMiddleware(app, shop.gateway)

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    try:
        shop.loop.run_until_complete(asyncio.wait_for(wrapped(shop.scope("/", "GET", []), receive, send), 5))
        assert len(produced) < 200
    finally:
        shop.close()


def test_a_slow_endless_response_ends_some_time_after_its_client_has_left_and_is_not_stored(monkeypatch):
    monkeypatch.setattr(asgi_exchange, "_PATIENCE", 0.05)
    shop = World("asgi", None, CachePolicy(ttl=60))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b""})  # as if it were complete

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    wrapped = asgi.GatewayMiddleware(app, shop.gateway)
    try:
        shop.loop.run_until_complete(asyncio.wait_for(wrapped(shop.scope("/", "GET", []), receive, send), 5))
        assert shop.cache.stats()["entries"] == 0
    finally:
        shop.close()


def test_what_an_app_hides_behind_an_error_is_not_kept(world):
    shop = world(lambda _: Reply(200, PUBLIC, (b"a", b"b"), Broken()), CachePolicy(ttl=60))
    with pytest.raises(Broken):
        shop.ask()
    shop.respond = lambda _: Reply(200, PUBLIC, (b"whole",))
    assert shop.ask().body == b"whole"


def test_nothing_that_is_stored_is_changed_by_what_it_is_served_to(world):
    shop = world(
        lambda _: Reply(200, [*PUBLIC, ("ETag", '"a"'), ("Vary", "Accept")], (b"abcdef",)), CachePolicy(ttl=60)
    )
    shop.ask()
    first = shop.ask()
    for fields in ({"range": "bytes=1-2"}, {"if_none_match": '"a"'}, {"range": "bytes=9-"}, {"range": "bytes=0-0,2-3"}):
        shop.ask(**fields)
        shop.ask(method="HEAD", **fields)
    assert shop.ask() == first


def test_a_refresh_is_made_as_the_principal_whose_response_it_is(world):
    found = []
    shop = world(numbered(("Cache-Control", "max-age=60, stale-while-revalidate=30")), policies=[Principal()])
    inner = shop.wrapped.app

    if shop.kind == "asgi":

        async def app(scope, receive, send):
            found.append((scope["apigate"].principal, dict(scope["apigate"].claims)))
            await inner(scope, receive, send)
    else:

        def app(environ, start_response):
            found.append((environ["apigate.context"].principal, dict(environ["apigate.context"].claims)))
            return inner(environ, start_response)

    shop.wrapped.app = app
    shop.ask(authorization="Bearer alice", x_claims="team=a")
    shop.clock.advance(70)
    assert shop.ask(authorization="Bearer alice", x_claims="team=a").body == b"1"
    assert found == [("alice", {"team": "a"})] * 2
