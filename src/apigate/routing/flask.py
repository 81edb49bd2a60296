"""The routes of a Flask app, asked of its own URL map, with its converters, blueprints and hosts.

Rule: the URL map answers, as it will for the app; only `to_python` of a user's converter is left out, which may look
into a database or ask for an app context. What it answered is remembered by verb and path until a rule is added, so
that the same request again costs one look into a dict. Where the answer depends on more than that (hosts, subdomains,
WebSocket rules, an app's own `create_url_adapter`), it is asked each time.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast, final

from flask import Flask, current_app, has_request_context, request
from flask import Response as FlaskResponse
from flask.views import MethodView
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map, MapAdapter, Rule

from apigate.core.endpoints import VERBS, Endpoint, Mark, Served, marks_of_class, marks_on, method_name, status_of
from apigate.core.message import Field, Request, Response
from apigate.core.native import wsgi_path, wsgi_request
from apigate.routing.flask_exchange import FlaskCarrier

__all__ = ["FlaskRouting", "flask_response", "routing_of", "served"]

_REMEMBERED = 4_096
_LONGEST = 200
_PARAMETER = r"<(?:(?P<converter>[A-Za-z_]\w*)(?:\(.*?\))?:)?(?P<name>[A-Za-z_]\w*)>"

View = Callable[..., Any]  # Any: whatever a view takes and returns


def routing_of(app: object) -> "FlaskRouting | None":
    """The routes of a Flask app, or of the app whose `wsgi_app` this is."""
    flask = getattr(app, "__self__", app)
    return FlaskRouting(flask) if isinstance(flask, Flask) else None


@final
class FlaskRouting:
    """Finds the endpoints of one app.

    Args:
        app: The app.
    """

    def __init__(self, app: Flask) -> None:
        """Nothing is read before the first request."""
        self._app = app
        self._table: _Table | None = None
        self._endpoints: dict[tuple[int, str], tuple[View | None, Endpoint]] = {}
        self._failed: set[object] = set()

    def find(self, request: Request) -> Endpoint | None:
        """The endpoint that the app will call."""
        table = self._table
        if table is None or table.is_stale:
            table = self._table = _Table(self._app)
        if table.adapter is None or "HTTP_UPGRADE" in request.native:
            return self._asked(table, request)
        key = (request.method, request.path)
        known = table.known.get(key)
        if known is not None:
            name, view, endpoint = known
            if self._app.view_functions.get(name) is view:  # nobody has replaced it since
                return endpoint
        rule = table.match(table.adapter, request)
        if rule is None:
            return None
        found = self._endpoint(rule, request.method)
        if found is not None and len(request.method) + len(request.path) < _LONGEST:
            if len(table.known) >= _REMEMBERED:
                table.known.clear()
            table.known[key] = (rule.endpoint, self._view(rule), found)
        return found

    def _asked(self, table: "_Table", request: Request) -> Endpoint | None:
        """As the app will ask: by the whole request."""
        app = self._app
        try:
            adapter = app.create_url_adapter(app.request_class(_environ(request)))
        except Exception:  # noqa: BLE001 - a host that is none or not trusted: the app will answer 400
            return None
        if adapter is None:
            return None
        if adapter.map is app.url_map:
            adapter.map = table.map
        rule = table.match(adapter, request)
        return None if rule is None else self._endpoint(rule, request.method)

    def _endpoint(self, rule: Rule, verb: str) -> Endpoint | None:
        verb = verb.upper()
        view = self._view(rule)
        if verb == "OPTIONS" and _answers_options(rule, view):
            return None
        method = method_name(verb, _canonical(rule))
        own = verb in VERBS or verb in (rule.methods or ())
        key = (id(rule), verb if own else "*")  # a rule is not hashable, and lives as long as the map
        known = self._endpoints.get(key)
        if known is None or known[0] is not view:
            known = self._endpoints[key] = (view, Endpoint(method, _marks(view, verb), view))
        return known[1]

    def _view(self, rule: Rule) -> View | None:
        return self._app.view_functions.get(rule.endpoint)

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint there is."""
        for rule in self._app.url_map.iter_rules():
            if rule.build_only or rule.redirect_to is not None:
                continue
            for verb in sorted((rule.methods or {"*"}) - {"HEAD"}):
                endpoint = self._endpoint(rule, verb)
                if endpoint is not None:
                    yield endpoint

    @property
    def has_cors(self) -> bool:
        """Whether anything is done to responses after the view: there an app, or Flask-CORS, adds its fields."""
        return bool(self._app.after_request_funcs)

    def with_cors(self, request: Request, response: Response) -> Response:
        """The refusal with the CORS fields that the app's `after_request` functions add to it.

        Neither `before_request` nor a view runs, so a function that relies on them may fail; it is passed over. What
        else these functions do to a response, such as compressing its body, does not become part of the refusal.
        """
        app = self._app
        made = flask_response(app, response)
        try:
            with app.request_context(_environ(request)):
                for function in _after_request(app):
                    try:
                        changed = app.ensure_sync(function)(made)
                        made = changed if isinstance(changed, FlaskResponse) else made
                    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                        self._log(function, error)
        except Exception as error:  # noqa: BLE001 - as may what runs at the end of a request context
            self._log(app, error)
        fields = [_field(name, value) for name, value in made.headers.items() if _is_cors(name)]
        return Response(response.kind, response.status, (*response.fields, *fields), response.body, response.violated)

    def _log(self, function: object, error: Exception) -> None:
        """Say once what failed."""
        if function not in self._failed:
            self._failed.add(function)
            from logging import getLogger

            getLogger("apigate").warning("%r failed on a refusal, which is sent without it", function, exc_info=error)


