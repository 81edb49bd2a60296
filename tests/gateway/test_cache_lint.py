"""What `lint` finds of caches that is allowed and yet hardly meant."""

import pytest

from apigate import CachePolicy, Gateway, Method, ResponseCache, Stage
from apigate.core.policy import Phase

KEY = b"k" * 32


def found(gateway):
    return [(finding.check, finding.setting) for finding in gateway.lint()]


class Authorizer:
    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.principal = "ada"


def of(name):
    return f'stages.default.methods."{name}"'


@pytest.mark.parametrize(
    ("name", "policy", "odd"),
    [
        ("POST /search", CachePolicy(ttl=60), True),
        ("PUT /pets", CachePolicy(ttl=60), True),
        ("GET /pets", CachePolicy(ttl=60, methods=["QUERY"]), True),
        ("POST /search", CachePolicy(ttl=60, methods=["POST"]), False),
        ("PUT /pets", CachePolicy(), False),  # for its invalidating
        ("POST /search", CachePolicy(ttl=0), False),
        ("QUERY /pets", CachePolicy(ttl=60), False),
        ("*", CachePolicy(ttl=60), False),
        ("/pets", CachePolicy(ttl=60), False),
        ("POST /search", None, False),
    ],
)
def test_a_lifetime_of_what_is_never_stored_is_found(name, policy, odd):
    gateway = Gateway(methods={name: Method(cache=policy)})
    assert found(gateway) == ([("uncached-verb", of(name))] if odd else [])


def test_it_is_said_how_a_verb_is_cached_if_it_can_be():
    methods = {name: Method(cache=CachePolicy(ttl=60)) for name in ("POST /search", "PUT /pets")}
    post, put = (finding.message for finding in Gateway(methods=methods).lint())
    assert post.endswith("so nothing is stored; name it, methods=['POST'], or leave the ttl out")
    assert put.endswith("so nothing is stored; leave the ttl out")


def test_a_policy_in_a_stage_without_cache_is_found():
    methods = {"*": Method(cache=CachePolicy(ttl=60)), "GET /pets": Method(cache={"ttl": 5}), "GET /x": Method(cost=2)}
    settings = [("without-effect", of("GET /pets")), ("without-effect", of("*"))]
    assert found(Gateway(cache=None, methods=methods)) == settings
    assert found(Gateway(methods=methods)) == []
    assert found(Gateway(cache=None, methods={"GET /pets": Method(cache=None)})) == []
    assert found(Gateway(cache=None)) == []


@pytest.mark.parametrize(
    ("sizes", "odd"),
    [
        ({"max_bytes": "1MB", "max_item_bytes": "2MB"}, True),
        ({"max_bytes": "1MB", "max_item_bytes": "1MB"}, False),
        ({"max_bytes": "1MB"}, False),
        ({"max_item_bytes": "64MB"}, False),
    ],
)
def test_a_longest_response_above_the_whole_cache_is_found(sizes, odd):
    settings = [("without-effect", "stages.default.cache.max_item_bytes")] if odd else []
    assert found(Gateway(cache=ResponseCache(**sizes))) == settings


def test_keys_for_what_nobody_shares_are_found(tmp_path):
    pytest.importorskip("cryptography")
    odd = [("without-effect", "stages.default.cache.encryption")]
    address = f"file://{tmp_path}/cache"
    assert found(Gateway(cache=ResponseCache(encryption=[KEY]))) == odd
    assert found(Gateway(cache=ResponseCache(encryption=[KEY], shared=False))) == odd
    assert found(Gateway(name="shop", cache=ResponseCache(encryption=[KEY], shared=address))) == []
    store = f"file://{tmp_path}/state"
    invalidations = Gateway(name="shop", store=store, workers=1, cors=None, cache=ResponseCache(encryption=[KEY]))
    assert found(invalidations) == odd


@pytest.mark.parametrize(
    ("per", "odd"),
    [("principal", True), ("claim:team", True), ("public", False), (None, False), (lambda request: "me", False)],
)
def test_responses_for_a_principal_that_nobody_verifies_are_found(per, odd):
    methods = {"GET /pets": Method(cache=CachePolicy(ttl=60, per=per))}
    assert found(Gateway(methods=methods)) == ([("nobody-verified", of("GET /pets"))] if odd else [])
    assert found(Gateway(methods=methods, policies=[Authorizer()])) == []
    assert found(Gateway(methods={"GET /pets": Method(cache=CachePolicy(ttl=0, per=per))})) == []


def test_a_decorator_per_principal_is_found_too():
    flask = pytest.importorskip("flask")
    from apigate.flask import Apigate

    gateway, app = Gateway(), flask.Flask("shop")
    Apigate(app, gateway)
    app.get("/pets")(gateway.cache(ttl=60, per="principal")(lambda: "three pets"))
    assert ("nobody-verified", of("GET /pets")) in found(gateway)


def test_a_stage_that_is_cached_as_usual_has_no_findings():
    stage = Stage("prod", cache=ResponseCache(max_bytes="64MB"), methods={"GET /pets": Method(cache={"ttl": 60})})
    assert Gateway(stages=[stage]).lint() == []
