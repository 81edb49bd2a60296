"""The routes of a Django project, asked of its own resolver: paths, regular expressions, includes, classes, viewsets.

Rule: the resolver answers, exactly as it will for the project. What it answered is remembered by verb and path, unless
a converter or a pattern of the project's own has a say, which may answer otherwise the next time.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast, final

from django.conf import settings
from django.core.handlers import asgi
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import get_path_info
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, URLPattern, URLResolver, converters, get_resolver
from django.urls.resolvers import LocalePrefixPattern, RegexPattern, RoutePattern
from django.utils.regex_helper import normalize
from django.utils.translation import get_language_from_path, override

from apigate.core.context import RequestContext
from apigate.core.endpoints import VERBS, Endpoint, Mark, Served, marks_of_class, marks_on, method_name
from apigate.core.message import Request, Response
from apigate.core.native import wsgi_request
from apigate.routing.django_exchange import DjangoCarrier

__all__ = ["DjangoRouting", "django_response", "routing_of", "served"]

View: TypeAlias = Any  # a function, a partial, an instance with __call__: what it has is asked for by name
Pattern: TypeAlias = RegexPattern | RoutePattern | LocalePrefixPattern
Chain: TypeAlias = Sequence[URLPattern | URLResolver]

_REMEMBERED = 4_096
_LONGEST = 200
_URLCONFS = 64  # one is usual; a middleware may choose among several, and tests override
_PARAMETER = r"<(?:[^>:]+:)?(?P<name>[^>]+)>"
_EITHER_CASE = r"\[(\w)(?i:\1)\]"
_FLAGS = r"\(\?[aiLmsux-]+(?:\)|(?P<scope>:))"

_script_prefix: Callable[[Mapping[str, Any]], str] = getattr(
    asgi,
    "get_script_prefix",  # before Django 5.0 the setting FORCE_SCRIPT_NAME had no say in the path
    lambda scope: scope.get("root_path") or "",
)


def routing_of(app: object) -> "DjangoRouting | None":
    """The routes of the project whose handler this is."""
    return DjangoRouting() if isinstance(app, BaseHandler) else None


@final
class DjangoRouting:
    """Finds the views of the project.

    Args:
        in_project: Whether the gate stands in MIDDLEWARE, where requests have the path that Django routes on.
        has_cors: Tells whether the project has a CORS layer that the gate asks by itself.
    """

    def __init__(self, *, in_project: bool = False, has_cors: Callable[[], bool] = bool) -> None:
        """Nothing is read before the first request."""
        self.in_project: bool = in_project
        self._has_cors = has_cors

    def find(self, request: Request, urlconf: Any = None) -> Endpoint | None:  # Any: all that Django takes for one
        """The view that the project will call; None for a preflight that its CORS layer answers.

        Args:
            request: The request; it gets the path that Django routes on.
            urlconf: The URL configuration, where it is not that of the settings.
        """
        try:
            if not self.in_project:
                request.path = _path_in_django(request)
            path = request.path or "/"
            routed = _project(get_resolver(urlconf)).routed(request.method, path)
        except Exception:  # noqa: BLE001 - no such path; or whatever a converter raises: it will in the project too
            return None
        if routed.alias:
            request.alias = routed.alias
        if request.method == "OPTIONS" and _is_preflight(request) and self._has_cors():
            return None  # the layer answers; where its settings say otherwise, the gate sees the view before it is run
        return routed.endpoint

    def endpoint_of(self, request: HttpRequest) -> Endpoint | None:
        """The view that the project has found by itself; None if it will answer 405."""
        found = request.resolver_match
        if found is None:
            return None
        return _project(get_resolver(getattr(request, "urlconf", None))).endpoint(found, request.method or "GET")

    def load(self) -> None:
        """Import the views, so that their decorators have left their marks."""
        try:
            _project(get_resolver())
        except Exception:  # noqa: BLE001 - the project's own fault, which it will report for each request
            return

    def endpoints(self) -> Iterator[Endpoint]:
        """Every view there is, for each verb that it says it serves."""
        project = _project(get_resolver())
        for chain in _chains(project.resolver):
            view = chain[-1].callback
            for verb in _verbs(view):
                yield project.known_endpoint(view, _template(chain), verb)

    @property
    def has_cors(self) -> bool:
        """Whether CorsMiddleware adds its fields: the gate in MIDDLEWARE asks it; one around all of Django cannot."""
        return self._has_cors()

    def with_cors(self, request: Request, response: Response) -> Response:  # noqa: ARG002 - as Routing has it
        """The refusal as it is."""
        return response


class _Routed(NamedTuple):
    """Where a verb and path lead.

    Attributes:
        endpoint: The view, or None where it will answer 405.
        alias: The path in lower case, where a regular expression may take it for that.
    """

    endpoint: Endpoint | None
    alias: str


@lru_cache(maxsize=_URLCONFS)
def _project(resolver: URLResolver) -> "_Project":
    return _Project(resolver)


@final
class _Project:
    """One URL configuration, read once.

    Raises:
        Exception: Whatever importing the project's views raises.
    """

    def __init__(self, resolver: URLResolver) -> None:
        self.resolver = resolver
        self._routed: dict[tuple[str, str], _Routed] = {}
        self._endpoints: dict[tuple[int, str, str], Endpoint] = {}
        patterns = [each.pattern for chain in _chains(resolver) for each in chain]
        self._by_language = any(map(_is_translated, patterns))
        self._remembers = all(map(_is_constant, patterns))

    def routed(self, verb: str, path: str) -> _Routed:
        """Where a request leads.

        Raises:
            Resolver404: Nowhere.
        """
        routed = self._routed.get((verb, path))
        if routed is None:
            with self._language_of(path):
                found = self.resolver.resolve(path)
                exact = all(type(each.pattern) is not RegexPattern for each in _chain(found))
                routed = _Routed(self.endpoint(found, verb), "" if exact or path == path.lower() else path.lower())
            if self._remembers and len(verb) + len(path) < _LONGEST:
                if len(self._routed) >= _REMEMBERED:
                    self._routed.clear()
                self._routed[verb, path] = routed
        return routed

    def _language_of(self, path: str) -> AbstractContextManager[object]:
        """The language that the project's LocaleMiddleware will find in the path, where any pattern depends on it."""
        if not self._by_language:
            return nullcontext()
        return override(get_language_from_path(path) or settings.LANGUAGE_CODE)

    def endpoint(self, found: ResolverMatch, verb: str) -> Endpoint | None:
        """The endpoint of a match; None where the view will answer 405, and no mark says otherwise.

        OPTIONS always has one: without, a request that looks like a preflight would take from the global level alone,
        whatever the view's `dispatch` does with it.
        """
        verb = verb.upper()
        serves = _serves(found.func, verb)
        endpoint = self.known_endpoint(found.func, _template(_chain(found)) or str(found.route), verb)
        return endpoint if serves or endpoint.marks or verb == "OPTIONS" else None

    def known_endpoint(self, view: View, template: str, verb: str) -> Endpoint:
        """One object for each view, template and verb."""
        verb = verb if verb in VERBS or _class_serves(view, verb) else "*"
        key = (id(view), template, verb)  # a view need not be hashable, and lives as long as its pattern
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            made = Endpoint(method_name(verb, template), _marks_of_view(view, verb), view)
            endpoint = self._endpoints.setdefault(key, made)
        return endpoint


