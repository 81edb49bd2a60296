"""The WSGI gate alone, between two validators of PEP 3333: what it hands on untouched, and what it closes."""

import io
import sys
from collections.abc import Iterator
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from apigate import Gateway, GatewayResponse, Method, Rate, Stage, Throttled
from apigate.core.context import current_context
from apigate.core.policy import Phase
from apigate.staging import PathPrefix
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware
from tests.adapters.apps import throttled

OWN = [("Content-Type", "text/plain"), ("X-App", "yes")]
FIELDS = [("RateLimit-Policy", '"global";q=2;w=20'), ("RateLimit", '"global";r=1;t=10')]


def slow(**settings: Any) -> Gateway:
    return Gateway(throttle=Rate(1, per=10, burst=2), clock=FakeClock(), **settings)


WATCHED = pytest.mark.parametrize("limits", [{}, {"in_flight": 1}], ids=["bare body", "watched body"])


def held(gateway: Gateway) -> int:
    return sum(sum(slots.held.values()) for slots in gateway._compiler._slots.values())


def environ_of(path="/", **changes: Any) -> dict[str, Any]:
    given = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "REMOTE_ADDR": "192.0.2.1"}
    environ: dict[str, Any] = {**given, **changes}
    setup_testing_defaults(environ)
    return environ


class Server:
    """Runs an app as PEP 3333 has a server do it, and keeps all it was given."""

    def __init__(self, app: Any, environ: dict[str, Any], most: int | None = None) -> None:
        self.starts: list[tuple[Any, ...]] = []
        self.out: list[bytes] = []
        self.body = app(environ, self.start_response)
        try:
            for number, chunk in enumerate(self.body, start=1):
                self.out.append(chunk)
                if number == most:  # the client has left
                    break
        finally:
            if hasattr(self.body, "close"):
                self.body.close()

    def start_response(self, *given: Any) -> Any:
        if self.starts and len(given) < 3:
            raise AssertionError("started twice")
        self.starts.append(given)
        if len(given) == 3 and self.out:
            raise given[2][1]
        return self.out.append

    @property
    def status(self) -> str:
        return self.starts[-1][0]

    @property
    def headers(self) -> list[tuple[str, str]]:
        return self.starts[-1][1]


class Chunks:
    """A body that knows what was done with it."""

    def __init__(self, *chunks: bytes, error: Exception | None = None, close_error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.close_error = close_error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error


def giving(body: Any, status: str = "200 OK", headers: Any = None) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, OWN if headers is None else headers)
        return body

    return app


# ---- the standard library's validator on both sides


