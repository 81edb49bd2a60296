"""Whose is what was asked for with Authorization: each way to have it cached, and who must never get it.

The app answers with a number and the credential it was asked with, so that whoever gets another one's shows it.
"""

import logging
from itertools import count

import pytest

from apigate import CachePolicy, Gateway, ResponseCache, wsgi
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from tests.caching.asking import Reply, cached

TENANTS = {"alice": "red", "ann": "red", "bob": "blue"}
OWN = {"headers": ["Authorization"]}
UNVERIFIED = (
    'apigate; fwd=uri-miss; detail="the request has Authorization, which no gate has verified and the key does not '
    'name, and the response is not public, s-maxage or must-revalidate"'
)


def tenant_of(request):
    return request.headers.get("x-tenant")


class Tokens:
    """Verifies who has a token; whoever has none, or a wrong one, is let through as nobody."""

    phase = Phase.AUTHORIZE

    def __init__(self, tells="principal and claims"):
        self.tells = tells

    def on_request(self, context):
        name = (context.request.headers.get("authorization") or "").removeprefix("Bearer ")
        if name in TENANTS:
            context.principal = name if "principal" in self.tells else None
            context.claims = {"sub": name, "tenant": TENANTS[name]} if "claims" in self.tells else {}


def echo(*fields, status=200):
    """An app whose n-th answer is `n` and who asked."""
    numbers = count(1)
    return lambda seen: Reply(status, fields, (f"{next(numbers)} {seen.fields.get('authorization')}".encode(),))


def told(shop, *asked):
    """The numbers of the answers to requests with these credentials (None for no field), and with these tenants."""
    numbers = []
    for each in asked:
        credential, _, tenant = (each or "").partition("@")
        fields = {"authorization": credential} if credential else {}
        got = shop.ask(**fields, **({"x_tenant": tenant} if tenant else {}))
        numbers.append(int(got.body.split()[0]))
    return numbers


# ---- the table "For one user each", where a gate verifies


@pytest.mark.parametrize(
    ("per", "asked", "numbers"),
    [
        (None, ["Bearer alice", "Bearer alice", "Bearer ann", "Bearer bob", None, None], [1, 1, 2, 3, 4, 4]),
        ("public", ["Bearer alice", "Bearer alice", "Bearer ann", "Bearer bob", None, None], [1, 1, 1, 1, 1, 1]),
        ("principal", ["Bearer alice", "Bearer alice", "Bearer ann", "Bearer bob", None, None], [1, 1, 2, 3, 4, 5]),
        ("claim:tenant", ["Bearer alice", "Bearer alice", "Bearer ann", "Bearer bob", None, None], [1, 1, 1, 2, 3, 4]),
        ("claim:team", ["Bearer alice", "Bearer alice"], [1, 2]),  # which nobody has
        (
            tenant_of,
            ["Bearer alice@red", "Bearer ann@red", "Bearer bob@blue", "Bearer bob@red", "Bearer alice", "Bearer alice"],
            [1, 1, 2, 1, 3, 4],
        ),
    ],
)
def test_whoever_a_gate_has_verified_shares_as_the_policy_says(world, per, asked, numbers):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Tokens()])
    assert told(shop, *asked) == numbers


@pytest.mark.parametrize(
    ("per", "numbers"),
    [(None, [1, 2, 3]), ("principal", [1, 2, 3]), ("claim:tenant", [1, 1, 1]), ("public", [1, 1, 1])],
)
def test_claims_alone_verify_too_and_name_nobody(world, per, numbers):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Tokens("claims")])
    assert told(shop, "Bearer alice", "Bearer alice", "Bearer ann") == numbers


class Tenants:
    """Verifies of which tenant a request is, by no credential of HTTP, and names nobody."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        if tenant := tenant_of(context.request):
            context.claims = {"tenant": tenant}


@pytest.mark.parametrize(
    ("per", "numbers"), [(None, [1, 2, 3, 4, 4]), ("claim:tenant", [1, 1, 2, 3, 4]), ("public", [1, 1, 1, 1, 1])]
)
def test_what_was_answered_for_claims_without_a_principal_is_not_everybodys_unless_the_policy_says_so(
    world, per, numbers
):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Tenants()])
    assert told(shop, "@red", "@red", "@blue", None, None) == numbers


class ApiKeys:
    """Verifies a key of the client's, and names nobody."""

    phase = Phase.AUTHORIZE

    def on_request(self, context):
        context.api_key = tenant_of(context.request) or None


