"""The response cache: what a hit, a miss and a request that passes it by cost, beside the floor and other caches.

Rule: a hit asks for the same again and must not reach the app; a miss asks for what nobody asked for before;
what passes by is an unsafe method, a request of one user, an answer that must not be kept. All of it is seen
before it is timed. The app answers with 1 KB of JSON; FastAPI's and Flask's trivial endpoint, which the hits
are set against, answer with two bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from benchmarks import cache_asgi, cache_keys, cache_wsgi, fastapi_apps, flask_apps
from benchmarks.cache_origin import must_pass, must_reach, new_paths
from benchmarks.django_apps import django_batch
from benchmarks.drive import Driver, asgi_batch, wsgi_batch
from benchmarks.measure import Batch, Case, Group, Plan
from benchmarks.subjects import Subject
from benchmarks.throttling import FAST, floor_once

__all__ = ["BYPASSES", "groups"]

BYPASSES: Mapping[str, Mapping[str, Any]] = {
    "POST": {"method": "POST"},
    "Authorization": {"fields": {"authorization": "Bearer of.a.token"}},
    "Cookie": {"fields": {"cookie": "session=1a2b3c"}},
}
"""What is asked for past the cache, and how."""

DECISION = Case("floor decision", lambda: floor_once(FAST))


def groups(plan: Plan) -> tuple[Group, ...]:
    """Hits, misses and what passes by, through ASGI and through WSGI; and many keys."""
    asgi, wsgi = cache_asgi, cache_wsgi
    raw_asgi = (asgi.FLOOR, asgi.APIGATE, asgi.FULL_FLOOR, asgi.FULL_GATE, *asgi.HISHEL)
    raw_wsgi = (wsgi.FLOOR, wsgi.APIGATE, wsgi.FULL_FLOOR, wsgi.FULL_GATE)
    return (
        Group(
            "Cache hit, ASGI",
            (
                *_bare(asgi_batch, asgi.BARE),
                *_hits(asgi_batch, raw_asgi),
                _trivial(asgi_batch, fastapi_apps.BARE),
                *_bare(asgi_batch, asgi.FASTAPI),
                *_hits(asgi_batch, asgi.ENDPOINTS),
            ),
        ),
        Group(
            "Cache hit, WSGI",
            (
                *_bare(wsgi_batch, wsgi.BARE),
                *_hits(wsgi_batch, raw_wsgi),
                _trivial(wsgi_batch, flask_apps.BARE),
                *_bare(wsgi_batch, wsgi.FLASK),
                *_hits(wsgi_batch, wsgi.FLASK_GATES),
                *_bare(django_batch, wsgi.DJANGO),
                *_hits(django_batch, wsgi.DJANGO_GATES),
            ),
        ),
        Group(
            "Cache miss, ASGI",
            (
                *_misses(asgi_batch, (asgi.BARE, *raw_asgi, asgi.FASTAPI, *asgi.ENDPOINTS)),
                DECISION,
            ),
        ),
        Group(
            "Cache miss, WSGI",
            (
                *_misses(wsgi_batch, (wsgi.BARE, *raw_wsgi, wsgi.FLASK, *wsgi.FLASK_GATES)),
                *_misses(django_batch, (wsgi.DJANGO, *wsgi.DJANGO_GATES)),
                DECISION,
            ),
        ),
        Group(
            "Cache passed by, ASGI",
            (
                *_bare(asgi_batch, asgi.BARE),
                *_posts(asgi_batch, asgi.FLOOR),
                *_bypasses(asgi_batch, asgi.APIGATE),
                *_bare(asgi_batch, asgi.NO_STORE, asgi.OFF),
                *_posts(asgi_batch, asgi.HISHEL[0], asgi.FASTAPI, *asgi.KNOW_METHODS),
                *_bare(asgi_batch, *asgi.NO_STORE_ENDPOINTS),
                DECISION,
            ),
        ),
        Group(
            "Cache passed by, WSGI",
            (
                *_bare(wsgi_batch, wsgi.BARE),
                *_posts(wsgi_batch, wsgi.FLOOR),
                *_bypasses(wsgi_batch, wsgi.APIGATE),
                *_bare(wsgi_batch, wsgi.NO_STORE, wsgi.OFF),
                *_posts(wsgi_batch, wsgi.FLASK, *wsgi.FLASK_GATES[:2], wsgi.FLASK_BYPASSED),
                *_bare(wsgi_batch, wsgi.FLASK_NO_STORE),
                *_posts(django_batch, wsgi.DJANGO, *wsgi.DJANGO_GATES),
                DECISION,
            ),
        ),
        *cache_keys.groups(plan),
    )


def _case(subject: Subject, build: Callable[[], Batch], suffix: str = "") -> Case:
    return Case(subject.name + suffix, build, subject.needs)


def _trivial(driver: Driver, subject: Subject) -> Case:
    return _case(subject, lambda: driver(subject.app()), ", trivial")


def _bare(driver: Driver, *subjects: Subject) -> Iterator[Case]:
    """Every request reaches the app."""
    for subject in subjects:
        yield _case(subject, lambda subject=subject: must_reach(driver(subject.app())))


def _hits(driver: Driver, subjects: Iterable[Subject]) -> Iterator[Case]:
    for subject in subjects:
        yield _case(subject, lambda subject=subject: must_pass(driver(subject.app(), after=1, field=subject.field)))


def _misses(driver: Driver, subjects: Iterable[Subject]) -> Iterator[Case]:
    for subject in subjects:
        yield _case(subject, lambda subject=subject: must_reach(driver(subject.app(), paths=new_paths())))


def _posts(driver: Driver, *subjects: Subject) -> Iterator[Case]:
    for subject in subjects:
        yield from _bypasses(driver, subject, ("POST",))


def _bypasses(driver: Driver, subject: Subject, ways: Iterable[str] = BYPASSES) -> Iterator[Case]:
    for way in ways:
        yield _case(
            subject,
            lambda way=way: must_reach(driver(subject.app(), **BYPASSES[way])),
            f", {way}",
        )