def as_list(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", list(OWN))
    return [b"hel", b"lo"]


def as_generator(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", list(OWN))
    yield b"hello"


def by_write(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", list(OWN))
    write(b"hel")
    write(b"lo")
    return []


def begun_anew(environ: Any, start_response: Any) -> Any:
    start_response("500 Oops", list(OWN))
    try:
        raise ValueError("found out late")  # noqa: TRY301 - it must be raised to have a traceback
    except ValueError:
        start_response("200 OK", list(OWN), sys.exc_info())
    return [b"hello"]


GATEWAYS = {
    "empty": Gateway,
    "throttle": slow,
    "in flight": lambda: slow(in_flight=5),
    "stage in the path": lambda: Gateway(stages=[Stage("prod", throttle="9/s")], stage_by=PathPrefix()),
}
SHAPES = pytest.mark.parametrize("app", [as_list, as_generator, by_write, begun_anew])


def written(app: Any, environ: dict[str, Any]) -> tuple[str, bytes]:
    """What the standard library's own server would write."""
    out, errors = io.BytesIO(), io.StringIO()
    handler = SimpleHandler(io.BytesIO(), out, errors, environ)
    handler.run(app)
    head, _, body = out.getvalue().partition(b"\r\n\r\n")
    assert not errors.getvalue(), errors.getvalue()
    return head.decode("latin-1"), body


@SHAPES
@pytest.mark.parametrize("gateway", GATEWAYS.values(), ids=GATEWAYS)
def test_the_gate_is_valid_towards_server_and_app(gateway, app):
    gate = validator(GatewayMiddleware(validator(app), gateway()))
    head, body = written(gate, environ_of("/prod/pets"))
    assert head.startswith("HTTP/1.0 200 OK\r\n")
    assert body == b"hello"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_refusal_is_valid_towards_the_server(method):
    gateway = slow()
    gate = validator(GatewayMiddleware(as_list, gateway))
    for _ in range(2):
        written(gate, environ_of())
    head, body = written(gate, environ_of(REQUEST_METHOD=method))
    assert head.startswith("HTTP/1.0 429 Too Many Requests\r\n")
    assert (body == b"") is (method == "HEAD")


# ---- start_response


@WATCHED
def test_the_apps_own_list_of_fields_is_not_changed(limits):
    own = list(OWN)
    server = Server(GatewayMiddleware(giving([b"x"], headers=own), slow(**limits)), environ_of())
    assert server.headers == OWN + FIELDS
    assert own == OWN


def test_a_start_that_gets_no_field_is_handed_on_as_it_is():
    own = list(OWN)
    server = Server(GatewayMiddleware(giving([b"x"], headers=own), Gateway(in_flight=1)), environ_of())
    assert server.starts == [("200 OK", own)]
    assert server.headers is own


@WATCHED
def test_an_app_that_begins_anew_hands_its_exception_on_and_the_fields_are_there_once(limits):
    server = Server(GatewayMiddleware(begun_anew, slow(**limits)), environ_of())
    first, second = server.starts
    assert first == ("500 Oops", OWN + FIELDS)
    assert second[:2] == ("200 OK", OWN + FIELDS)
    assert isinstance(second[2][1], ValueError)
    assert second[2][2] is second[2][1].__traceback__


@WATCHED
def test_an_app_that_begins_anew_too_late_gets_its_exception_back_from_the_server(limits):
    error = ValueError("half-way")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(OWN))
        yield b"half"
        try:
            raise error
        except ValueError:
            start_response("500 Oops", list(OWN), sys.exc_info())

    gateway = slow(**limits)
    with pytest.raises(ValueError, match="half-way") as caught:
        Server(GatewayMiddleware(app, gateway), environ_of())
    assert caught.value is error
    assert held(gateway) == 0


@WATCHED
def test_the_app_writes_with_the_servers_own_function(limits):
    given = []

    def app(environ: Any, start_response: Any) -> Any:
        given.append(start_response("200 OK", list(OWN)))
        return []

    def start_response(*_: Any) -> Any:
        return print

    GatewayMiddleware(app, slow(**limits))(environ_of(), start_response)
    assert given == [print]


def test_a_generator_starts_its_response_when_it_is_iterated_and_not_before():
    starts = []
    body = GatewayMiddleware(as_generator, slow(in_flight=1))(environ_of(), lambda *given: starts.append(given))
    assert starts == []
    assert next(iter(body)) == b"hello"
    assert starts == [("200 OK", OWN + FIELDS)]
    body.close()


# ---- the body


def test_without_anything_to_watch_the_apps_own_body_goes_to_the_server():
    body = Chunks(b"x")
    server = Server(GatewayMiddleware(giving(body), slow()), environ_of())
    assert server.body is body
    assert body.closed == 1


@pytest.mark.parametrize("most", [None, 1], ids=["read to its end", "left early"])
@WATCHED
def test_a_body_is_closed_once(limits, most):
    gateway = slow(**limits)
    body = Chunks(b"one", b"two", b"three")
    server = Server(GatewayMiddleware(giving(body), gateway), environ_of(), most)
    assert len(server.out) == (most or 3)
    assert (body.closed, held(gateway)) == (1, 0)


@WATCHED
def test_a_generator_is_closed_once_and_runs_its_end_when_the_client_leaves(limits):
    ends = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(OWN))
        try:
            yield b"one"
            yield b"two"
        finally:
            ends.append("closed")

    gateway = slow(**limits)
    Server(GatewayMiddleware(app, gateway), environ_of(), most=1)
    assert ends == ["closed"]
    assert held(gateway) == 0


@WATCHED
def test_a_body_that_nobody_reads_is_closed_all_the_same(limits):
    gateway = slow(**limits)
    body = Chunks(b"x")
    GatewayMiddleware(giving(body), gateway)(environ_of(), lambda *_: None).close()
    assert (body.closed, held(gateway)) == (1, 0)


@WATCHED
def test_a_body_that_breaks_is_closed_once_and_its_exception_is_the_servers(limits):
    gateway = slow(**limits)
    error = RuntimeError("half-way")
    body = Chunks(b"half", error=error)
    with pytest.raises(RuntimeError) as caught:
        Server(GatewayMiddleware(giving(body), gateway), environ_of())
    assert caught.value is error
    assert (body.closed, held(gateway)) == (1, 0)


@WATCHED
def test_a_close_that_breaks_frees_the_slot_and_its_exception_is_the_servers(limits):
    gateway = slow(**limits)
    with pytest.raises(RuntimeError, match="in close"):
        Server(GatewayMiddleware(giving(Chunks(close_error=RuntimeError("in close"))), gateway), environ_of())
    assert held(gateway) == 0


def test_closing_twice_frees_one_slot_once():
    gateway = Gateway(in_flight=2)
    gate = GatewayMiddleware(giving(Chunks(b"x")), gateway)
    first, second = (gate(environ_of(), lambda *_: None) for _ in range(2))
    first.close()
    first.close()
    assert held(gateway) == 1
    second.close()


def test_a_body_that_is_closed_twice_is_completed_once():
    completions = Completions()
    body = GatewayMiddleware(as_list, Gateway(policies=[completions]))(environ_of(), lambda *_: None)
    body.close()
    body.close()
    assert completions.statuses == [200]


class Completions:
    """A policy that notes each completion it hears of."""

    phase = Phase.THROTTLE

    def __init__(self) -> None:
        self.statuses: list[int | None] = []

    def on_complete(self, context: Any, status: int | None) -> None:
        self.statuses.append(status)


def broken(environ: Any, start_response: Any) -> Any:
    raise RuntimeError("broken")


def broken_generator(environ: Any, start_response: Any) -> Any:
    raise RuntimeError("broken")
    yield


@pytest.mark.parametrize(
    ("app", "status"),
    [
        (as_list, 200),
        (as_generator, 200),
        (by_write, 200),
        (begun_anew, 200),
        (giving(Chunks(b"half", error=RuntimeError("broken"))), 200),
        (broken, 500),
        (broken_generator, 500),
    ],
    ids=["list", "generator", "write", "begun anew", "breaks half-way", "breaks", "generator breaks"],
)
def test_a_request_is_completed_once_however_it_ends(app, status):
    completions = Completions()
    gate = GatewayMiddleware(app, Gateway(policies=[completions]))
    try:
        Server(gate, environ_of())
    except RuntimeError:
        assert app not in (as_list, as_generator)
    assert completions.statuses == [status]


# ---- files


@WATCHED
def test_a_file_goes_to_the_server_unwrapped(limits):
    gateway = slow(**limits)
    content = io.BytesIO(b"a file")
    file = FileWrapper(content)
    gate = GatewayMiddleware(giving(file), gateway)
    assert gate(environ_of(**{"wsgi.file_wrapper": FileWrapper}), lambda *_: None) is file
    assert held(gateway) == ("in_flight" in limits)
    file.close()
    assert content.closed
    assert held(gateway) == 0


class Opaque:
    """A wrapper as servers in C have it: nothing can be set on it."""

    __slots__ = ("file",)

    def __init__(self, file):
        self.file = file

    def __iter__(self):
        return iter(self.file)


class Bare(Opaque):
    """One around a file that cannot be closed."""

    __slots__ = ("__dict__",)


@pytest.mark.parametrize(("wrapper", "holds"), [(Opaque, 0), (Bare, 1)])
def test_the_slot_of_a_file_is_held_where_its_end_can_be_known(wrapper, holds):
    gateway = slow(in_flight=1)
    gate = GatewayMiddleware(giving(wrapper([b"a file"])), gateway)
    body = gate(environ_of(**{"wsgi.file_wrapper": wrapper}), lambda *_: None)
    assert type(body) is wrapper
    assert held(gateway) == holds
    if hasattr(body, "close"):
        body.close()
    assert held(gateway) == 0


@pytest.mark.parametrize("wrapper", [None, lambda file, size=8192: FileWrapper(file, size), "nonsense"], ids=repr)
@WATCHED
def test_a_wrapper_that_is_no_class_breaks_nothing(limits, wrapper):
    gate = GatewayMiddleware(giving(FileWrapper(io.BytesIO(b"a file"))), slow(**limits))
    assert b"".join(Server(gate, environ_of(**{"wsgi.file_wrapper": wrapper})).out) == b"a file"


# ---- the environ


@WATCHED
def test_the_request_body_is_the_servers_own_and_has_not_been_read(limits):
    class Unread(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("read by somebody else")

    stream = Unread(b"body")

    def app(environ: Any, start_response: Any) -> Any:
        assert environ["wsgi.input"] is stream
        return as_list(environ, start_response)

    Server(GatewayMiddleware(app, slow(**limits)), environ_of(**{"wsgi.input": stream, "CONTENT_LENGTH": "4"}))


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/café", "GET /café"),
        ("/日本", "GET /日本"),
        ("/cafe", None),
        ("/caf\N{COMBINING ACUTE ACCENT}", None),
    ],
)
def test_a_path_is_utf8_sent_through_latin_1(path, method):
    found = []

    def app(environ: Any, start_response: Any) -> Any:
        found.append((environ["apigate.context"].method, environ["apigate.context"].request.path, environ["PATH_INFO"]))
        return as_list(environ, start_response)

    gateway = Gateway(throttle="9/s", methods={"GET /café": Method(), "GET /日本": Method()})
    tunnelled = path.encode().decode("latin-1")
    Server(GatewayMiddleware(app, gateway), environ_of(tunnelled))
    assert found == [(method, path, tunnelled)]


