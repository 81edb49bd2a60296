"""The command line: `apigate demo | run | routes | lint | explain`.

Rule: what was asked for goes to stdout; what went wrong goes to stderr as one line, and the status is 2. Each command
imports what only it needs, so that the others load no server.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, iscoroutinefunction, signature
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from apigate import __version__
from apigate.audit import audit
from apigate.core.endpoints import Endpoint
from apigate.core.errors import ApigateError, ConfigurationError
from apigate.core.loading import load
from apigate.core.names import printable
from apigate.gateway import Gateway
from apigate.routing import routing_of

if TYPE_CHECKING:
    from apigate.asgi import ASGIApp
    from apigate.demo.frameworks import Framework
    from apigate.wsgi import WSGIApp

__all__ = ["main"]

_FOUND = 1
_FAILED = 2
_INTERRUPTED = 130  # as a shell reports a process that SIGINT ended

_AddParser: TypeAlias = Callable[..., argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; None for those of this process.

    Returns:
        The exit status: 0 if all is well; 1 if the demo did not go as configured, or `lint` found something; 2 if the
        command could not be carried out, and stderr says why.

    Raises:
        SystemExit: The arguments are no command (2), or ask for help or the version (0).
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
    except ApigateError as error:
        print(f"apigate: {error}", file=sys.stderr)
        return _FAILED
    except BrokenPipeError:  # who reads us, such as `head`, has had enough; the interpreter must not flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="apigate", description="The API gateway that you import.")
    parser.add_argument("--version", action="version", version=f"apigate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_run, _add_routes, _add_lint, _add_explain):
        add(commands.add_parser)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, which is a number from 0 to 65535")
    return int(text)


def _is_coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ  # https://no-color.org


# ---- demo


def _add_demo(add_parser: _AddParser) -> None:
    summary = "Serve a pet store behind a gateway, to try by hand; or show what becomes of real requests to it."
    parser = add_parser("demo", help="see a gateway at work", description=summary)
    parser.add_argument("--once", action="store_true", help="send it requests, show what came back, and stop")
    parser.add_argument("--port", type=_port, help="where to listen; default 8000, with --once any that is free")
    parser.add_argument(
        "--framework",
        choices=["plain", "flask", "fastapi", "django"],
        default="plain",
        help="what the store is written in; default %(default)s, which is ASGI; others need the extra `demo`",
    )
    parser.add_argument(
        "--store",
        default="memory://",
        metavar="ADDRESS",
        help="where buckets are kept, as file:///tmp/pets.state or redis://localhost:6379/0: several demos with one "
        "address share their limits; default %(default)s; --once has one of its own",
    )
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from apigate.demo.frameworks import FRAMEWORKS

    framework = FRAMEWORKS[arguments.framework]
    framework.require()
    if not arguments.once:
        return _serve_demo(framework, 8000 if arguments.port is None else arguments.port, arguments.store)
    from apigate.demo.cached import TourClock
    from apigate.demo.report import introduction, report
    from apigate.demo.settings import demo_gateway
    from apigate.demo.tour import share_a_limit, take_tour

    print(introduction(framework), flush=True)
    tour = take_tour(demo_gateway("day", clock=TourClock()), arguments.port or 0, framework)
    tour = tour._replace(shared=share_a_limit(framework))
    print(report(tour, colour=_is_coloured()), end="")
    return 0 if tour.ok else _FOUND


def _serve_demo(framework: "Framework", port: int, store: str) -> int:
    from apigate.demo.server import HOST, listening, serve
    from apigate.demo.settings import demo_gateway, invitation

    gateway = demo_gateway(store=store)
    with listening(port) as listener:
        print(invitation(f"http://{HOST}:{listener.getsockname()[1]}", framework, store), flush=True)
        serve(framework.create_app(gateway), listener, framework.server)
    return 0


# ---- run


def _add_run(add_parser: _AddParser) -> None:
    parser = add_parser(
        "run",
        help="serve an app behind a gateway",
        description="Serve an app behind a gateway, in one process: an ASGI app with uvicorn (extra `server`); a WSGI "
        "app with wsgiref of the standard library, a thread for each connection, which is for development only. In "
        "production put GatewayMiddleware around the app and take the server of your choice. The peer's address is "
        "taken as it is; proxies in front are declared by trusted_hops in the settings, and nowhere else.",
    )
    parser.add_argument("app", metavar="module:app", help="the app; its module may be in the current folder")
    parser.add_argument("--config", required=True, metavar="FILE", help="the gateway's settings, as apigate.toml")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; default %(default)s")
    parser.add_argument("--port", type=_port, default=8000, help="default %(default)s; 0 for any that is free")
    parser.add_argument("--interface", choices=["auto", "asgi", "wsgi"], default="auto", help="default %(default)s")
    parser.add_argument("--stage", help="the stage, where the settings have several and no stage_by")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    gateway = _from_file(arguments.config)
    app = _load(arguments.app)
    _tell_of_own_gate(app, arguments)
    interface = arguments.interface
    if interface == "auto":
        interface = _interface(arguments.app, app)
    serve = _serve_asgi if interface == "asgi" else _serve_wsgi
    return serve(app, gateway, arguments)


def _tell_of_own_gate(app: object, arguments: argparse.Namespace) -> None:
    """Say that every request passes two gates, which is hardly meant."""
    try:
        own = _gateway_around(app)
    except ConfigurationError:  # Django's settings name none
        return
    if own is not None:
        print(
            f"apigate: {arguments.app} has a gate of its own, of the gateway {own[0].name!r}; requests pass that of "
            f"{arguments.config} first, and then that too",
            file=sys.stderr,
        )


def _interface(name: str, app: object) -> str:
    """Which of the two an app speaks: `asgi` if calling it gives a coroutine, else told by its parameters."""
    if not callable(app):
        raise ConfigurationError(f"{name} is a {type(app).__name__}, not an app: it cannot be called")
    call: object = app if hasattr(app, "__code__") else getattr(app, "__call__")  # noqa: B004, B009 - to look at it
    if iscoroutinefunction(app) or iscoroutinefunction(call):
        return "asgi"
    found = {2: "wsgi", 3: "asgi"}.get(_parameters(app))
    if found is None:
        raise ConfigurationError(f"{name}: cannot tell whether it is an ASGI or a WSGI app; say it with --interface")
    return found


def _parameters(function: Callable[..., object]) -> int:
    """How many positional parameters must be given; 0 where that cannot be known."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional and parameter.default is Parameter.empty for parameter in parameters)


