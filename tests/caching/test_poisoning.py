"""Ways to have something stored for others, which one request finds that an app and a cache understand differently."""

import pytest

from tests.caching.asking import Reply, cached

ORIGIN = "https://shop.example"


def test_an_origin_with_a_comma_takes_no_permission_from_the_same_without(world):
    def answered(seen):
        allowed = [("Access-Control-Allow-Origin", ORIGIN)] if seen.fields.get("origin") == ORIGIN else []
        return Reply(200, cached(("Vary", "Origin"), *allowed))

    shop = world(answered)
    for sent in (f"{ORIGIN},", f",{ORIGIN}", f"{ORIGIN} "):
        shop.ask(origin=sent)
    assert shop.ask(origin=ORIGIN).one("access-control-allow-origin") == ORIGIN


@pytest.mark.parametrize(
    ("name", "sent", "usual"),
    [
        ("accept", "TEXT/HTML", "text/html"),
        ("accept", "application/json, text/html", "application/json,text/html"),
        ("accept-language", "de,", "de"),
        ("x-tenant", "alice,", "alice"),
        ("x-filter", '{"name":"a,b"}', '{"name":"a, b"}'),
    ],
)
def test_a_value_that_an_app_tells_apart_is_another_variant(world, name, sent, usual):
    shop = world(lambda seen: Reply(200, cached(("Vary", name)), (repr(seen.fields[name]).encode(),)))
    shop.ask(fields=[(name, sent)])
    assert shop.ask(fields=[(name, usual)]).body == repr(usual).encode()
    assert shop.ask(fields=[(name, usual)]).hit
