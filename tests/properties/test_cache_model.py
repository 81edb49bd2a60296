"""A plain model of RFC 9111 beside the gateway, over random traces of requests, answers and time, by ASGI and WSGI."""

from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import event, given, note, settings
from hypothesis import strategies as st

from apigate import CachePolicy
from tests.properties.cache_model import Model, Outcome, Visit
from tests.properties.cache_traces import AsgiWorld, Script, WsgiWorld
from tests.strategies import UNHURRIED

SECOND = 1_000_000  # microseconds; fractions of it are exact

ALICE, BOB = "Basic YTpi", "Basic Yjpj"

PROFILES = {
    "honour": (CachePolicy(), Model()),
    "honour, stale allowed": (
        CachePolicy(stale_while_revalidate=20, stale_if_error=40),
        Model(refresh_window=20, error_window=40),
    ),
    "ttl": (CachePolicy(ttl=60), Model(ttl=60)),
    "ttl, stale allowed": (
        CachePolicy(ttl=10, stale_while_revalidate=20, stale_if_error=40),
        Model(ttl=10, refresh_window=20, error_window=40),
    ),
    "a copy for each credential": (
        CachePolicy(ttl=10, stale_while_revalidate=20, stale_if_error=40, key={"headers": ["Authorization"]}),
        Model(ttl=10, refresh_window=20, error_window=40, owns="credential"),
    ),
    "verified, for everybody": (
        CachePolicy(ttl=10, stale_while_revalidate=20, stale_if_error=40, per="public"),
        Model(ttl=10, refresh_window=20, error_window=40, known=frozenset({ALICE})),
    ),
    "verified, for each principal": (
        CachePolicy(stale_while_revalidate=20, stale_if_error=40, per="principal"),
        Model(refresh_window=20, error_window=40, known=frozenset({ALICE, BOB}), owns="principal"),
    ),
}

directives = st.lists(
    st.sampled_from(
        [
            "max-age=10",
            "max-age=60",
            "max-age=0",
            "max-age=x",
            "s-maxage=20",
            "no-cache",
            "no-store",
            "private",
            "public",
            "must-revalidate",
            "proxy-revalidate",
            "must-understand",
            "stale-while-revalidate=30",
            "stale-if-error=30",
            'no-cache="x-made"',
            'private="x-made"',
        ]
    ),
    max_size=3,
    unique=True,
).map(", ".join)
lifetimes = st.sampled_from(["max-age=10", "max-age=60", "max-age=20, stale-while-revalidate=30", "s-maxage=20"])

scripts = st.builds(
    Script,
    status=st.sampled_from([200] * 12 + [204, 301, 404, 500, 503]),
    cache_control=lifetimes | lifetimes | directives,
    targeted=st.sampled_from([""] * 8 + ["max-age=30", "no-store"]),
    vary=st.sampled_from([""] * 4 + ["X-Side", "X-Side, X-Other", "*"]),
    etag=st.sampled_from(["", '"a"', '"a"', 'W/"a"', '"b"']),
    modified=st.sampled_from([None, None, -1_000, -1_200]),
    expires=st.sampled_from([None] * 5 + [30, 90, -30, -1_000]),
    date=st.sampled_from([None] * 5 + [0, -5, -40, 7]),
    age=st.sampled_from([None] * 5 + [0, 5, 30]),
    cookie=st.sampled_from([False] * 9 + [True]),
    location=st.sampled_from([""] * 4 + ["/b"]),
    broken=st.sampled_from([""] * 15 + ["first", "within", "short"]),
    delay=st.sampled_from([0, 0, 0, 2.5]),
    listed=st.booleans(),
)

VALUES = {
    "cache-control": [
        "no-cache",
        "no-store",
        "max-age=0",
        "max-age=5",
        "max-age=15, max-stale=10",
        "max-stale",
        "max-stale=3",
        "min-fresh=5",
        "min-fresh=30",
        "only-if-cached",
        "stale-if-error=100",
    ],
    "pragma": ["no-cache"],
    "authorization": [ALICE, ALICE, BOB],
    "cookie": ["a=b"],
    "x-side": ["l", "r", ""],
    "x-other": ["1"],
    "if-none-match": ['"a"', 'W/"a"', '"b", "c"', "*"],
    "if-modified-since": ["Thu, 01 Jan 2026 00:00:00 GMT", "Wed, 31 Dec 2025 23:30:00 GMT", "yesterday"],
    "if-match": ['"a"'],
    "range": ["bytes=0-1", "bytes=4-", "bytes=-2", "bytes=90-"],
    "if-range": ['"a"', 'W/"a"'],
}
OFTEN = ["authorization"] * 4 + ["x-side"] * 6 + ["cache-control"] * 6 + ["if-none-match"] * 2