@pytest.mark.parametrize(
    ("per", "numbers"), [(None, [1, 2, 3, 4, 4]), ("public", [1, 1, 1, 1, 1]), (tenant_of, [1, 1, 2, 3, 4])]
)
def test_nor_is_what_was_answered_for_an_api_key(world, per, numbers):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[ApiKeys()])
    assert told(shop, "@red", "@red", "@blue", None, None) == numbers


@pytest.mark.parametrize("per", ["public", tenant_of])
def test_a_principal_alone_is_enough(world, per):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Tokens("principal")])
    assert told(shop, "Bearer alice@red", "Bearer ann@red") == [1, 1]


@pytest.mark.parametrize("per", [None, "public", tenant_of, "principal", "claim:tenant"])
@pytest.mark.parametrize("wrong", ["Bearer mallory", "Bearer alice2", "bearer alice", "Bearer  alice", "x", ""])
def test_who_was_let_through_with_a_wrong_token_shares_nothing(world, per, wrong):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Tokens()])
    for credential in (wrong, "Bearer alice", wrong, "Bearer alice"):
        for verb in ("HEAD", "GET"):
            got = shop.ask(method=verb, authorization=credential, x_tenant="red")
            assert verb == "HEAD" or got.body.partition(b" ")[2] == credential.encode()
            assert credential != wrong or not (got.hit or got.stored)
    assert shop.ask(authorization="Bearer alice", x_tenant="red").hit


def test_who_was_let_through_without_a_token_gets_what_the_policy_calls_public(world):
    shop = world(echo(), CachePolicy(ttl=60, per="public"), policies=[Tokens()])
    assert told(shop, None, "Bearer alice", "Bearer mallory", None) == [1, 1, 2, 1]


def test_what_is_not_for_a_credential_that_the_app_has_to_check_is_said_to_be_a_request(world):
    shop = world(echo(), CachePolicy(ttl=60, per="public"), policies=[Tokens()])
    told(shop, "Bearer alice")
    assert shop.ask(authorization="Bearer mallory").one("cache-status") == "apigate; fwd=request"


# ---- where no gate verifies


@pytest.mark.parametrize(
    "policy",
    [
        CachePolicy(ttl=60),
        CachePolicy(ttl=60, per="public"),
        CachePolicy(ttl=60, per=tenant_of),
        CachePolicy(ttl=60, per=lambda request: request.headers.get("authorization")),
        CachePolicy(ttl=60, vary=["Authorization"]),
        CachePolicy(ttl=60, key={"headers": ["X-Tenant"]}),
    ],
)
def test_without_a_gate_that_verifies_nothing_is_kept_of_a_credential_whatever_per_says(world, policy):
    shop = world(echo(), policy, cache={"is_detailed": True})
    for credential in ("Bearer alice", "Bearer alice", "Bearer mallory"):
        assert shop.ask(authorization=credential, x_tenant="red").one("cache-status") == UNVERIFIED
    assert shop.calls == 3


def test_a_function_proves_nothing_the_right_tenant_with_a_wrong_token_reaches_the_app(world):
    shop = world(echo(), CachePolicy(ttl=60, per=tenant_of))
    assert told(shop, "Bearer alice@red", "@red", "Bearer mallory@red", "@red") == [1, 2, 3, 2]


@pytest.mark.parametrize("per", ["principal", "claim:tenant"])
def test_without_a_gate_that_verifies_nobody_can_tell_a_principal(world, per):
    shop = world(echo(), CachePolicy(ttl=60, per=per))
    assert told(shop, "Bearer alice", "Bearer alice", None, None) == [1, 2, 3, 4]


