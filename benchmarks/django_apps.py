"""Django with one trivial view: bare, behind apigate, behind the limiters made for it.

Rule: no middleware but what is measured. The limiters count in Django's cache in memory. Django has
one configuration a process, so a project's URLs are put into it before each batch.
"""

import time
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from apigate import Gateway, wsgi
from apigate.wsgi import WSGIApp
from benchmarks import floors
from benchmarks.drive import wsgi_batch
from benchmarks.measure import Batch
from benchmarks.raw_apps import gateway
from benchmarks.subjects import Subject
from benchmarks.throttling import FAST, SLOW

__all__ = ["ENDPOINTS", "GATES", "django_batch"]

BUILDS = count()
"""A limiter's group is named by its number, for all of them share one cache."""


class Project(NamedTuple):
    """An app, and the URLs that it needs in the settings."""

    app: WSGIApp
    urls: tuple[Any, ...]


def django_batch(project: Project, **options: Any) -> Batch:
    """As `wsgi_batch`."""
    settings = set_up()
    settings.ROOT_URLCONF = project.urls
    batch = wsgi_batch(project.app, **options)

    def configured(times: int) -> None:
        settings.ROOT_URLCONF = project.urls
        batch(times)

    return configured


@cache
def set_up() -> Any:
    """Django's settings, made once."""
    import django
    from django.conf import settings

    memory = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": memory},
        ROOT_URLCONF=(),
        REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []},
    )
    django.setup()
    return settings


def project_of(view: Any, middleware: tuple[str, ...] = (), gateway: Gateway | None = None) -> Project:
    """A project of one view."""
    settings = set_up()
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.signals import setting_changed
    from django.urls import path

    settings.MIDDLEWARE = middleware
    settings.APIGATE = {"GATEWAY": gateway}
    setting_changed.send(sender=project_of, setting="APIGATE", value=settings.APIGATE, enter=True)
    return Project(WSGIHandler(), (path("pets", view),))


def trivial() -> Callable[..., Any]:
    """The view."""
    set_up()
    from django.http import HttpResponse

    def pets(request: Any) -> HttpResponse:
        return HttpResponse("[]")

    return pets


def django() -> Project:
    """Django's own request."""
    return project_of(trivial())


def django_apigate(*, refuse: bool = False) -> Project:
    """The middleware made for Django."""
    return project_of(trivial(), ("apigate.django.GatewayMiddleware",), gateway(SLOW if refuse else FAST))


def django_behind_apigate(*, refuse: bool = False) -> Project:
    """The middleware, as around any WSGI app."""
    bare = django()
    return bare._replace(app=wsgi.GatewayMiddleware(bare.app, gateway(SLOW if refuse else FAST)))


def django_ratelimit(*, refuse: bool = False) -> Project:
    """Its decorator. A refusal is 403, for it raises PermissionDenied."""
    set_up()
    from django_ratelimit.decorators import ratelimit

    limit = ratelimit(group=f"benchmark{next(BUILDS)}", key="ip", rate="1/d" if refuse else "1000000/s")
    return project_of(limit(trivial()))


def rest_framework(throttle: type | None = None) -> Project:
    """A view of the REST framework that answers as Django's own does."""
    set_up()
    from django.http import HttpResponse
    from rest_framework.views import APIView

    class Pets(APIView):
        throttle_classes = (throttle,) if throttle else ()

        def get(self, request: Any) -> HttpResponse:
            return HttpResponse("[]")

    return project_of(Pets.as_view())


def anon_rate_throttle(*, refuse: bool = False, kept: int = 10) -> Project:
    """Its throttle of strangers, which keeps a stamp of each request: here `kept` of them at any time.

    That is a client that asks half as often as it may; the throttle's clock goes by its requests.
    """
    set_up()
    from rest_framework.throttling import AnonRateThrottle

    class Throttle(AnonRateThrottle):
        scope = f"benchmark{next(BUILDS)}"
        rate = f"{kept}/day" if refuse else f"{2 * kept}/second"
        timer = time.time if refuse else count(0, 1 / kept).__next__

    return rest_framework(Throttle)


def anon_rate_throttle_500(*, refuse: bool = False) -> Project:
    """The same for a busier client."""
    return anon_rate_throttle(refuse=refuse, kept=500)


def endpoint_floor(*, refuse: bool = False) -> Project:
    """One bucket a client."""
    set_up()
    from django.http import HttpResponse

    limit = floors.throttle(
        SLOW if refuse else FAST,
        key=lambda request: request.META["REMOTE_ADDR"],
        refuse=lambda: HttpResponse("Too Many Requests", status=429),
    )
    return project_of(limit(trivial()))


def endpoint_apigate(*, refuse: bool = False) -> Project:
    """A decorator on the view, and the gateway it belongs to around the app."""
    gateway = Gateway()
    view = gateway.throttle(SLOW if refuse else FAST, per="client")(trivial())
    return project_of(view, ("apigate.django.GatewayMiddleware",), gateway)


BARE = Subject("Django", django, ("django",), limits=False)
RATELIMIT = Subject("Django + django-ratelimit", django_ratelimit, ("django", "django_ratelimit"), refused=403)
REST = ("django", "rest_framework")
GATES = (
    BARE,
    Subject("Django + apigate", django_apigate, ("django",), field="ratelimit"),
    Subject("Django behind apigate", django_behind_apigate, ("django",), field="ratelimit"),
    RATELIMIT,
    Subject("REST framework", rest_framework, REST, limits=False),
    Subject("REST framework + AnonRateThrottle, 10 stamps", anon_rate_throttle, REST, before=10),
    Subject("REST framework + AnonRateThrottle, 500 stamps", anon_rate_throttle_500, REST, before=500),
)
"""Around the app."""

ENDPOINTS = (
    BARE,
    Subject("floor", endpoint_floor, ("django",)),
    Subject("apigate", endpoint_apigate, ("django",), field="ratelimit"),
    RATELIMIT,
)
"""On one view."""
