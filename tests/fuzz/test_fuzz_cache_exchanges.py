"""A hundred thousand mutated requests and responses through a gateway with a cache, by ASGI and WSGI.

No exception reaches the server, and nobody gets what was made for another principal, another host, another path or
another query; nor another's cookie. Every answer of the app says for whom it was made, so a leak shows in itself.

Everything is drawn from one seed, which a failure prints; run it again with `APIGATE_FUZZ_SEED=<seed>`.
"""

import itertools
import os
import random

import pytest

from apigate import CachePolicy, Method
from tests.caching.asking import KINDS, Principal, Reply, World

SEED = int(os.environ.get("APIGATE_FUZZ_SEED", "20261127"))
EXCHANGES = 50_000  # of each kind

CONTROLS = [
    "max-age=60",
    "max-age=1",
    "s-maxage=60",
    "public, max-age=60",
    "private, max-age=60",
    "private",
    "no-store",
    "no-cache",
    "max-age=60, must-revalidate",
    "max-age=5, stale-while-revalidate=60, stale-if-error=60",
    'max-age=60, private="x-user", no-cache="x-secret"',
    "must-understand, no-store, max-age=60",
    "immutable, max-age=60",
    "max-age=60, PUBLIC, Private",
    "",
]
FRESH = [
    "max-age=60",
    "public, max-age=60",
    "private, max-age=60",
    "max-age=60, must-revalidate",
    "max-age=5, s-maxage=20",
]
VALUES = {
    "Cache-Control": CONTROLS,
    "CDN-Cache-Control": [*CONTROLS, "max-age=60;x", "?0"],
    "Vary": ["Accept", "accept-language, X-Odd", "*", "Accept, *", "Cookie", "Authorization", "", "Origin"],
    "ETag": ['"a"', 'W/"a"', "a", '""', "*"],
    "Last-Modified": ["Wed, 31 Dec 2025 00:00:00 GMT", "Wednesday, 31-Dec-25 00:00:00 GMT", "x"],
    "Expires": ["Fri, 31 Dec 9999 23:59:59 GMT", "0", "Thu, 01 Jan 2026 01:00:00 GMT"],
    "Date": ["Thu, 01 Jan 2026 00:00:00 GMT", "x", "Fri, 31 Dec 9999 23:59:59 GMT"],
    "Age": ["0", "59", "-1", "99999999999", "x"],
    "Set-Cookie": ["session=secret", "theme=dark", ""],
    "Connection": ["close", "cache-control", "vary, x-user", "keep-alive"],
    "Content-Length": ["0", "4", "9999", "x", "-1"],
    "Content-Range": ["bytes 0-0/9", "x"],
    "Content-Type": ["text/plain", "text/event-stream", "x" * 300],
    "Content-Encoding": ["gzip", "x"],
    "No-Vary-Search": ["key-order", 'params=("utm")', "params", 'params, except=("a")', "params=x"],
    "Cache-Groups": ['"a"', "a", '"a";b, "c"'],
    "Cache-Group-Invalidation": ['"a"', "a"],
    "Location": ["/a", "//h2/a", "http://[", "http://h1/a", "\x00"],
    "Access-Control-Allow-Origin": ["*", "https://a.example", "null"],
    "Retry-After": ["1"],
    "RateLimit": ['"x";r=1;t=1'],
    "Trailer": ["x"],
    "Transfer-Encoding": ["chunked"],
}
ASKED = {
    "cache-control": [
        "no-cache",
        "no-store",
        "max-age=0",
        "max-stale",
        "min-fresh=5",
        "only-if-cached",
        "max-age=x",
        "stale-if-error=9",
    ],
    "pragma": ["no-cache", "x"],
    "range": ["bytes=0-0", "bytes=0-0,2-3", "bytes=-1", "bytes=99-", "bytes=a", "lines=1"],
    "if-range": ['"a"', 'W/"a"', "x"],
    "if-none-match": ['"a"', "*", 'W/"a", "b"', "a"],
    "if-modified-since": ["Wed, 31 Dec 2025 00:00:00 GMT", "x"],
    "if-match": ['"a"', "*"],
    "cookie": ["session=alice", "theme=dark", "theme =x", 'a="; theme=dark; "', "theme"],
    "accept": ["a", "b", "", "a, b", "A"],
    "accept-language": ["en", "de,en", ",,", "EN"],
    "x-odd": ["", "x", "\xff", "\x00"],
    "x-forwarded-host": ["evil.example"],
    "x-forwarded-proto": ["https"],
    "forwarded": ["host=evil;for=1", "for=2"],
    "x-http-method-override": ["DELETE"],
    "origin": ["https://a.example", "https://b.example", "null"],
    "upgrade": ["websocket", "h2c"],
    "x-claims": ["team=a", "team=b"],
}
BITS = [
    "",
    ",",
    '"',
    "\\",
    "=",
    ";",
    " ",
    "\t",
    "\x00",
    "\x7f",
    "\xe9",
    "\xff",
    "9" * 30,
    "*",
    "a" * 200,
    ", no-store",
    "%",
    "W/",
]
HOSTS = ["h1"] * 8 + ["h2", "h2", "H1", "", "h1\x00"]
PATHS = ["/a"] * 20 + [
    "/a",
    "/a/",
    "/A",
    "/a%2Fb",
    "/a/b",
    "//a",
    "/%E9",
    "/%C3%A9",
    "/a/../b",
    "/a;x",
    "/a%00",
    "/a.css",
]
QUERIES = [""] * 10 + ["?", "?a=1", "?a=2", "?a=1&utm=1", "?utm=2&a=1", "?a=1;b=2", "?%61=1", "?a=1&a=2", "?\xff"]
METHODS = ["GET"] * 40 + ["HEAD", "HEAD", "POST", "QUERY", "PUT", "OPTIONS", "get"]
PRINCIPALS = [None, None, "alice", "bob"]
POLICIES = [
    CachePolicy(),
    CachePolicy(ttl=30),
    CachePolicy(per="principal"),
    CachePolicy(ttl=30, cookies=["theme"], vary=["Accept"], jitter=0.5),
    CachePolicy(ttl=30, per="claim:team", cookies="ignore"),
    CachePolicy(
        ttl=10, methods=["GET", "POST"], statuses=[200, 404, 500], stale_if_error=30, stale_while_revalidate=30
    ),
    CachePolicy(heuristic=True, invalidate=lambda request: True),
    CachePolicy(
        ttl=30,
        invalidate=lambda request: False,
        unauthorized="FAIL_WITH_403",
        key={"query": "sorted", "headers": ["accept"]},
    ),
    CachePolicy(ttl=30, per="public", stale_while_revalidate=30, stale_if_error=30),
    CachePolicy(ttl=30, per=lambda request: request.headers.get("accept"), cookies="ignore"),
    CachePolicy(ttl=30, key={"headers": ["authorization"]}, stale_while_revalidate=30, stale_if_error=30),
]
STATUSES = [200] * 30 + [204, 206, 301, 304, 404, 429, 500, 503]


