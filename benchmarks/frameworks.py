"""Frameworks in process: their own request, with apigate, with each limiter made for them.

Rule: what a limiter adds is counted over its own framework's request of the same round. Each is first
seen to refuse, with the status that it refuses with.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from benchmarks import django_apps, fastapi_apps, flask_apps
from benchmarks.django_apps import django_batch
from benchmarks.drive import Driver, asgi_batch, wsgi_batch
from benchmarks.measure import Batch, Case, Group, Plan
from benchmarks.subjects import Subject
from benchmarks.throttling import FAST, floor_once

__all__ = ["asgi_cases", "groups", "wsgi_cases"]


def asgi_cases() -> Iterator[Case]:
    """FastAPI and Starlette, around the app."""
    yield from _admitting(asgi_batch, fastapi_apps.GATES)
    yield from _refusing(asgi_batch, fastapi_apps.GATES)


def wsgi_cases() -> Iterator[Case]:
    """Flask and Django, around the app."""
    yield from _admitting(wsgi_batch, flask_apps.GATES)
    yield from _refusing(wsgi_batch, flask_apps.GATES)
    yield from _admitting(django_batch, django_apps.GATES)
    yield from _refusing(django_batch, django_apps.GATES)


def groups(_plan: Plan) -> tuple[Group, ...]:
    """A decorator on an endpoint of each framework."""
    decision = Case("floor decision", lambda: floor_once(FAST))
    return (
        Group("Decorator on a FastAPI endpoint", (*_admitting(asgi_batch, fastapi_apps.ENDPOINTS), decision)),
        Group("Decorator on a Flask endpoint", (*_admitting(wsgi_batch, flask_apps.ENDPOINTS), decision)),
        Group("Decorator on a Django view", (*_admitting(django_batch, django_apps.ENDPOINTS), decision)),
    )


def _admitting(driver: Driver, subjects: Iterable[Subject]) -> Iterator[Case]:
    for subject in subjects:
        yield Case(subject.name, _admitted(driver, subject), subject.needs)


def _refusing(driver: Driver, subjects: Iterable[Subject]) -> Iterator[Case]:
    for subject in subjects:
        if subject.limits:
            yield Case(f"{subject.name}, refusing", _refused(driver, subject), subject.needs)


def _admitted(driver: Driver, subject: Subject) -> Callable[[], Batch]:
    def build() -> Batch:
        if subject.limits:
            _must_refuse(driver, subject)
        return driver(subject.app(), after=subject.before, field=subject.field)

    return build


def _refused(driver: Driver, subject: Subject) -> Callable[[], Batch]:
    return lambda: driver(subject.app(refuse=True), after=max(1, subject.before), status=subject.refused)


@cache
def _must_refuse(driver: Driver, subject: Subject) -> None:
    """See once that this limiter limits; AssertionError where it lets pass what is too much."""
    _refused(driver, subject)()