class _Table:
    """The rules of an app as they stand, and the answers that were found in them."""

    def __init__(self, app: Flask) -> None:
        self._url_map: Any = app.url_map  # Any: what tells that rules were added since is not public
        self._url_map.update()
        self._size = len(getattr(self._url_map, "_rules_by_endpoint", ()))
        self.known: dict[tuple[str, str], tuple[str, View | None, Endpoint]] = {}
        self.map, self._twins = _matching_only(app.url_map)
        self.adapter: MapAdapter | None = None
        if not _depends_on_request(app):
            self.adapter = self.map.bind("localhost", subdomain=self.map.default_subdomain or "")

    @property
    def is_stale(self) -> bool:
        """Whether rules were added since; one look is not enough, as the app may have sorted them in already."""
        added = getattr(self._url_map, "_remap", True)  # where it cannot be told, read each time
        return bool(added) or len(getattr(self._url_map, "_rules_by_endpoint", ())) != self._size

    def match(self, adapter: MapAdapter, request: Request) -> Rule | None:
        """The rule by which the app will answer; None where it answers 404, 405 or a redirect by itself."""
        try:
            rule, _ = adapter.match(request.path, request.method, return_rule=True)
        except Exception:  # noqa: BLE001 - besides HTTPException: what users' rules and converters raise
            return None
        return self._twins.get(id(rule), rule)


def _matching_only(url_map: Map) -> tuple[Map, Mapping[int, Rule]]:
    """A map that matches as this one does, without the conversions that users wrote; and whose rules its own are.

    The matcher takes the first rule that the path's text fits; a conversion can only make a 404 of it.
    """
    converters = {name: _without_conversion(converter) for name, converter in url_map.converters.items()}
    if converters == dict(url_map.converters):
        return url_map, {}
    copied = Map(
        default_subdomain=url_map.default_subdomain,
        strict_slashes=url_map.strict_slashes,
        merge_slashes=url_map.merge_slashes,
        redirect_defaults=url_map.redirect_defaults,
        converters=converters,
        host_matching=url_map.host_matching,
    )
    twins: dict[int, Rule] = {}
    for rule in url_map.iter_rules():
        twin = rule.empty()
        twin.strict_slashes, twin.merge_slashes, twin.websocket = (
            rule.strict_slashes,
            rule.merge_slashes,
            rule.websocket,
        )
        copied.add(twin)
        twins[id(twin)] = rule
    return copied, twins


def _without_conversion(converter: type[BaseConverter]) -> type[BaseConverter]:
    """The converter, if it converts as one of Werkzeug's; else one that matches the same and hands on the text."""
    if converter.to_python.__module__.startswith("werkzeug."):
        return converter

    def to_python(_: BaseConverter, value: str) -> str:
        return value

    return type(converter.__name__, (converter,), {"to_python": to_python})