def _is_preflight(request: Request) -> bool:
    """Tell whether a request with the verb OPTIONS is a CORS preflight (Fetch standard, CORS-preflight fetch)."""
    return "origin" in request.headers and "access-control-request-method" in request.headers


def _path_in_django(request: Request) -> str:
    """The path that Django will route on, of a request that a gate around its handler was given."""
    native = request.native
    if "type" in native:
        path: str = native["path"].removeprefix(_script_prefix(native))
    else:
        path = get_path_info(cast("dict[str, Any]", native))
    return path.removeprefix(request.prefix)


def served(arguments: tuple[object, ...]) -> Served | None:
    """The request among a view's arguments; Django REST framework wraps it in its own."""
    for each in arguments:
        request: object = each if isinstance(each, HttpRequest) else getattr(each, "_request", None)
        if isinstance(request, HttpRequest) and request.resolver_match is not None:
            endpoint = DjangoRouting(in_project=True).endpoint_of(request)
            if endpoint is None:
                return None
            asked = wsgi_request({**request.META, "REQUEST_METHOD": request.method}, request.path_info)
            carrier, outer = DjangoCarrier(request), outer_context(request)
            return Served(asked, endpoint.method, endpoint.marks, django_response, carrier=carrier, outer=outer)
    return None


def outer_context(request: HttpRequest) -> RequestContext | None:
    """What a gate further out made known: in MIDDLEWARE, or around the project's handler."""
    found: object = (
        getattr(request, "apigate", None)
        or request.META.get("apigate.context")
        or getattr(request, "scope", request.META).get("apigate")
    )
    return found if isinstance(found, RequestContext) else None


def django_response(response: Response) -> HttpResponse:
    """One of our responses as Django's."""
    made = HttpResponse(response.body, status=response.status)
    for field in response.fields:
        made.headers[field.text[0]] = field.text[1]
    return made


# ---- views


