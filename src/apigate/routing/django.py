"""The routes of a Django project, asked of its own resolver: paths, regular expressions, includes, classes, viewsets.

Rule: the resolver answers, exactly as it will for the project. What it answered is remembered by verb and path.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

from django.contrib.admindocs.utils import (
    remove_non_capturing_groups,
    replace_metacharacters,
    replace_named_groups,
    replace_unnamed_groups,
)
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, URLResolver, get_resolver

from apigate.core.endpoints import VERBS, Endpoint, Mark, Served, marks_of_class, marks_on, method_name
from apigate.core.message import Request, Response
from apigate.core.native import wsgi_request

__all__ = ["DjangoRouting", "django_response", "routing_of", "served"]

_REMEMBERED = 4_096
_LONGEST = 200
_PARAMETER = r"<(?:(?P<converter>\w+):)?(?P<name>\w+)>"
_REGEX = frozenset("^$(\\?")
_FLAGS = r"\(\?[aiLmsux]+\)"


def routing_of(app: object) -> "DjangoRouting | None":
    """The routes of the project whose handler this is."""
    return DjangoRouting() if isinstance(app, BaseHandler) else None


@final
class DjangoRouting:
    """Finds the views of the project."""

    def __init__(self) -> None:
        """Nothing is read before the first request."""
        self._resolver: URLResolver | None = None
        self._known: dict[tuple[str, str], Endpoint] = {}
        self._endpoints: dict[tuple[object, str], Endpoint] = {}

    def find(self, request: Request) -> Endpoint | None:
        """The view that the project will call."""
        resolver = get_resolver()
        if resolver is not self._resolver:  # settings overridden, caches cleared
            self._resolver, self._known, self._endpoints = resolver, {}, {}
        key = (request.method, request.path)
        endpoint = self._known.get(key)
        if endpoint is not None:
            return endpoint
        try:
            found = resolver.resolve(request.path or "/")
        except Resolver404:
            return None
        except Exception:  # noqa: BLE001 - a converter of the user's may raise anything; it will in the project too
            return None
        endpoint = self._endpoint(found.func, str(found.route), request.method)
        if len(request.path) < _LONGEST:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = endpoint
        return endpoint

    def _endpoint(self, view: Any, route: str, verb: str) -> Endpoint:
        # A route does not tell its verbs, so OPTIONS is named by none: a preflight stays one.
        method = method_name("*" if verb.upper() == "OPTIONS" else verb, _canonical(route))
        endpoint = self._endpoints.get((view, method))
        if endpoint is None:
            endpoint = self._endpoints.setdefault((view, method), Endpoint(method, marks_of_view(view, verb)))
        return endpoint

    def endpoints(self) -> Iterator[Endpoint]:
        """Every view there is, for each verb that it says it serves."""
        for view, route in _views(get_resolver(), ""):
            for verb in _verbs(view):
                yield self._endpoint(view, route, verb)

    @property
    def has_cors(self) -> bool:
        """The gate in MIDDLEWARE asks CorsMiddleware itself; one around the whole project cannot."""
        return False

    def with_cors(self, request: Request, response: Response) -> Response:  # noqa: ARG002 - as Routing has it
        """The refusal as it is."""
        return response


def served(arguments: tuple[object, ...]) -> Served | None:
    """The request among a view's arguments; Django REST framework wraps it in its own."""
    for each in arguments:
        request = getattr(each, "_request", each)
        if isinstance(request, HttpRequest) and request.resolver_match is not None:
            found = request.resolver_match
            verb = request.method or "GET"
            method = method_name(verb, _canonical(str(found.route)))
            asked = wsgi_request({**request.META, "REQUEST_METHOD": verb}, request.path_info)
            return Served(asked, method, marks_of_view(found.func, verb), django_response)
    return None


def django_response(response: Response) -> HttpResponse:
    """One of our responses as Django's."""
    made = HttpResponse(response.body, status=response.status)
    for field in response.fields:
        made.headers[field.text[0]] = field.text[1]
    return made


def marks_of_view(view: Any, verb: str) -> tuple[Mark, ...]:
    """The marks of a view function, of the class behind it, or of a viewset's action."""
    marks = marks_on(view)
    view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if view_class is not None:
        actions: Mapping[str, str] | None = getattr(view, "actions", None)
        marks += marks_of_class(view_class, verb, actions) + marks_on(_api_view(view_class, verb))
    return tuple(dict.fromkeys(marks))


def _api_view(view_class: type, verb: str) -> Callable[..., object] | None:
    """The function below Django REST framework's `@api_view`, which only the handler it makes knows."""
    handler = vars(view_class).get("get" if verb == "HEAD" else verb.lower())
    code = getattr(handler, "__code__", None)
    if code is None or code.co_freevars != ("func",) or not code.co_qualname.startswith("api_view."):
        return None
    function: Callable[..., object] = handler.__closure__[0].cell_contents  # type: ignore[union-attr]  # it has one
    return function


def _views(resolver: Any, prefix: str) -> Iterator[tuple[Any, str]]:
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _views(pattern, route)
        else:
            yield pattern.callback, route


def _verbs(view: Any) -> tuple[str, ...]:
    """The verbs a view serves; a function does not tell."""
    actions: Mapping[str, str] | None = getattr(view, "actions", None)
    if actions:
        return tuple(sorted(verb.upper() for verb in actions if verb not in ("head", "options")))
    view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if view_class is None:
        return ("*",)
    return tuple(verb for verb in sorted(VERBS - {"HEAD", "OPTIONS"}) if hasattr(view_class, verb.lower())) or ("*",)


def _canonical(route: str) -> str:
    """The route in our form: `pets/<int:id>` is `/pets/{id}`, `^legacy/(?P<id>[0-9]+)/$` is `/legacy/{id}/`."""
    if _REGEX & set(route):
        route = re.sub(_FLAGS, "", route)
        route = replace_unnamed_groups(replace_named_groups(remove_non_capturing_groups(route)))
        route = replace_metacharacters(route).replace("^", "").replace("$", "")

    def braces(found: re.Match[str]) -> str:
        return f"{{{found['name']}{'+' if found['converter'] == 'path' else ''}}}"

    return "/" + re.sub(_PARAMETER, braces, route).lstrip("/")