@pytest.mark.parametrize("path", ["/\xff", "/caf\xe9", "/\xed\xa0\x80", "/日本", ""])
def test_a_path_that_is_no_utf8_is_served_as_one_that_matches_nothing(path):
    gate = GatewayMiddleware(as_list, slow(methods={"GET /café": Method()}))
    assert Server(gate, environ_of(path)).status == "200 OK"


@pytest.mark.parametrize(("mount", "path"), [("", "/pets/1"), ("/api", "/pets/1"), ("/pets", "/pets/1")])
def test_methods_are_matched_below_the_mount(mount, path):
    found = []

    def app(environ: Any, start_response: Any) -> Any:
        found.append(environ["apigate.context"].method)
        return as_list(environ, start_response)

    gateway = Gateway(throttle="9/s", methods={"GET /pets/{id}": Method()})
    Server(GatewayMiddleware(app, gateway), environ_of(path, SCRIPT_NAME=mount))
    assert found == ["GET /pets/{id}"]


@pytest.mark.parametrize("mount", ["", "/api"])
def test_a_stage_in_the_path_moves_over_to_the_mount(mount):
    found = []

    def app(environ: Any, start_response: Any) -> Any:
        found.append((environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["apigate.context"].request.path))
        return as_list(environ, start_response)

    gateway = Gateway(stages=[Stage("prod", throttle="9/s")], stage_by=PathPrefix())
    for path in ("/prod/pets/caf\xc3\xa9", "/prod", "/prod/"):
        Server(GatewayMiddleware(app, gateway), environ_of(path, SCRIPT_NAME=mount))
    assert found == [
        (f"{mount}/prod", "/pets/caf\xc3\xa9", "/pets/café"),
        (f"{mount}/prod", "", ""),
        (f"{mount}/prod", "/", "/"),
    ]