def _marks_of_view(view: View, verb: str) -> tuple[Mark, ...]:
    """The marks of a view function, of the class behind it, or of a viewset's action."""
    marks = marks_on(view)
    view_class = _class_of(view)
    if view_class is not None:
        marks += marks_of_class(view_class, verb, getattr(view, "actions", None))
        marks += marks_on(_api_view(view_class, verb))
    elif not hasattr(view, "__code__"):  # an instance whose class can be called, such as a Feed
        marks += marks_on(cast("Any", type(view)).__call__)
    return tuple(dict.fromkeys(marks))


def _class_of(view: View) -> type | None:
    """The class that `as_view` was called on; Django REST framework has a name of its own for it."""
    return getattr(view, "view_class", None) or getattr(view, "cls", None)


def _api_view(view_class: type, verb: str) -> Callable[..., object] | None:
    """The function below Django REST framework's `@api_view`, which only the handler it makes knows."""
    handler = vars(view_class).get("get" if verb == "HEAD" else verb.lower())
    code = getattr(handler, "__code__", None)
    if code is None or code.co_freevars != ("func",) or not code.co_qualname.startswith("api_view."):
        return None
    function: Callable[..., object] = handler.__closure__[0].cell_contents  # type: ignore[union-attr]  # it has one
    return function


def _serves(view: View, verb: str) -> bool:
    """Tell whether a view serves a verb, as far as it says; a function does not."""
    return _class_of(view) is None or _class_serves(view, verb)


def _class_serves(view: View, verb: str) -> bool:
    view_class = _class_of(view)
    if view_class is None:
        return False
    actions: Mapping[str, str] = getattr(view, "actions", None) or {}
    names = ("head", "get") if verb == "HEAD" else (verb.lower(),)
    allowed: Sequence[str] = getattr(view_class, "http_method_names", ())
    return any(name in allowed and (name in actions or hasattr(view_class, name)) for name in names)


def _verbs(view: View) -> tuple[str, ...]:
    """The verbs a view serves, for listing; a function does not tell."""
    verbs = VERBS - {"HEAD", "OPTIONS"} if _class_of(view) else frozenset[str]()
    return tuple(verb for verb in sorted(verbs) if _class_serves(view, verb)) or ("*",)


# ---- patterns


def _chain(found: ResolverMatch) -> Chain:
    """The patterns that matched, outermost first: the last of those that were tried."""
    chain: Chain = found.tried[-1] if found.tried else ()
    return chain if chain and getattr(chain[-1], "callback", None) is found.func else ()


def _chains(resolver: URLResolver, outer: tuple[URLResolver, ...] = ()) -> Iterator[Any]:
    """The chain of every view; a configuration that includes itself is read once."""
    for each in () if resolver in outer[:-1] else resolver.url_patterns:
        if isinstance(each, URLResolver):
            yield from _chains(each, (*outer, each))
        else:
            yield (*outer, each)


def _is_translated(pattern: Pattern) -> bool:
    """Tell whether a pattern depends on the language: `i18n_patterns`, or a route by `gettext_lazy`."""
    text: object = getattr(pattern, "_route", "") or getattr(pattern, "_regex", "")
    return isinstance(pattern, LocalePrefixPattern) or not isinstance(text, str)


def _is_constant(pattern: Pattern) -> bool:
    """Tell whether a pattern is Django's own, and so gives the same answer each time."""
    kinds = (RegexPattern, RoutePattern, LocalePrefixPattern)
    own = all(type(each).__module__ == converters.__name__ for each in pattern.converters.values())
    return type(pattern) in kinds and own


@lru_cache(maxsize=_REMEMBERED)
def _canonical(text: str, *, is_regex: bool, greedy: frozenset[str]) -> str:
    """A pattern in our form.

    >>> _canonical("pets/<int:id>/", is_regex=False, greedy=frozenset())
    'pets/{id}/'
    >>> _canonical("(?i)^legacy/(?P<id>[0-9]+)/?$", is_regex=True, greedy=frozenset())
    'legacy/{id}'
    """
    if not is_regex:
        return re.sub(_PARAMETER, lambda at: f"{{{at['name']}{'+' if at['name'] in greedy else ''}}}", text)
    plain = re.sub(_FLAGS, lambda at: "(?:" if at["scope"] else "", text)
    try:
        form = normalize(re.sub(_EITHER_CASE, lambda at: at[1].lower(), plain))[0][0]
    except ValueError:
        form = ""
    return re.sub(r"%\((\w+)\)s", r"{\1}", form) or text.strip("^$")  # the text, where Django cannot spell it either


def _template(chain: Chain) -> str:
    """The template of a chain: `pets/<int:id>` is `/pets/{id}`; empty if there is none."""
    parts = [
        _canonical(
            str(each.pattern),
            is_regex=isinstance(each.pattern, RegexPattern),
            greedy=frozenset(
                name for name, kind in each.pattern.converters.items() if re.fullmatch(kind.regex, "a/b") is not None
            ),
        )
        for each in chain
    ]
    return "/" + "".join(parts).lstrip("/") if parts else ""
