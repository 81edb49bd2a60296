"""The gateway at home in Flask: the extension `Apigate`, and the request `context`.

Configuration, read in `init_app`: any setting of `Gateway` in capitals, such as `APIGATE_CLIENT_THROTTLE`, or
`APIGATE_CONFIG` alone, a TOML file relative to the app's root. Both only where no gateway is given. `APIGATE_STAGE`
fixes the stage. With `APIGATE_ENABLED = False` nothing stands around the app, and decorated views are not throttled.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, cast, final

from flask import Flask, Response, current_app, request
from flask.cli import AppGroup
from werkzeug.local import LocalProxy

from apigate.config import OBJECTS, RATE_HINTS
from apigate.core.context import RequestContext, current
from apigate.core.counters import Counters
from apigate.core.errors import ConfigurationError
from apigate.core.names import check_settings
from apigate.core.native import wsgi_request
from apigate.core.policy import CompiledMethod
from apigate.gateway import NO_STAGE, Gateway, empty_context
from apigate.routing.flask import FlaskRouting, flask_response
from apigate.throttling.decision import Throttled
from apigate.wsgi import Environ, GatewayMiddleware, StartResponse, WSGIApp

__all__ = ["Apigate", "context"]

_PREFIX = "APIGATE_"


def _context() -> RequestContext:
    """The context of the request being served; where no gate made one it is empty, and the same all the time."""
    found = request.environ.get("apigate.context")
    if not isinstance(found, RequestContext):
        found = request.environ["apigate.context"] = empty_context(wsgi_request(request.environ))
    return found


context: RequestContext = cast("RequestContext", LocalProxy(_context))
"""The request context, as `flask.request` is the request; an empty one where no gate stands around the app."""


@final
class Apigate:
    """The Flask extension. One may serve several apps; what belongs to an app is in `app.extensions["apigate"]`.

    Args:
        app: The app, or None to call `init_app` later.
        gateway: The gateway of every app; None to build one for each from its `APIGATE_*` configuration.
        stage: The stage, where the path, host or a header does not tell.

    Raises:
        ConfigurationError: As `init_app`.

    >>> app = Flask("shop")
    >>> extension = Apigate(app, Gateway(client_throttle="10/second; burst=20"))
    """

    def __init__(self, app: Flask | None = None, gateway: Gateway | None = None, *, stage: str | None = None) -> None:
        """Keep the gateway; put it around the app, if there is one already."""
        if gateway is not None and not isinstance(gateway, Gateway):
            raise ConfigurationError(f"Apigate: {gateway!r} is not a Gateway; Apigate(app, gateway)")
        self._gateway = gateway
        self._stage = stage
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the gateway around an app.

        What the app wraps around `app.wsgi_app` before stands inside the gate, what it wraps after stands outside: put
        `ProxyFix` outside, so that the gate sees the client's address.

        Args:
            app: The app. Routes and blueprints may be added before and after.

        Raises:
            ConfigurationError: The configuration cannot be used, or the app has a gateway already.
        """
        if not isinstance(app, Flask):
            raise ConfigurationError(f"Apigate: {app!r} is not a Flask app; Apigate(app, gateway)")
        if "apigate" in app.extensions:
            raise ConfigurationError(f"Apigate: the app {app.name!r} has a gateway already")
        settings = _settings(app)
        enabled = settings.pop("enabled", True)
        if not isinstance(enabled, bool):
            raise ConfigurationError(f"APIGATE_ENABLED: {enabled!r} is not True or False")
        if not enabled:
            if self._gateway is not None:
                app.wsgi_app = _exempting(app.wsgi_app, self._gateway)  # type: ignore[method-assign,assignment]  # below
            return
        stage = settings.pop("stage", None)
        gate = GatewayMiddleware(app.wsgi_app, self._gateway_for(app, settings), stage=self._stage or stage)
        if gate.routing is None:  # middleware within hides where requests go, but not who may read the answers
            gate.routing = FlaskRouting(app)
        app.extensions["apigate"] = gate
        app.wsgi_app = gate  # type: ignore[method-assign]  # as Flask documents it for middleware
        if Throttled not in app.error_handler_spec[None][None]:
            app.register_error_handler(Throttled, _answers(gate.gateway))
        app.cli.add_command(_commands())

    def _gateway_for(self, app: Flask, settings: dict[str, Any]) -> Gateway:  # Any: values of every setting's type
        """The gateway given, or one of the app's own configuration."""
        if self._gateway is None:
            return _configured(app, settings)
        if settings:
            raise ConfigurationError(f"{_keys(settings)}: a gateway was given, so these would be ignored; keep one")
        return self._gateway