def _depends_on_request(app: Flask) -> bool:
    """Whether more than verb and path decides; before Flask 3.1 a `SERVER_NAME` alone brought subdomains in."""
    return (
        app.url_map.host_matching
        or app.subdomain_matching
        or app.config["SERVER_NAME"] is not None
        or type(app).create_url_adapter is not Flask.create_url_adapter
    )


def _answers_options(rule: Rule, view: View | None) -> bool:
    """Whether OPTIONS does not reach the view: Flask answers it, or a decorator, as Flask-CORS's `cross_origin`.

    Source: Flask, "View Function Options".
    """
    if getattr(rule, "provide_automatic_options", False):
        return True
    decorated = "OPTIONS" in getattr(view, "required_methods", ())
    return decorated and getattr(view, "provide_automatic_options", None) is False


def _environ(request: Request) -> dict[str, Any]:  # Any: as PEP 3333 has it, values of every type
    """A copy of the environ as the app will see it: the stage's part of the path is no part of it any more."""
    asked = {"REQUEST_METHOD": request.method, "PATH_INFO": request.path}  # all there is where a user asks `explain`
    environ = {**_LEAST, **asked, **request.native}
    if request.prefix and wsgi_path(environ) != request.path:
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + request.prefix
        environ["PATH_INFO"] = environ["PATH_INFO"][len(request.prefix) :]
    return environ


_LEAST = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}


def served(arguments: tuple[object, ...]) -> Served | None:  # noqa: ARG001 - Flask's views take no request
    """The request that Flask is serving, and the marks of the view it called."""
    if not has_request_context() or request.url_rule is None:
        return None
    marks = _marks(current_app.view_functions.get(request.url_rule.endpoint), request.method)
    method = method_name(request.method, _canonical(request.url_rule))

    def respond(response: Response) -> FlaskResponse:
        return flask_response(current_app, response)

    app = cast("Any", current_app)._get_current_object()  # noqa: SLF001 - Flask names it in its documentation
    asked, outer = wsgi_request(request.environ), request.environ.get("apigate.context")
    return Served(asked, method, marks, respond, _status_of, FlaskCarrier(), app, outer)


def _status_of(outcome: object) -> int:
    """The status of what a view returned or raised: `abort` raises one with a code or response, and tuples hold one."""
    if isinstance(outcome, HTTPException):
        return outcome.code or 500 if outcome.response is None else status_of(outcome.response)
    if isinstance(outcome, tuple):
        parts = cast("tuple[object, ...]", outcome)
        given = [part for part in parts[1:] if isinstance(part, int | str)]
        return int(str(given[0])[:3]) if given else status_of(parts[0])
    return status_of(outcome)


def _marks(view: View | None, verb: str) -> tuple[Mark, ...]:
    """The marks of a view function, or of the class behind it; only a `MethodView` has methods named as verbs."""
    view_class = getattr(view, "view_class", None)
    if view_class is None:
        return marks_on(view)
    name = verb if issubclass(view_class, MethodView) else "dispatch_request"
    return tuple(dict.fromkeys([*marks_on(view), *marks_of_class(view_class, name)]))


def flask_response(app: Flask, response: Response) -> FlaskResponse:
    """One of our responses as the app's."""
    return app.response_class(response.body, response.status, [field.text for field in response.fields])


def _after_request(app: Flask) -> Iterator[Callable[[Any], Any]]:  # Any: the app's own kind of response
    """The functions that see each response of the request in hand, in the order Flask calls them."""
    for name in (*request.blueprints, None):
        yield from reversed(app.after_request_funcs.get(name, []))


def _is_cors(name: str) -> bool:
    """Tell whether a response field is about who may read the response (Fetch standard, section 3.3)."""
    return name.lower() == "vary" or name.lower().startswith("access-control-")


def _field(name: str, value: str) -> Field:
    return Field((name, value), (name.lower().encode("latin-1"), value.encode("latin-1", "replace")))


def _canonical(rule: Rule) -> str:
    """The rule in our form: `/pets/<int:id>` is `/pets/{id}`, `<path:p>` is greedy, `{p+}`."""
    converters = cast("Map | None", rule.map)  # None where the rule stands in no map yet

    def braces(found: re.Match[str]) -> str:
        converter = None if converters is None else converters.converters.get(found["converter"] or "default")
        return f"{{{found['name']}{'' if getattr(converter, 'part_isolating', True) else '+'}}}"

    return re.sub(_PARAMETER, braces, rule.rule)