fields = st.lists(
    st.sampled_from(OFTEN + list(VALUES)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(VALUES[name]))),
    max_size=2,
    unique_by=lambda pair: pair[0],
).map(tuple)
visits = st.builds(
    Visit,
    method=st.sampled_from(["GET"] * 8 + ["HEAD", "POST"]),
    path=st.sampled_from(["/a", "/a", "/b"]),
    query=st.sampled_from(["", "", "q=1"]),
    fields=st.just(()) | fields,
)
waits = st.sampled_from([0, 0, 0.4, 1, 4.6, 5, 10, 11, 25, 60, 4_000])
steps = st.one_of(
    st.tuples(st.just("visit"), visits, scripts),
    st.tuples(st.just("visit"), visits, scripts),
    st.tuples(st.just("wait"), waits),
    st.tuples(st.just("again"), waits, st.none() | fields),
    st.tuples(st.just("again"), waits, st.none() | fields),
    st.tuples(st.just("flush")),
    st.tuples(st.just("invalidate"), st.sampled_from(["/a", "/b"])),
)


def numbered(trace):
    """The steps, each visit with a script of its own; "again" is the last visit, later, perhaps otherwise."""
    last = None
    for number, step in enumerate(trace):
        match step:
            case ("visit", visit, script):
                last = visit, script
            case ("again", wait, asked) if last:
                yield "wait", wait
                visit, script = last
                visit = visit if asked is None else replace(visit, fields=asked)
            case ("again", *_):
                continue
            case _:
                yield step
                continue
        yield "visit", visit, replace(script, number=number)


@pytest.mark.parametrize("profile", PROFILES)
@given(trace=st.lists(steps, min_size=12, max_size=30))
@settings(UNHURRIED, max_examples=300)
def test_every_trace_is_answered_as_the_model_has_it_by_both_protocols(profile, trace):
    policy, model = PROFILES[profile]
    states = [model]
    with ExitStack() as stack:
        worlds = [stack.enter_context(closing(world(policy, known=model.known))) for world in (AsgiWorld, WsgiWorld)]
        clock = worlds[0].clock
        for step in numbered(trace):
            note(repr(step))
            match step:
                case ("visit", visit, script):
                    now, wall = Fraction(clock.now_us(), SECOND), Fraction(round(clock.wall() * SECOND), SECOND)
                    found, other = (world.visit(visit, script) for world in worlds)
                    assert found == other, "ASGI and WSGI"
                    event(f"{found.origin} {found.status}")
                    states = followed(states, found, visit, script, now, wall)
                case ("wait", seconds):
                    for world in worlds:
                        world.clock.advance(seconds)
                case ("flush",):
                    for world in worlds:
                        world.cache.flush()
                    for state in states:
                        state.kept = []
                case ("invalidate", path):
                    for world in worlds:
                        world.cache.invalidate(path=path)
                    for state in states:
                        state.kept = [stored for stored in state.kept if stored.path != path]
        assert worlds[0].cache.stats() == worlds[1].cache.stats()


def test_clients_stretch_the_lifetimes_of_apps_but_not_a_ttl():
    visit = Visit("GET", "/a", "", (("cache-control", "stale-if-error=1000"),))
    for policy, origin in ((CachePolicy(), "store"), (CachePolicy(ttl=10), "app")):
        world = WsgiWorld(policy)
        world.visit(visit, Script(cache_control="max-age=10"))
        world.clock.advance(20)
        assert world.visit(visit, Script(status=503)).origin == origin


def followed(
    states: list[Model], found: Outcome, visit: Visit, script: Script, now: Fraction, wall: Fraction
) -> list[Model]:
    """The states in which the cache may be after what was found; what need not be forgotten yet is forgotten later."""
    right: list[tuple[Outcome, int, Model]] = []
    for state in states:
        right += state.visits(visit, lambda question: script.said(question, wall), now, wall, Fraction(script.delay))
    least = min((forgotten for outcome, forgotten, _ in right if outcome == found), default=None)
    assert least is not None, (found, {outcome for outcome, _, _ in right})
    after: list[Model] = []
    for outcome, forgotten, state in right:
        if outcome == found and forgotten == least and state not in after:
            after.append(state)
    return after
