"""The gateway at home in Flask: the extension `Apigate`, and the request `context`.

Configuration, read in `init_app` where no gateway is given: `APIGATE_CONFIG` (a TOML file, relative to the app's root),
and any setting of `Gateway` in capitals, such as `APIGATE_CLIENT_THROTTLE`. `APIGATE_STAGE` fixes the stage;
`APIGATE_ENABLED = False` leaves the app as it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, final

from flask import Flask, Response, current_app, request
from flask.cli import AppGroup
from werkzeug.local import LocalProxy

from apigate.core.context import RequestContext
from apigate.core.errors import ConfigurationError
from apigate.core.native import wsgi_request
from apigate.gateway import Gateway, empty_context
from apigate.routing.flask import FlaskRouting, flask_response
from apigate.throttling.decision import Throttled
from apigate.wsgi import GatewayMiddleware

__all__ = ["Apigate", "context"]

_PREFIX = "APIGATE_"


def _context() -> RequestContext:
    """The context of the request being served."""
    found = request.environ.get("apigate.context")
    return found if isinstance(found, RequestContext) else empty_context(wsgi_request(request.environ))


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
        if app is not None and not isinstance(app, Flask):
            raise ConfigurationError(f"Apigate: {app!r} is not a Flask app; Apigate(app, gateway)")
        if gateway is not None and not isinstance(gateway, Gateway):
            raise ConfigurationError(f"Apigate: {gateway!r} is not a Gateway; Apigate(app, gateway)")
        self._gateway = gateway
        self._stage = stage
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the gateway around an app.

        Args:
            app: The app. Routes and blueprints may be added before and after.

        Raises:
            ConfigurationError: The configuration cannot be used, or the app has a gateway already.
        """
        settings = _settings(app)
        if "apigate" in app.extensions:
            raise ConfigurationError(f"Apigate: the app {app.name!r} has a gateway already")
        if settings.pop("enabled", True) is False:
            return
        stage = settings.pop("stage", None) if self._stage is None else self._stage
        settings.pop("stage", None)
        gateway = self._gateway
        if gateway is None:
            gateway = _configured(app, settings)
        elif settings:
            names = ", ".join(sorted(f"{_PREFIX}{name.upper()}" for name in settings))
            raise ConfigurationError(f"{names}: the app was given a gateway, so these would be ignored; keep one")
        gate = GatewayMiddleware(app.wsgi_app, gateway, stage=stage)
        app.extensions["apigate"] = gate
        app.wsgi_app = gate  # type: ignore[method-assign]  # as Flask documents it for middleware
        app.register_error_handler(Throttled, _answers(gateway))
        app.cli.add_command(_commands())


def _answers(gateway: Gateway) -> Callable[[Throttled], Response]:
    """An error handler: what a function called by a view was refused is answered as the gate answers."""

    def answer(error: Throttled) -> Response:
        known = _context().of(gateway.identity)
        if known is None:
            raise error
        return flask_response(current_app, gateway.refuse(known, error))

    return answer


def _settings(app: Flask) -> dict[str, Any]:  # Any: values of every setting's type
    """The app's `APIGATE_*` keys, in lower case."""
    return {name[len(_PREFIX) :].lower(): value for name, value in app.config.items() if name.startswith(_PREFIX)}


def _configured(app: Flask, settings: dict[str, Any]) -> Gateway:
    """A gateway from an app's configuration."""
    path = settings.pop("config", None)
    if path is not None:
        if settings:
            names = ", ".join(sorted(f"{_PREFIX}{name.upper()}" for name in settings))
            raise ConfigurationError(f"{names}: APIGATE_CONFIG names a file with all settings; put them there")
        return Gateway.from_file(Path(app.root_path) / path)
    if not settings:
        raise ConfigurationError(
            "Apigate: no gateway was given, and the app's configuration has no APIGATE_* key, such as "
            "APIGATE_CLIENT_THROTTLE = '10/second; burst=20'"
        )
    objects = {name: settings.pop(name) for name in ("client", "clock", "on_event", "policies") if name in settings}
    try:
        return Gateway.from_dict(settings, **objects)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_PREFIX}*: {error}") from error


def _commands() -> AppGroup:
    """`flask apigate routes|lint|explain`."""
    import click

    from apigate.audit import audit

    group = AppGroup("apigate", help="See what the gateway around this app does.")

    def gateway() -> Gateway:
        gate: GatewayMiddleware = current_app.extensions["apigate"]
        return gate.gateway

    @group.command("routes", help="List every stage and method with its limits.")
    def routes() -> None:
        click.echo("\n".join(audit(gateway(), list(FlaskRouting(current_app).endpoints()))))

    @group.command("lint", help="Say what is hardly meant; exits with 1 if there is any.")
    def lint() -> None:
        findings = gateway().lint()
        for finding in findings:
            click.echo(str(finding))
        if findings:
            raise SystemExit(1)

    @group.command("explain", help="Say what would become of a request, and why.")
    @click.argument("method")
    @click.argument("path")
    @click.option("--address", default="127.0.0.1", show_default=True, help="The peer's address.")
    @click.option("-H", "--header", multiple=True, metavar="'NAME: VALUE'")
    def explain(method: str, path: str, address: str, header: tuple[str, ...]) -> None:
        from apigate.cli import parsed_headers

        click.echo(str(gateway().explain(method, path, parsed_headers(header), address=address)))

    return group
