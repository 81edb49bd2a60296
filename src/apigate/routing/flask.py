"""The routes of a Flask app, asked of its own URL map, with its converters, blueprints and subdomains.

Rule: the URL map answers, exactly as it will for the app. What it answered is remembered by verb and path, so that
the same request again costs one look into a dict.
"""

import re
from collections.abc import Iterator
from typing import Any, final

from flask import Flask, current_app, has_request_context, request
from flask import Response as FlaskResponse
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from apigate.core.endpoints import Endpoint, Mark, Served, marks_of_class, marks_on, method_name
from apigate.core.message import Field, Request, Response
from apigate.core.native import wsgi_request

__all__ = ["FlaskRouting", "flask_response", "routing_of", "served"]

_REMEMBERED = 4_096
_LONGEST = 200
_PARAMETER = r"<(?:(?P<converter>[A-Za-z_]\w*)(?:\(.*?\))?:)?(?P<name>[A-Za-z_]\w*)>"


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
        self._adapter: Any = None  # a MapAdapter, which does not depend on the request where hosts do not matter
        self._known: dict[tuple[str, str], Endpoint | None] = {}
        self._endpoints: dict[tuple[int, str], Endpoint] = {}

    def find(self, request: Request) -> Endpoint | None:
        """The endpoint that the app will call."""
        app = self._app
        url_map = app.url_map
        if url_map._remap:  # noqa: SLF001 - set where rules were added since the last match
            self._known = {}
        if url_map.host_matching or app.subdomain_matching:
            return self._matched(app.create_url_adapter(app.request_class(dict(request.native))), request)
        key = (request.method, request.path)
        try:
            return self._known[key]
        except KeyError:
            pass
        if self._adapter is None:
            self._adapter = url_map.bind("localhost", subdomain=url_map.default_subdomain or "")
        endpoint = self._matched(self._adapter, request)
        if endpoint is not None and len(request.path) < _LONGEST:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = endpoint
        return endpoint

    def _matched(self, adapter: Any, request: Request) -> Endpoint | None:
        try:
            rule, _ = adapter.match(request.path, request.method, return_rule=True)
        except HTTPException:  # 404, 405 or a redirect, which the app will answer by itself
            return None
        except Exception:  # noqa: BLE001 - a converter of the user's may raise anything; it will in the app too
            return None
        if request.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
            return None
        return self._endpoint(rule, request.method)

    def _endpoint(self, rule: Rule, verb: str) -> Endpoint:
        method = method_name(verb, _canonical(rule))
        key = (id(rule), method)  # a rule is not hashable, and lives as long as the map
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            marks = _marks(self._app.view_functions.get(rule.endpoint), verb)
            endpoint = self._endpoints.setdefault(key, Endpoint(method, marks))
        return endpoint

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint there is."""
        for rule in self._app.url_map.iter_rules():
            automatic = {"HEAD", "OPTIONS"} if getattr(rule, "provide_automatic_options", False) else {"HEAD"}
            for verb in sorted((rule.methods or {"*"}) - automatic):
                yield self._endpoint(rule, verb)

    @property
    def has_cors(self) -> bool:
        """Whether anything is done to responses after the view: there an app, or Flask-CORS, adds its fields."""
        return bool(self._app.after_request_funcs)

    def with_cors(self, request: Request, response: Response) -> Response:
        """The refusal after the app's `after_request` functions; neither `before_request` nor a view runs."""
        app = self._app
        try:
            with app.request_context(dict(request.native)):
                made = app.process_response(flask_response(app, response))
                fields = [_field(name, value) for name, value in made.headers.items()]
        except Exception:  # one that relies on what a view or `before_request` left behind
            from logging import getLogger

            getLogger("apigate").warning("an after_request function failed on a refusal, sent without", exc_info=True)
            return response
        return Response(response.kind, response.status, fields, response.body, response.violated)


def served(arguments: tuple[object, ...]) -> Served | None:  # noqa: ARG001 - Flask's views take no request
    """The request that Flask is serving, and the marks of the view it called."""
    if not has_request_context() or request.url_rule is None:
        return None
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as Flask documents it
    marks = _marks(app.view_functions.get(request.url_rule.endpoint), request.method)
    method = method_name(request.method, _canonical(request.url_rule))
    return Served(wsgi_request(request.environ), method, marks, lambda response: flask_response(app, response))


def _marks(view: Any, verb: str) -> tuple[Mark, ...]:
    """The marks of a view function, or of the class behind it."""
    view_class = getattr(view, "view_class", None)
    return marks_on(view) + (() if view_class is None else marks_of_class(view_class, verb))


def flask_response(app: Flask, response: Response) -> FlaskResponse:
    """One of our responses as the app's."""
    return app.response_class(response.body, response.status, [field.text for field in response.fields])


def _field(name: str, value: str) -> Field:
    return Field((name, value), (name.lower().encode("latin-1"), value.encode("latin-1", "replace")))


def _canonical(rule: Rule) -> str:
    """The rule in our form: `/pets/<int:id>` is `/pets/{id}`, `<path:p>` is greedy, `{p+}`."""
    converters = rule.map.converters if rule.map is not None else {}

    def braces(found: re.Match[str]) -> str:
        converter = converters.get(found["converter"] or "default")
        return f"{{{found['name']}{'' if getattr(converter, 'part_isolating', True) else '+'}}}"

    return re.sub(_PARAMETER, braces, rule.rule)
