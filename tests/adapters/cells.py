"""The gateways of the behaviour table, by name, and the hosts that put them around an app.

A host is what a server runs; `Home` says how a gateway comes around its app. Each request names its cell in
`x-cell: name/number`; every number is born fresh, with a clock that stands still, so that no test sees the state of
another. `x-control` moves that clock or asks what the cell has counted; it reaches no gate. `x-do` tells the app what
to do, see `apps`.
"""

import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from apigate import Gateway, GatewayResponse, Method, Rate, Stage
from apigate import asgi as for_asgi
from apigate import wsgi as for_wsgi
from apigate.core.message import Request
from apigate.staging import Header, Host, PathPrefix
from apigate.testing import FakeClock
from tests.adapters import apps

SLOW = Rate(1, per=10, burst=2)


class Home(NamedTuple):
    """Where the gateways of a host live.

    Attributes:
        protocol: What the app speaks.
        app: Makes an app with the gateway as it is at home there, or without one. `mark` decorates the endpoint
            `/pets/{id}`, or the whole app where there are no endpoints.
        around: Puts a further gateway around that.
    """

    protocol: str
    app: Callable[..., Any]
    around: Callable[..., Any]


class Cell:
    """One composition of gates around an app, with the clock and the counters it goes by."""

    def __init__(self, name: str, home: Home) -> None:
        self.clock = FakeClock()
        self.events: list[Any] = []
        self.gateways: list[Gateway] = []
        self.ledger = apps.Ledger()
        self.home = home
        self.entry = CELLS[name](self)

    def gateway(self, **settings: Any) -> Gateway:
        gateway = Gateway(clock=self.clock, client=who, on_event=self.events.append, **settings)
        self.gateways.append(gateway)
        return gateway

    def gate(self, *, stage: str | None = None, **settings: Any) -> Any:
        """The app with a new gateway of these settings."""
        return self.home.app(self.gateway(**settings), stage=stage)

    def marked(self, per: str, **settings: Any) -> Any:
        """The same with a decorator on the endpoint."""
        gateway = self.gateway(**settings)
        return self.home.app(gateway, mark=gateway.throttle(SLOW, per=per))

    def control(self, command: str) -> bytes:
        verb, _, value = command.partition(":")
        if verb == "advance":
            self.clock.advance(float(value))
        return json.dumps(self.report()).encode()

    def report(self) -> dict[str, Any]:
        slots = [slots for gateway in self.gateways for slots in gateway._compiler._slots.values()]
        return {
            "stats": [counted(gateway) for gateway in self.gateways],
            "held": sum(sum(each.held.values()) for each in slots),
            "events": [type(event).__name__ for event in self.events],
            **self.ledger.counts(),
        }


