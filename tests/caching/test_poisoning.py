"""Ways to have something stored for others, which one request finds that an app and a cache understand differently."""

import pytest

from tests.caching.asking import Reply, World, cached

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


@pytest.mark.parametrize("name", ["x_forwarded_host", "x_forwarded-host", "x-forwarded_host"])
def test_a_field_with_underscores_counts_as_what_wsgi_makes_of_it(name):
    def answered(seen):
        fields = {name.replace("_", "-"): value for name, value in seen.fields.items()}  # as a bridge to WSGI does
        return Reply(200, cached(), (fields.get("x-forwarded-host", "none").encode(),))

    shop = World("asgi", answered)
    assert shop.ask(fields=[(name, "evil.example")]).body == b"evil.example"
    assert shop.ask().body == b"none"
    shop.close()


def test_a_varying_field_with_underscores_counts_as_what_wsgi_makes_of_it():
    def answered(seen):
        fields = {name.replace("_", "-"): value for name, value in seen.fields.items()}
        return Reply(200, cached(("Vary", "Accept-Language")), (fields.get("accept-language", "none").encode(),))

    shop = World("asgi", answered)
    assert shop.ask(fields=[("accept_language", "de")]).body == b"de"
    assert shop.ask().body == b"none"
    shop.close()