def _exempting(app: WSGIApp, gateway: Gateway) -> WSGIApp:
    """The app, for which the decorators of the gateway do nothing."""

    def exempt(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        compiled = CompiledMethod(NO_STAGE, None, (), gateway.identity, Counters())
        context = environ["apigate.context"] = RequestContext(wsgi_request(environ), compiled, gateway.clock.now_us())
        context.exempt = True
        token = current.set(context)
        try:
            return app(environ, start_response)
        finally:
            current.reset(token)

    return exempt


def _answers(gateway: Gateway) -> Callable[[Throttled], Response]:
    """An error handler: what a function called by a view was refused is answered as the gate answers."""

    def answer(error: Throttled) -> Response:
        known = _context().of(gateway.identity)
        if known is None:
            raise error
        return flask_response(current_app, gateway.refuse(known, error))

    return answer


# ---- configuration


def _settings(app: Flask) -> dict[str, Any]:  # Any: values of every setting's type
    """The app's `APIGATE_*` keys, in lower case."""
    keys = cast("Mapping[str, Any]", app.config)
    return {key[len(_PREFIX) :].lower(): value for key, value in keys.items() if key.startswith(_PREFIX)}


def _keys(settings: Iterable[str]) -> str:
    """The keys of the configuration that hold these settings."""
    return ", ".join(sorted(f"{_PREFIX}{name.upper()}" for name in settings))


def _configured(app: Flask, settings: dict[str, Any]) -> Gateway:  # Any: as above
    """A gateway of an app's configuration."""
    known = [name.upper() for name in (*signature(Gateway).parameters, "config", "enabled", "stage")]
    for name in map(str.upper, settings):
        check_settings([name], known, f"{_PREFIX}{name}", RATE_HINTS)
    path = settings.pop("config", None)
    if path is not None:
        objects = {name: settings.pop(name) for name in OBJECTS & settings.keys()}
        if settings:
            raise ConfigurationError(f"{_keys(settings)}: APIGATE_CONFIG names a file with all settings; put it there")
        if not isinstance(path, str | Path):
            raise ConfigurationError(f"APIGATE_CONFIG: {path!r} is not the path of a TOML file")
        return Gateway.from_file(Path(app.root_path) / path, **objects)
    if not settings:
        raise ConfigurationError(
            "Apigate: no gateway was given, and the app's configuration has no APIGATE_* key, such as "
            "APIGATE_CLIENT_THROTTLE = '10/second; burst=20'"
        )
    given = [name for name, value in settings.items() if name in OBJECTS or value is None or not _is_table(value)]
    objects = {name: settings.pop(name) for name in given}
    try:
        return Gateway.from_dict(settings, **objects)
    except ConfigurationError as error:
        words = str(error)
        named = [name for name in (*settings, *objects) if words.startswith(name)]
        raise ConfigurationError(f"{_keys(named) or 'APIGATE_*'}: {words}") from error


def _is_table(value: object) -> bool:
    """Tell whether a value is as a file would have it; a configuration in Python may hold a `Method` or `Stage` too."""
    if isinstance(value, Mapping):
        return all(map(_is_table, cast("Mapping[object, object]", value).values()))
    if isinstance(value, list):
        return all(map(_is_table, cast("list[object]", value)))
    return value is None or isinstance(value, str | int | float)


# ---- the command line


def _commands() -> AppGroup:
    """`flask apigate routes|lint|explain`."""
    import click

    from apigate.audit import audit

    group = AppGroup("apigate", help="See what the gateway around this app does.")

    def gate() -> GatewayMiddleware:
        found: GatewayMiddleware = current_app.extensions["apigate"]
        return found

    @group.command("routes", help="List every stage and method with its limits.")
    def routes() -> None:
        click.echo("\n".join(audit(gate().gateway, list(FlaskRouting(current_app).endpoints()))))

    @group.command("lint", help="Say what is hardly meant; exits with 1 if there is any.")
    @click.option("--connect", is_flag=True, help="Ask each shared store too whether it answers.")
    def lint(connect: bool) -> None:
        findings = gate().gateway.lint(connect=connect)
        for finding in findings:
            click.echo(str(finding))
        if findings:
            raise SystemExit(1)

    @group.command("explain", help="Say what would become of a request, and why.")
    @click.argument("method")
    @click.argument("path")
    @click.option("--address", default="127.0.0.1", show_default=True, help="The peer's address.")
    @click.option("-H", "--header", multiple=True, metavar="'NAME: VALUE'")
    @click.option("--principal", help="Who would be verified to send it, as no authorizer is asked.")
    def explain(method: str, path: str, address: str, header: tuple[str, ...], principal: str | None) -> None:
        from apigate.cli import parsed_address, parsed_headers

        found = gate()
        try:
            headers, peer = parsed_headers(header), parsed_address(address)
            explanation = found.gateway.explain(
                method.upper(), path, headers, address=peer, stage=found.stage, principal=principal
            )
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from error
        click.echo(str(explanation))

    return group