def _serve_asgi(app: "ASGIApp", gateway: Gateway, arguments: argparse.Namespace) -> int:
    from apigate.asgi import GatewayMiddleware
    from apigate.demo.frameworks import PLAIN

    PLAIN.require()
    import uvicorn

    gated = GatewayMiddleware(app, gateway, stage=arguments.stage)
    try:
        # Left on, proxy_headers would let every local client choose the address that it is counted under. Without
        # workers=1 uvicorn would follow WEB_CONCURRENCY, and start none, as this app has no name to import it by.
        uvicorn.run(gated, host=arguments.host, port=arguments.port, proxy_headers=False, workers=1)
    except SystemExit:  # the start failed, and uvicorn has said why
        return _FAILED
    return 0


def _serve_wsgi(app: "WSGIApp", gateway: Gateway, arguments: argparse.Namespace) -> int:
    import signal
    from socket import AF_INET, AF_INET6
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    from apigate.wsgi import GatewayMiddleware

    class Server(ThreadingMixIn, WSGIServer):
        address_family = AF_INET6 if ":" in arguments.host else AF_INET
        daemon_threads = True
        request_queue_size = 128  # of connections; the default of 5 refuses a small burst before we see it

    gated: Any = GatewayMiddleware(app, gateway, stage=arguments.stage)  # Any: typeshed has its own WSGI types
    try:
        server = make_server(arguments.host, arguments.port, gated, server_class=Server)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {arguments.host}, port {arguments.port}: {error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the first process of a container has no default for it
    with server:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"wsgiref serves on http://{host}:{server.server_port} (for development; Ctrl-C stops it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


# ---- routes

_TARGET = "the gateway's settings, as apigate.toml; or a Gateway, or an app with one around it"


def _add_routes(add_parser: _AddParser) -> None:
    parser = add_parser(
        "routes",
        help="list every stage and method with its limits",
        description="List every stage and method with its levels, rates and modes, and what takes from no level.",
    )
    parser.add_argument("app", metavar="FILE|module:app", nargs="?", help=f"{_TARGET}; not needed with --config")
    parser.add_argument("--config", metavar="FILE", help="list the gateway of this file instead, as `run` uses it")
    parser.set_defaults(command=_routes)


def _routes(arguments: argparse.Namespace) -> int:
    app: str | None = arguments.app
    config: str | None = arguments.config
    if app is not None and config is None and _is_file(app):
        app, config = None, app
    found: object = None if app is None else _load(app)  # with --config too: it shows whether `run` could serve it
    if config is not None:
        gateway = _from_file(config)
    elif app is not None:
        gateway, _ = _gateway(app, found)
    else:
        raise ConfigurationError("routes: name a gateway, such as shop:gateway, or a file with --config")
    for lines in audit(gateway, _endpoints(found)):
        print(*map(printable, lines.split("\n")), sep="\n")
    return 0


def _endpoints(found: object) -> list[Endpoint]:
    """The endpoints of an app, where its framework tells them."""
    routing = routing_of(found)
    return [] if routing is None else list(routing.endpoints())


def _gateway(name: str, found: object) -> tuple[Gateway, str | None]:
    """The gateway that was named, or the one around the app that was named, and the stage that is fixed there."""
    known = _gateway_around(found)
    if known is None:
        raise ConfigurationError(
            f"{name} is a {type(found).__name__}, neither a Gateway nor an app that one stands around; name the "
            f"gateway itself, such as shop:gateway"
        )
    return known


def _gateway_around(found: Any) -> tuple[Gateway, str | None] | None:  # Any: whatever a user's module holds
    """What is a gateway, or the one around what is an app, and the stage that is fixed there; None where none is."""
    gates: list[Any] = [found, getattr(found, "extensions", {}).get("apigate")]  # itself, Flask
    candidates: list[tuple[object, str | None]] = [(found, None)]
    candidates += [(getattr(gate, "gateway", None), getattr(gate, "stage", None)) for gate in gates]
    layers: list[Mapping[str, Any]] = [each.kwargs for each in getattr(found, "user_middleware", ())]  # Starlette
    candidates += [(layer.get("gateway"), layer.get("stage")) for layer in layers]
    if type(found).__module__.startswith("django.core.handlers"):
        from apigate.django import gateway_of_settings

        candidates.append(gateway_of_settings())
    for gateway, stage in candidates:
        if isinstance(gateway, Gateway):
            return gateway, stage
    return None


# ---- lint, explain


def _add_lint(add_parser: _AddParser) -> None:
    summary = "Say what is allowed in a gateway's settings and yet hardly meant. Exits with 1 if there is any."
    parser = add_parser("lint", help="find what is hardly meant", description=summary)
    parser.add_argument("target", metavar="FILE|module:app", help=_TARGET)
    parser.add_argument("--connect", action="store_true", help="ask each shared store too whether it answers")
    parser.set_defaults(command=_lint)


def _lint(arguments: argparse.Namespace) -> int:
    gateway, _ = _gateway_at(arguments.target)
    findings = gateway.lint(connect=arguments.connect)
    for finding in findings:
        print(finding)
    print(f"{arguments.target}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
    return _FOUND if findings else 0


def _add_explain(add_parser: _AddParser) -> None:
    summary = (
        "Say what would become of a request, and why; where the store is memory, as if every bucket were full. "
        "No request is sent."
    )
    parser = add_parser("explain", help="say what would become of a request", description=summary)
    parser.add_argument("target", metavar="FILE|module:app", help=_TARGET)
    parser.add_argument("method", type=str.upper, metavar="METHOD", help="the verb, such as GET, in either letter case")
    parser.add_argument("path", metavar="PATH", help="the path, such as /pets/1, or the whole URL")
    parser.add_argument("-H", "--header", metavar="'NAME: VALUE'", action="append", default=[], help="may be repeated")
    parser.add_argument("--address", default="127.0.0.1", help="the peer's address; default %(default)s")
    parser.add_argument("--stage", help="the stage, where the settings have several and no stage_by")
    parser.add_argument("--principal", help="who would be verified to send it, as no authorizer is asked")
    parser.set_defaults(command=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    gateway, fixed = _gateway_at(arguments.target)
    headers, address = parsed_headers(arguments.header), parsed_address(arguments.address)
    stage, principal = arguments.stage or fixed, arguments.principal
    explanation = gateway.explain(
        arguments.method, arguments.path, headers, address=address, stage=stage, principal=principal
    )
    print(explanation)
    return 0


def _gateway_at(target: str) -> tuple[Gateway, str | None]:
    """The gateway of a file, or the one that `module:app` names, bound to the app's routes; and the stage fixed there.

    Starlette puts its middleware around the app at the first request only, and here none comes.
    """
    if _is_file(target):
        return _from_file(target), None
    found = _load(target)
    gateway, stage = _gateway(target, found)
    if not gateway.bound and (routing := routing_of(found)) is not None:
        gateway.bind(found, routing)
    return gateway, stage


def parsed_address(text: str) -> str:
    """An IP address, if it is one."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigurationError(f"--address {text!r} is not an address, such as 192.0.2.1 or 2001:db8::1") from None


def _is_file(target: str) -> bool:
    """Tell whether an argument is the settings' file, and not `module:app`; whatever file is there is meant."""
    return target.endswith(".toml") or Path(target).exists()


def parsed_headers(texts: Sequence[str]) -> dict[str, str]:
    """Fields by name; several of one name become one, joined by commas (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = (part.strip() for part in text.partition(":"))
        if not name or not colon:
            raise ConfigurationError(f"-H {text!r} is not a header; write it as 'x-api-key: secret'")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


# ---- what the arguments name


def _load(target: str) -> Any:  # Any: whatever stands there
    """What `module:name` names.

    Raises:
        ConfigurationError: There is no such thing, or importing its module failed.
    """
    _import_from_here()
    return load(target)


def _from_file(path: str) -> Gateway:
    """The gateway of a file, which may name functions of modules.

    Raises:
        ConfigurationError: As `Gateway.from_file`.
    """
    _import_from_here()
    return Gateway.from_file(path)


def _import_from_here() -> None:
    """Find modules in the current folder too."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