def counted(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """The counts of a gateway, without the methods that nobody has asked for."""
    return {
        stage: {name: counts for name, counts in methods.items() if counts}
        for stage, methods in gateway.stats().items()
    }


def who(request: Request) -> str | None:
    """Whom a test says it is; over a real server every client has the same address."""
    return request.headers.get("x-client")


def twice(cell: Cell) -> Any:
    gateway = cell.gateway(throttle=SLOW, in_flight=1)
    return cell.home.around(cell.home.app(gateway), gateway)


def by_first_segment(cell: Cell) -> Any:
    """One gateway around two apps: `/left` and everything else."""
    gateway = cell.gateway(throttle=SLOW)
    left, right = cell.home.app(gateway), cell.home.app(gateway)
    if cell.home.protocol == "wsgi":
        return lambda environ, start: (left if environ["PATH_INFO"] == "/left" else right)(environ, start)
    return lambda scope, receive, send: (left if scope["path"] == "/left" else right)(scope, receive, send)


def stages(*names: str) -> list[Stage]:
    return [Stage(name, throttle=SLOW, variables={"table": f"pets-{name}"}) for name in names]


CELLS: dict[str, Callable[[Cell], Any]] = {
    "bare": lambda cell: cell.home.app(),
    "empty": lambda cell: cell.gate(),
    "global": lambda cell: cell.gate(throttle=SLOW),
    "stage": lambda cell: cell.gate(stages=[Stage("prod", throttle=SLOW)]),
    "method": lambda cell: cell.gate(methods={"GET /pets/{id}": Method(throttle=SLOW)}),
    "client": lambda cell: cell.gate(client_throttle=SLOW),
    "client-method": lambda cell: cell.gate(methods={"GET /pets/{id}": Method(client_throttle=SLOW)}),
    "all-levels": lambda cell: cell.gate(
        throttle=Rate(1, per=10, burst=5),
        stages=[
            Stage(
                "prod",
                throttle=Rate(1, per=10, burst=4),
                client_throttle=Rate(1, per=10, burst=3),
                methods={"*": Method(throttle=Rate(1, per=10, burst=2), client_throttle=Rate(1, per=20, burst=2))},
            )
        ],
    ),
    "unmatched": lambda cell: cell.gate(methods={"*": Method(throttle=SLOW), "GET /known": Method(throttle=None)}),
    "cafe": lambda cell: cell.gate(methods={"GET /café": Method(throttle=SLOW)}),
    "exempt": lambda cell: cell.gate(throttle=SLOW, methods={"GET /health": Method(exempt=True)}),
    "amazon": lambda cell: cell.gate(throttle=SLOW, error_format="amazon"),
    "custom": lambda cell: cell.gate(
        throttle=SLOW,
        responses={
            "THROTTLED": GatewayResponse(
                status=420, headers={"Retry-After": "99", "X-Why": "calm"}, body="Calm", content_type="text/plain"
            )
        },
    ),
    "draft-07": lambda cell: cell.gate(throttle=SLOW, rate_limit="draft-07"),
    "draft-06": lambda cell: cell.gate(throttle=SLOW, rate_limit="draft-06"),
    "no-fields": lambda cell: cell.gate(throttle=SLOW, rate_limit=None),
    "shadow": lambda cell: cell.gate(throttle=SLOW, modes={"global": "shadow"}),
    "refund": lambda cell: cell.gate(methods={"POST /login": Method(client_throttle=SLOW, refund="2xx", in_flight=50)}),
    "refund-5xx": lambda cell: cell.gate(methods={"*": Method(throttle=SLOW, refund="5xx", in_flight=50)}),
    "in-flight": lambda cell: cell.gate(in_flight=1),
    "in-flight-client": lambda cell: cell.gate(client_in_flight=1),
    "in-flight-throttled": lambda cell: cell.gate(throttle=SLOW, in_flight=50),
    "context": lambda cell: cell.gate(
        stages=[
            Stage(
                "prod", throttle=SLOW, variables={"table": "pets"}, methods={"GET /pets/{id}": Method(throttle="5/s")}
            )
        ]
    ),
    "context-fixed": lambda cell: cell.gate(stages=stages("prod", "beta"), stage="beta"),
    "by-path": lambda cell: cell.gate(stages=stages("prod", "beta"), stage_by=PathPrefix()),
    "by-host": lambda cell: cell.gate(stages=stages("prod"), stage_by=Host({"api.example": "prod"})),
    "by-header": lambda cell: cell.gate(stages=stages("prod", "beta"), stage_by=Header("x-stage", default="prod")),
    "twice": twice,
    "two-gateways": lambda cell: cell.home.around(cell.gate(throttle=SLOW), cell.gateway(throttle=SLOW)),
    "two-apps": by_first_segment,
    "marked": lambda cell: cell.marked("method"),
    "marked-client": lambda cell: cell.marked("client"),
    "marked-global": lambda cell: cell.marked("method", throttle=Rate(1, per=1_000, burst=4)),
}


class Cells:
    """The cells of one host, each made at its first request."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._known: dict[str, Cell] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Cell:
        with self._lock:
            cell = self._known.get(name)
            if cell is None:
                cell = self._known[name] = Cell(name.partition("/")[0], self._home)
        return cell


def plain(protocol: str, middleware: Any, app: Any) -> Home:
    """A home of no framework."""

    def gated(gateway: Gateway | None = None, *, stage: str | None = None, mark: apps.Mark = apps.unmarked) -> Any:
        return mark(app) if gateway is None else middleware(mark(app), gateway, stage=stage)

    return Home(protocol, gated, middleware)


def asgi_host_of(home: Home, lifespan: Any) -> Any:
    """What uvicorn runs; `lifespan` is the app that is told of start and end."""
    cells = Cells(home)

    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        cell = cells[headers[b"x-cell"]]
        if command := headers.get(b"x-control"):
            await apps.answer(send, 200, cell.control(command))
            return
        scope["test.ledger"] = cell.ledger
        await cell.entry(scope, receive, send)

    return host


def wsgi_host_of(home: Home) -> Any:
    """What gunicorn runs."""
    cells = Cells(home)

    def host(environ: Any, start_response: Any) -> Any:
        cell = cells[environ["HTTP_X_CELL"]]
        if command := environ.get("HTTP_X_CONTROL"):
            body = cell.control(command)
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
        environ["test.ledger"] = cell.ledger
        return cell.entry(environ, start_response)

    return host


def asgi_host() -> Any:
    """No framework at all."""
    lifespan = for_asgi.GatewayMiddleware(apps.asgi_lifespan, Gateway(throttle="1/day"))
    return asgi_host_of(plain("asgi", for_asgi.GatewayMiddleware, apps.asgi_app), lifespan)


def wsgi_host() -> Any:
    """No framework at all."""
    return wsgi_host_of(plain("wsgi", for_wsgi.GatewayMiddleware, apps.wsgi_app))