@pytest.mark.parametrize("missing", ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "SERVER_PROTOCOL"])
@pytest.mark.parametrize("settings", [{}, {"stage_by": PathPrefix()}], ids=["one stage", "stage in the path"])
def test_what_a_server_may_leave_out_is_not_needed(missing, settings):
    environ = environ_of("/default/pets")
    environ.pop(missing, None)
    gate = GatewayMiddleware(as_list, Gateway(client_throttle="9/s", throttle="9/s", **settings))
    status = Server(gate, environ).status
    assert status == ("404 Not Found" if settings and missing == "PATH_INFO" else "200 OK")


def test_the_context_is_in_the_environ_that_the_server_made():
    environ = environ_of()
    Server(GatewayMiddleware(as_list, slow()), environ)
    assert environ["apigate.context"].stage == "default"


# ---- refusals and errors


def test_a_status_that_has_no_phrase_gets_one():
    gateway = slow(responses={"THROTTLED": GatewayResponse(status=420)})
    gate = GatewayMiddleware(as_list, gateway)
    assert [Server(gate, environ_of()).status for _ in range(3)] == ["200 OK", "200 OK", "420 Error"]


def test_a_refusal_of_head_has_no_chunk_at_all():
    gate = GatewayMiddleware(as_list, slow())
    for _ in range(2):
        Server(gate, environ_of())
    assert Server(gate, environ_of(REQUEST_METHOD="HEAD")).out == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_apps_exception_reaches_the_server_as_it_is_and_frees_its_slot(kind):
    error = kind("broken")

    def app(environ: Any, start_response: Any) -> Any:
        raise error

    gateway = Gateway(in_flight=1)
    with pytest.raises(kind) as caught:
        GatewayMiddleware(app, gateway)(environ_of(), lambda *_: None)
    assert caught.value is error
    assert held(gateway) == 0