def mutated(dice, values):
    value = dice.choice(values)
    if dice.random() < 0.25:
        at = dice.randint(0, len(value))
        value = value[:at] + dice.choice(BITS) + value[at + dice.randint(0, 2) :]
    return value


def lines(dice, table, most):
    return [(name, mutated(dice, table[name])) for name in dice.choices(list(table), k=dice.randint(0, most))]


class Watched(Principal):
    """Notes whom it has verified in the last request, and what it knows of it."""

    def on_request(self, context):
        super().on_request(context)
        self.verified = context.principal is not None or bool(context.claims)
        self.claims = dict(context.claims)


class Shop:
    """An app that draws what it answers and says for whom; and what may be given to others."""

    def __init__(self, kind, policy, dice):
        self.dice = dice
        self.serial = itertools.count()
        self.made = {}  # by serial: for whom, at which host and target, and what it said
        self.gate = Watched()
        self.world = World(
            kind, self.answer, methods={"*": Method(cache=policy)}, policies=[self.gate], cache={"max_bytes": 300_000}
        )
        self.policy = policy

    def answer(self, seen):
        dice = self.dice
        fields = lines(dice, VALUES, dice.choice([0, 1, 2, 5]))
        if dice.random() < 0.7:
            fields.insert(0, ("Cache-Control", dice.choice(FRESH)))
        status = dice.choice(STATUSES)
        serial = str(next(self.serial))
        body = f"<{serial}>".encode()
        if status == 304:  # it speaks of what somebody else was sent, so it neither marks that nor opens it to others
            return Reply(304, [(name, value) for name, value in fields if not name.endswith("Cache-Control")], ())
        fields.append(("X-Serial", serial))
        names = {name.lower() for name, _ in fields}
        said = ", ".join(value for name, value in fields if name.endswith("Cache-Control")).lower()
        self.made[serial] = (
            seen.fields.get("authorization"),
            seen.fields.get("host"),
            (seen.path, seen.query),
            "no-vary-search" in names,
            "set-cookie" in names,
            said,
            "cdn-cache-control" not in names and "private" in [word.strip() for word in said.split(",")],
            (self.gate.verified, self.gate.claims, seen.fields.get("accept")),
        )
        if status == 204:
            return Reply(status, fields, ())
        if dice.random() < 0.02:
            return Reply(status, fields, (body,), ValueError("broken"))
        return Reply(status, fields, dice.choice([(body,), (body[:1], body[1:]), (body, b"")]))

    def serve(self, exchanges):
        """So many requests; how many were hits."""
        for number in range(exchanges):
            try:
                self.ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                pytest.fail(f"exchange {number} of {self.policy}, seed {SEED}: {error!r}")
            if number % 50 == 0:
                self.world.clock.advance(self.dice.choice([0, 1, 7, 40]))
                assert self.world.cache.stats()["bytes"] <= 300_000
        stages = self.world.gateway.stats().values()
        return sum(counts.get("cache:hit", 0) for stage in stages for counts in stage.values())

    def ask(self):
        dice = self.dice
        fields = lines(dice, ASKED, dice.choice([0, 0, 0, 1, 1, 3]))
        host = dice.choice(HOSTS)
        fields.insert(0, ("host", host))
        who = dice.choice(PRINCIPALS)
        if who is not None:
            fields.append(("authorization", f"Bearer {who}"))
        elif dice.random() < 0.1:
            fields.append(("authorization", dice.choice(["Basic YTpi", "Basic Yjpj", ""])))
        method = dice.choice(METHODS)
        path, query = dice.choice(PATHS), dice.choice(QUERIES)
        body = dice.choice([b"", b"x", b"y"]) if method in {"POST", "QUERY"} else b""
        before = self.world.calls
        try:
            got = self.world.ask(path + query, method, body, fields)
        except ValueError as error:
            if str(error) != "broken":
                raise
            return
        served = self.world.calls == before or got.hit
        if served and got.status not in {400, 403, 504}:
            self.check(got, dict(fields), host, path + query)

    def check(self, got, sent, host, target):
        """What was served from the cache was made for this host, path and query, and may be given to who asks."""
        serial = got.all("x-serial")
        assert len(serial) <= 1 or got.status in {206, 416}
        if not serial or not got.hit:
            return
        authorization = sent.get("authorization")
        maker, made_host, (_, made_query), merges, sets_cookie, said, private, made_for = self.made[serial[0]]
        if private:
            assert maker == authorization
            assert maker.startswith("Bearer ")
        assert made_host.lower() == host.lower()
        assert self.is_for(authorization, sent.get("accept"), maker, made_for, said), (maker, authorization, said)
        query = target.partition("?")[2]
        if not merges and self.policy.key.query == "kept":
            assert made_query == query
        if sets_cookie:
            assert got.all("set-cookie") == []

    def is_for(self, authorization, accept, maker, made_for, said):
        """Whether it may be given to this credential: its own, or as the policy and the gate say."""
        per, (made_verified, made_claims, made_accept) = self.policy.per, made_for
        if maker == authorization:
            return True
        if self.policy.key.headers == ("authorization",):
            return False
        both_verified = (maker is None or made_verified) and (authorization is None or self.gate.verified)
        if per == "claim:team":
            return made_claims.get("team") == self.gate.claims.get("team") is not None
        if callable(per):
            return accept == made_accept and (both_verified or may_be_shared(said))
        return (per == "public" and both_verified) or (per in (None, "public") and may_be_shared(said))


def may_be_shared(said):
    return any(word in said for word in ("public", "s-maxage", "must-revalidate"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_exchange_is_an_error_or_a_leak(kind):
    dice = random.Random(f"{SEED} {kind}")
    hits = 0
    for policy in POLICIES:
        shop = Shop(kind, policy, dice)
        try:
            hits += shop.serve(EXCHANGES // len(POLICIES))
        finally:
            shop.world.close()
    assert hits > EXCHANGES // 20