@pytest.mark.parametrize("said", ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"])
@pytest.mark.parametrize("per", [None, "public", tenant_of])
def test_the_app_may_still_let_everybody_have_it(world, per, said):
    shop = world(echo(("Cache-Control", said)), CachePolicy(per=per))
    assert told(shop, "Bearer alice@red", "Bearer bob@red", "@red") == [1, 1, 1]


def test_a_copy_without_authorization_is_not_given_to_a_request_with_it_and_that_is_no_matter_of_vary(world):
    shop = world(echo(), CachePolicy(ttl=60), cache={"is_detailed": True})
    assert told(shop, None, None) == [1, 1]
    assert shop.ask(authorization="Bearer alice").one("cache-status") == UNVERIFIED.replace("uri-miss", "request")
    shop.respond = lambda seen: Reply(200, [("Cache-Control", "public")], (b"3 anybody",))
    assert shop.ask(authorization="Bearer alice").one("cache-status") == "apigate; fwd=request; stored"
    assert told(shop, "Bearer bob", None) == [3, 3]


def test_a_variant_for_other_fields_is_still_a_matter_of_vary(world):
    shop = world(echo(("Vary", "Accept")), CachePolicy(ttl=60, key=OWN))
    shop.ask(authorization="Bearer alice", accept="a")
    assert "fwd=vary-miss" in shop.ask(authorization="Bearer alice", accept="b").one("cache-status")
    assert "fwd=uri-miss" in shop.ask(authorization="Bearer bob", accept="a").one("cache-status")


# ---- Authorization in the key


@pytest.mark.parametrize("per", [None, "public", tenant_of])
@pytest.mark.parametrize("policies", [[], [Tokens()]])
def test_a_credential_in_the_key_has_copies_of_its_own(world, per, policies):
    shop = world(echo(), CachePolicy(ttl=60, per=per, key=OWN), policies=policies)
    asked = ["Bearer alice@red", "Bearer ann@red", "Bearer mallory@red", "@red"]
    assert told(shop, *asked, *asked) == [1, 2, 3, 4, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "other",
    [
        [],
        [("authorization", "")],
        [("authorization", "bearer alice")],
        [("authorization", "Bearer ALICE")],
        [("authorization", "Bearer alice ")],
        [("authorization", "Bearer alic")],
        [("authorization", "Bearer alice,")],
        [("authorization", "Bearer alice"), ("authorization", "Bearer alice")],
        [("authorization", "Bearer alice"), ("authorization", "")],
        [("x-authorization", "Bearer alice")],
        [("proxy-authorization", "Bearer alice")],
        [("x-tenant", "authorization=Bearer alice")],
        [("cookie", "authorization=Bearer alice")],
    ],
)
def test_no_other_request_gets_the_copy_of_a_credential(world, other):
    policy = CachePolicy(
        ttl=60, key={"headers": ["Authorization", "X-Tenant"]}, cookies=["a"], normalize=["Authorization"]
    )
    shop = world(echo(), policy)
    assert told(shop, "Bearer alice", "Bearer alice") == [1, 1]
    for verb in ("HEAD", "GET"):
        assert not shop.ask(method=verb, fields=other).hit
    assert told(shop, "Bearer alice") == [1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Bearer a", "b"), ("Bearer", "a b")),
        (("a", "x"), ("a,x", "")),
        (("a\x00x-tenant=b", ""), ("a", "b")),
        (("a', 'x-tenant=b", "c"), ("a", "b', 'x-tenant=c")),
    ],
)
def test_parts_of_the_key_do_not_run_into_each_other(world, one, other):
    shop = world(echo(), CachePolicy(ttl=60, key={"headers": ["Authorization", "X-Tenant"]}))
    for credential, tenant in (one, other):
        assert not shop.ask(authorization=credential, x_tenant=tenant).hit
    assert [shop.ask(authorization=credential, x_tenant=tenant).hit for credential, tenant in (one, other)] == [
        True
    ] * 2


def test_head_and_content_go_by_the_credential_too(world):
    shop = world(echo(), CachePolicy(ttl=60, key=OWN))
    told(shop, "Bearer alice")
    assert shop.ask(method="HEAD", authorization="Bearer alice").hit
    assert not shop.ask(method="HEAD", authorization="Bearer bob").hit
    assert not shop.ask(method="HEAD").hit
    for credential, hit in (("alice", False), ("bob", False), ("alice", True), ("bob", True)):
        assert shop.ask("/found", "QUERY", b"cats", authorization=f"Bearer {credential}").hit is hit
    assert not shop.ask("/found", "QUERY", b"cats").hit


# ---- private


@pytest.mark.parametrize("per", [None, "principal"])
def test_private_stays_with_its_principal(world, per):
    shop = world(echo(("Cache-Control", "private, max-age=60")), CachePolicy(per=per), policies=[Tokens()])
    asked = ["Bearer alice", "Bearer alice", "Bearer ann", "Bearer mallory", None, None, "Bearer alice"]
    assert told(shop, *asked) == [1, 1, 2, 3, 4, 5, 1]


@pytest.mark.parametrize(
    "policy",
    [
        CachePolicy(ttl=60, per="public"),
        CachePolicy(ttl=60, per="claim:tenant"),
        CachePolicy(ttl=60, per=tenant_of),
        CachePolicy(ttl=60, per="public", key=OWN),
        CachePolicy(ttl=60, per=tenant_of, key=OWN),
    ],
)
def test_private_is_kept_for_nobody_but_a_principal(world, policy):
    shop = world(echo(("Cache-Control", "private")), policy, policies=[Tokens()])
    assert told(shop, "Bearer alice@red", "Bearer alice@red", "Bearer ann@red", "@red") == [1, 2, 3, 4]


