"""The origin: answers each request as its case's step says, and keeps a log; section 4. No I/O, no clock of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import NamedTuple
from uuid import uuid4

from tests.conformance.cases import DATE_FIELDS, Case, Step
from tests.conformance.wire import Answer, Request, field, has_body, http_date, leading_integer

_VALIDATED = ("etag_validated", "lm_validated")
_CONDITIONS = (("if-modified-since", "last-modified"), ("if-none-match", "etag"))


class Logged(NamedTuple):
    """A request that reached the origin."""

    number: int | None
    method: str
    fields: dict[str, str]
    remembered: dict[str, str]


@dataclass
class _Run:
    """One run of a case."""

    case: Case
    log: list[Logged] = attribute(default_factory=list)
    made: dict[int, list[tuple[str, str, bool]]] = attribute(default_factory=dict)  # of a step: its fields, dated


class Visit(NamedTuple):
    """A request that has arrived, and what is to be done before it is answered."""

    pause: float
    answer: Callable[[], Answer | None]
    """Answer it; None: drop the connection."""


class Origin:
    """All runs of all cases, told apart by their tokens."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._runs: dict[str, _Run] = {}

    def open(self, case: Case) -> str:
        """Begin a run of a case; the token it is known by."""
        token = str(uuid4())
        self._runs[token] = _Run(case)
        return token

    def log(self, token: str) -> Sequence[Logged]:
        """What has reached the origin of a run."""
        return self._runs[token].log

    def visit(self, request: Request) -> Visit:
        """Take a request."""
        token = request.target.partition("?")[0].split("/")[2]
        run = self._runs[token]
        said = leading_integer(field(request.fields, "req-num"))
        number = len(run.log) + 1 if said is None else said
        if not 1 <= number <= len(run.case.steps):
            return Visit(0, lambda: Answer(409, [("Content-Type", "text/plain")], b"no such step"))
        step = run.case.steps[number - 1]
        return Visit(step.get("response_pause", 0), lambda: self._answer(run, token, request, said, number, step))

    def _answer(
        self, run: _Run, token: str, request: Request, said: int | None, number: int, step: Step
    ) -> Answer | None:
        now = round(self._wall() * 1000)
        status = self._status(run, request, number, step)
        shown = "NaN" if said is None else str(said)
        fields = [
            ("Server-Base-Url", request.target),
            ("Server-Request-Count", str(len(run.log) + 1)),
            ("Client-Request-Count", shown),
            ("Server-Now", str(now)),
        ]
        remembered = {}
        for name, value, remember in self._made(run, request, number, now):
            fields.append((name, value))
            if remember:
                remembered[name.lower()] = field(fields, name) or ""
        if field(fields, "content-type") is None:
            fields.append(("Content-Type", "text/plain"))
        numbers = [entry.number for entry in run.log] + [said]
        fields.append(("Request-Numbers", " ".join("NaN" if each is None else str(each) for each in numbers)))
        body = step.get("response_body")
        content = (token if body is None else body).encode() if has_body(request.method, status) else b""
        _add_servers_own(fields, now, len(content) if has_body(request.method, status) else None)
        seen = {name.lower(): field(request.fields, name) or "" for name, _ in request.fields}
        run.log.append(Logged(said, request.method, seen, remembered))
        if step.get("disconnect"):
            return None
        interim = tuple((code, tuple(map(tuple, *rest))) for code, *rest in step.get("interim_responses", ()))
        return Answer(status, fields, content, interim)

    def _status(self, run: _Run, request: Request, number: int, step: Step) -> int:
        """The status: that of the step, but where it insists on a fitting conditional request."""
        if step.get("expected_type") not in _VALIDATED:
            code: int = step.get("response_status", (200,))[0]
            return code
        before = run.made.get(number - 1, [])
        for condition, validator in _CONDITIONS:
            values = [value for name, value, _ in before if name.lower() == validator]
            if values and field(request.fields, condition) == values[-1]:
                return 304
        return 999

    def _made(self, run: _Run, request: Request, number: int, now: int) -> list[tuple[str, str, bool]]:
        """The step's own fields: dates counted from when it was first asked for."""
        if number not in run.made:
            step = run.case.steps[number - 1]
            old = step.get("rfc850date", ())
            made = run.made[number] = []
            for name, value, *remember in step.get("response_headers", ()):
                if isinstance(value, int) and name.lower() in DATE_FIELDS:
                    text = http_date(now + value * 1000, rfc850=name.lower() in old)
                elif step.get("magic_locations") and name.lower() in ("location", "content-location"):
                    text = f"{request.target}/{value}"
                else:
                    text = str(value)
                made.append((name, text, remember != [False]))
        return run.made[number]


def _add_servers_own(fields: list[tuple[str, str]], now: int, length: int | None) -> None:
    """What the web server adds."""
    own = [("Date", http_date(now)), ("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")]
    fields += [(name, value) for name, value in own if field(fields, name) is None]
    if length is not None and field(fields, "content-length") is None and field(fields, "transfer-encoding") is None:
        fields.append(("Content-Length", str(length)))