@WATCHED
def test_an_app_throttled_half_way_is_not_answered_twice(limits):
    gateway = slow(**limits)
    with pytest.raises(Throttled):
        Server(GatewayMiddleware(giving(Chunks(b"half", error=throttled())), gateway), environ_of())
    assert held(gateway) == 0


@WATCHED
def test_an_app_throttled_after_it_called_start_response_becomes_a_429_as_nothing_was_sent_yet(limits):
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(OWN))
        raise throttled()

    gateway = slow(**limits)
    server = Server(GatewayMiddleware(app, gateway), environ_of())
    assert server.status == "429 Too Many Requests"
    assert isinstance(server.starts[-1][2][1], Throttled)
    assert held(gateway) == 0


@WATCHED
def test_an_app_throttled_after_it_wrote_gets_its_exception_back_from_the_server(limits):
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(OWN))(b"written")
        raise throttled()

    gateway = slow(**limits)
    with pytest.raises(Throttled):
        Server(GatewayMiddleware(app, gateway), environ_of())
    assert held(gateway) == 0


@pytest.mark.parametrize("watched_for", ["slots", "decorated functions"])
def test_a_body_throttled_at_its_first_chunk_becomes_a_429_where_the_gate_watches_it(watched_for):
    gateway = slow(in_flight=1 if watched_for == "slots" else None)
    if watched_for == "decorated functions":
        decorated(gateway)
    body = Chunks(error=throttled())
    assert Server(GatewayMiddleware(giving(body), gateway), environ_of()).status == "429 Too Many Requests"
    assert body.closed == 1


def test_a_body_throttled_at_its_first_chunk_is_the_servers_where_nobody_watches_it():
    body = Chunks(error=throttled())
    with pytest.raises(Throttled):  # to see this, every body would have to be wrapped
        Server(GatewayMiddleware(giving(body), slow()), environ_of())
    assert body.closed == 1


# ---- decorated functions


def decorated(gateway: Gateway) -> Any:
    @gateway.throttle(Rate(1, per=10), per="client")
    def work() -> bytes:
        return b"done"

    return work


@pytest.mark.parametrize(
    "late", [pytest.param(False, id="called at once"), pytest.param(True, id="called by a generator")]
)
@WATCHED
def test_a_decorated_function_finds_the_request_that_is_being_served(limits, late):
    gateway = Gateway(clock=FakeClock(), **limits)
    work = decorated(gateway)

    def at_once(environ: Any, start_response: Any) -> Any:
        body = work()
        start_response("200 OK", list(OWN))
        return [body]

    def by_generator(environ: Any, start_response: Any) -> Any:
        body = work()
        start_response("200 OK", list(OWN))
        yield body

    gate = GatewayMiddleware(by_generator if late else at_once, gateway)
    asked = [Server(gate, environ_of(REMOTE_ADDR=peer)).status[:3] for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]
    assert asked == ["200", "200", "429"]
    assert current_context() is None
    assert held(gateway) == 0