def test_private_is_not_kept_for_a_credential_that_nobody_has_verified(world):
    shop = world(echo(("Cache-Control", "private")), CachePolicy(ttl=60, key=OWN))
    assert told(shop, "Bearer alice", "Bearer alice") == [1, 2]


# ---- stale, refreshed, invalidated


@pytest.mark.parametrize("policies", [[], [Tokens()]])
def test_where_the_app_fails_only_the_same_credential_gets_what_is_stale(world, policies):
    key = {} if policies else OWN
    shop = world(echo(), CachePolicy(ttl=60, stale_if_error=600, key=key), policies=policies)
    told(shop, "Bearer alice", "Bearer bob")
    shop.clock.advance(70)
    shop.respond = lambda seen: Reply(503, (), (b"0 out of order",))
    assert told(shop, "Bearer alice", "Bearer bob", "Bearer ann", "Bearer mallory", None) == [1, 2, 0, 0, 0]


def test_where_the_app_fails_a_wrong_token_does_not_get_what_is_stale_and_public(world):
    policy = CachePolicy(ttl=60, stale_if_error=600, stale_while_revalidate=100, per="public")
    shop = world(echo(), policy, policies=[Tokens()])
    told(shop, "Bearer alice")
    for seconds in (70, 100):
        shop.clock.advance(seconds)
        shop.respond = lambda seen: Reply(503, (), (b"0 out of order",))
        assert told(shop, "Bearer mallory", "Bearer bob", None, "Bearer mallory") == [0, 1, 1, 0]


def test_a_wrong_token_is_not_asked_about_by_the_validator_of_what_others_have(world):
    shop = world(echo(("ETag", '"a"')), CachePolicy(ttl=60, per="public"), policies=[Tokens()])
    told(shop, "Bearer alice")
    shop.clock.advance(70)
    told(shop, "Bearer mallory")
    assert "if-none-match" not in shop.seen[-1].fields


def test_a_refresh_asks_with_the_credential_whose_copy_it_is(world):
    shop = world(echo(), CachePolicy(ttl=60, stale_while_revalidate=30, key=OWN))
    told(shop, "Bearer alice", "Bearer bob")
    shop.clock.advance(70)
    assert told(shop, "Bearer bob") == [2]
    assert shop.seen[-1].fields["authorization"] == "Bearer bob"
    assert told(shop, "Bearer bob", "Bearer alice") == [3, 1]


def test_an_unsafe_request_forgets_the_copies_of_all(world):
    shop = world(echo(), CachePolicy(ttl=60, key=OWN))
    assert told(shop, "Bearer alice", "Bearer bob") == [1, 2]
    shop.ask(method="PUT", authorization="Bearer alice")
    assert told(shop, "Bearer alice", "Bearer bob") == [4, 5]


@pytest.mark.parametrize("per", ["principal", "claim:tenant", tenant_of])
def test_an_unsafe_request_of_whom_nobody_can_tell_forgets_them_too(world, per):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Tokens()])
    assert told(shop, "Bearer alice@red", "Bearer alice@red") == [1, 1]
    shop.ask(method="DELETE")
    assert told(shop, "Bearer alice@red") == [3]


def test_a_client_that_may_invalidate_forgets_the_copy_of_its_own_credential(world):
    shop = world(echo(), CachePolicy(ttl=60, key=OWN, invalidate=lambda request: True))
    assert told(shop, "Bearer alice", "Bearer bob") == [1, 2]
    assert shop.ask(authorization="Bearer bob", cache_control="no-cache").body == b"3 Bearer bob"
    assert told(shop, "Bearer alice", "Bearer bob") == [1, 3]


# ---- what workers share, and what is shown


@pytest.mark.parametrize("policies", [[], [Tokens()]])
def test_workers_share_by_the_same_rule_and_the_credential_lies_nowhere(world, tmp_path, policies, caplog):
    caplog.set_level(logging.DEBUG)
    policy = CachePolicy(ttl=60, key={} if policies else OWN)
    settings = {"cache": {"shared": f"file://{tmp_path}/cache", "is_detailed": True}, "policies": policies}
    shops = [world(echo(), policy, **settings) for _ in range(2)]
    shown = [*shops[0].ask(authorization="Bearer alice").lines]
    assert shops[1].ask(authorization="Bearer alice").hit
    for other in (["Bearer bob"], ["Bearer mallory"], [None]):
        told(shops[0], *other)
        assert shops[1].seen == []
        got = shops[1].ask(**({"authorization": other[0]} if other[0] else {}))
        assert b"alice" not in got.body
        shown += got.lines
        shops[1].seen.clear()
    for headers in ({"Authorization": "Bearer alice"}, {"Authorization": "Bearer carol"}):
        shown += [str(shops[0].gateway.explain("GET", "http://shop.example/", headers))]
    assert "alice" not in f"{shown} {caplog.text}"
    for path in tmp_path.iterdir():
        assert b"authorization=" not in path.read_bytes().lower()


def test_a_credential_in_the_key_is_not_in_the_file_that_workers_share(world, tmp_path):
    shop = world(
        lambda seen: Reply(200, cached(), (b"pets",)),
        CachePolicy(key=OWN),
        cache={"shared": f"file://{tmp_path}/cache"},
    )
    assert [shop.ask(authorization="Bearer secret").hit for _ in range(2)] == [False, True]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"pets" in kept
    assert b"secret" not in kept


def test_explain_says_that_what_is_stored_is_not_for_a_request_with_authorization(world):
    shop = world(echo(), CachePolicy(ttl=60))
    told(shop, None)
    notes = shop.gateway.explain("GET", "http://shop.example/", {"Authorization": "Bearer alice"}).notes
    assert notes[0] == "cache: what is stored is not for a request with Authorization, so the app is asked"


def test_explain_knows_a_principal_for_verified_and_a_credential_in_the_key(world):
    for policy, principal in ((CachePolicy(ttl=60), "alice"), (CachePolicy(ttl=60, key=OWN), None)):
        shop = world(echo(), policy, policies=[Tokens()] if principal else [])
        told(shop, "Bearer alice")
        sent = {"Authorization": "Bearer alice"}
        notes = shop.gateway.explain("GET", "http://shop.example/", sent, principal=principal).notes
        assert "it is served" in " ".join(notes)


# ---- more than one line, or none


def test_of_two_lines_a_gate_may_have_verified_one_and_the_app_may_read_the_other(world):
    shop = world(echo(), CachePolicy(ttl=60, per="claim:tenant"), policies=[Tokens()])
    shop.ask(fields=[("authorization", "Bearer ann"), ("authorization", "Bearer mallory")])
    assert shop.ask(authorization="Bearer alice").body.endswith(b" Bearer alice")
    assert shop.ask(authorization="Bearer ann").hit


def test_a_key_that_names_the_field_is_no_key_where_the_server_keeps_the_field_to_itself():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ.get("REMOTE_USER", "nobody").encode()]

    policy = CachePolicy(ttl=60, key={"headers": ["Authorization"]})
    wrapped = wsgi.GatewayMiddleware(app, Gateway(cache=ResponseCache(policy=policy), clock=FakeClock()))

    def ask(**more):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/me", "HTTP_HOST": "shop", "wsgi.url_scheme": "http", **more}
        return b"".join(wrapped(environ, lambda *_: None))

    assert [ask(REMOTE_USER=name) for name in ("alice", "bob", "alice")] == [b"alice", b"bob", b"alice"]
    assert ask() == b"nobody"


# ---- slowly


def test_who_is_verified_slowly_gets_nothing_that_has_become_stale_meanwhile(world):
    class Slow(Tokens):
        def on_request(self, context):
            super().on_request(context)
            if "x-slow" in context.request.headers:
                shop.clock.advance(100)

    shop = world(echo(), CachePolicy(ttl=60), policies=[Slow()])
    shop.ask(authorization="Bearer alice")
    assert shop.ask(authorization="Bearer alice").hit
    assert not shop.ask(authorization="Bearer alice", x_slow="yes").hit


class Objects:
    """Sets what is no text, as rows of a database are."""

    phase = Phase.AUTHORIZE

    def __init__(self, tells):
        self.tells = tells

    def on_request(self, context):
        setattr(context, self.tells, object() if self.tells == "principal" else {"tenant": object()})


@pytest.mark.parametrize(
    ("tells", "per"), [("principal", None), ("principal", "principal"), ("claims", "claim:tenant")]
)
def test_an_object_names_nobody_as_its_address_in_memory_is_used_again(world, tells, per):
    shop = world(echo(), CachePolicy(ttl=60, per=per), policies=[Objects(tells)])
    assert told(shop, None, None) == [1, 2]
    assert shop.cache.stats()["entries"] == 0
