"""The client: does the steps of a case, and checks each answer and at last the log; sections 3, 5 and 6.

No I/O: `converse` yields what is to be done, a `Request` or a pause in seconds, and is sent the answer.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

from tests.conformance.cases import DATE_FIELDS, PAUSE, Case, Step
from tests.conformance.origin import Logged
from tests.conformance.wire import Answer, Fields, Request, field, http_date, leading_integer


class Outcome(NamedTuple):
    """How a case went, before what it depends on is looked at."""

    kind: str
    """pass, setup, retry, assertion, error or timeout."""
    step: int = 0
    reason: str = ""
    replayed: tuple[str, ...] = ()
    """Fields that came back though the suite means them not to; its own check of them never fails (section 5, 5)."""

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}: {self.reason}" if self.reason else self.kind


Move: TypeAlias = Request | float
Conversation: TypeAlias = Generator[Move, Answer | None, Outcome]


class _Failed(Exception):
    """A check that failed: the outcome, and why."""


def converse(case: Case, token: str, log: Callable[[], Sequence[Logged]]) -> Conversation:
    """Do a case.

    Args:
        case: The case.
        token: What the origin knows this run by.
        log: Tells what has reached the origin.
    """
    answers: list[Answer] = []
    replayed: list[str] = []
    number = 0
    try:
        for number, step in enumerate(case.steps, 1):
            answer = yield _request(case, token, number, step, answers)
            assert answer is not None
            answers.append(answer)
            _check_answer(step, number, token, answer)
            replayed += _replayed(step, answer)
            if step.get("pause_after"):
                yield PAUSE
        for number, step, entry in _paired(case.steps, log()):
            _check_entry(step, number, entry, answers[number - 1])
    except _Failed as failed:
        kind, reason = failed.args
        return Outcome(kind, number, reason, tuple(replayed))
    return Outcome("pass", replayed=tuple(replayed))


def _request(case: Case, token: str, number: int, step: Step, answers: Sequence[Answer]) -> Request:
    given: list[tuple[str, str]] = []
    for name, value in step.get("request_headers", ()):
        if isinstance(value, int) and step.get("magic_ims") and name.lower() == "if-modified-since":
            given.append((name, _date(step, name, value, answers[-1])))
        else:
            given.append((name, str(value)))
    lines = [("Pragma", "foo"), ("Cache-Control", "nothing-to-see-here"), *given]
    lines += [("Test-Name", case.name), ("Test-ID", case.name), ("Req-Num", str(number))]
    body = step.get("request_body", "").encode()
    target = f"/test/{token}"
    if "filename" in step:
        target += f"/{step['filename']}"
    if "query_arg" in step:
        target += f"?{step['query_arg']}"
    return Request(step.get("request_method", "GET"), target, _joined([*lines, *_fetch_fields(given, body)]), body)


def _date(step: Step, name: str, seconds: int, answer: Answer) -> str:
    """The date so long after the origin made an answer."""
    made = leading_integer(field(answer.fields, "server-now")) or 0
    return http_date(made + seconds * 1000, rfc850=name.lower() in step.get("rfc850date", ()))


def _fetch_fields(given: Fields, body: bytes) -> Fields:
    """What the suite's client adds by itself."""
    fields = [("Accept", "*/*"), ("Sec-Fetch-Mode", "cors"), ("User-Agent", "node")]
    if field(given, "accept-language") is None:
        fields.append(("Accept-Language", "*"))
    ranged = field(given, "range") is not None
    fields.append(("Accept-Encoding", "identity, gzip, deflate" if ranged else "gzip, deflate"))
    if body:
        fields.append(("Content-Length", str(len(body))))
        if field(given, "content-type") is None:
            fields.append(("Content-Type", "text/plain;charset=UTF-8"))
    return fields


def _joined(lines: Fields) -> Fields:
    """One line for each name, as the client sends them."""
    values: dict[str, list[str]] = {}
    for name, value in lines:
        values.setdefault(name.lower(), []).append(value.strip())
    return [(name, ", ".join(each)) for name, each in values.items()]


# ---- section 5


def _check_answer(step: Step, number: int, token: str, answer: Answer) -> None:
    _check_numbers(answer)
    _check_type(step, number, answer)
    _check_status(step, answer)
    for wanted in step.get("expected_response_headers", ()):
        _check_field(step, wanted, answer)
    for wanted in step.get("expected_response_headers_missing", ()):
        if isinstance(wanted, str) and field(answer.fields, wanted) is not None:
            _fail(step, "expected_response_headers_missing", f"{wanted} is {field(answer.fields, wanted)!r}")
    if "expected_interim_responses" in step:
        _check_interim(step, answer)
    if step.get("check_body", True):
        _check_body(step, token, answer)


def _fail(step: Step, check: str, reason: str) -> None:
    is_setup = step.get("setup") or check in step.get("setup_tests", ())
    raise _Failed("setup" if is_setup else "assertion", f"{check}: {reason}")


def _check_numbers(answer: Answer) -> None:
    numbers = [each for each in (field(answer.fields, "request-numbers") or "").split(" ") if each.isdecimal()]
    if len(set(numbers)) < len(numbers):
        raise _Failed("retry", f"the origin got one request twice: {' '.join(numbers)}")


def _check_type(step: Step, number: int, answer: Answer) -> None:
    count = leading_integer(field(answer.fields, "server-request-count"))
    match step.get("expected_type"):
        case "cached" if count is None and answer.status != 304:
            _fail(step, "expected_type", f"neither from the cache nor the origin's: {answer.status} {answer.body!r}")
        case "cached" if count is not None and count >= number:
            _fail(step, "expected_type", "not from the cache")
        case "not_cached" if count != number:
            _fail(step, "expected_type", f"from the cache: it is the origin's answer number {count}")


def _check_status(step: Step, answer: Answer) -> None:
    status = answer.status
    if "expected_status" in step:
        if step["expected_status"] not in (None, status):
            _fail(step, "expected_status", f"is {status}, not {step['expected_status']}")
    elif "response_status" in step:
        if status != step["response_status"][0]:
            raise _Failed("setup", f"status is {status}, not {step['response_status'][0]}: {answer.body!r}")
    elif status == 999:
        _fail(step, "expected_type", "no fitting conditional request")
    elif status != 200:
        raise _Failed("setup", f"status is {status}, not 200: {answer.body!r}")


def _check_field(step: Step, wanted: Any, answer: Answer) -> None:
    name, *rest = [wanted] if isinstance(wanted, str) else wanted
    value = field(answer.fields, name)
    match rest:
        case []:
            good = value is not None
        case [int(seconds)] if name.lower() in DATE_FIELDS:
            good = value == _date(step, name, seconds, answer)
        case [text]:
            good = value == str(text)
        case ["=", other]:
            good = value is not None and value == field(answer.fields, other)
        case [">", int(least)]:
            good = (leading_integer(value) or 0) > least
        case _:
            raise ValueError(wanted)
    if not good:
        _fail(step, "expected_response_headers", f"{name} is {value!r}; wanted: {rest}")


def _check_interim(step: Step, answer: Answer) -> None:
    wanted = [
        (code, {name.lower() for name, _ in (rest[0] if rest else ())})
        for code, *rest in step["expected_interim_responses"]
    ]
    got = [(code, {name.lower() for name, _ in fields}) for code, fields in answer.interim]
    good = len(wanted) == len(got) and all(
        code == each and names <= there for (code, names), (each, there) in zip(wanted, got, strict=True)
    )
    if not good:
        _fail(step, "expected_interim_responses", f"got {[code for code, _ in got]}")


def _check_body(step: Step, token: str, answer: Answer) -> None:
    text = answer.body.decode(errors="replace")
    if "expected_response_text" in step:
        if step["expected_response_text"] not in (None, text):
            _fail(step, "expected_response_text", f"is {text!r}, not {step['expected_response_text']!r}")
        return
    wanted = step.get("response_body")
    if wanted is None:
        if answer.status in (204, 304) or step.get("request_method") == "HEAD":
            return
        wanted = token
    if text != wanted:
        raise _Failed("setup", f"the body is {text!r}, not {wanted!r}")


def _replayed(step: Step, answer: Answer) -> list[str]:
    missing = step.get("expected_response_headers_missing", ())
    pairs = [each for each in missing if not isinstance(each, str)]
    return [name for name, value in pairs if field(answer.fields, name) == str(value)]


# ---- section 6


def _paired(steps: Sequence[Step], log: Sequence[Logged]) -> list[tuple[int, Step, Logged | None]]:
    """Steps and log entries by their places: a step that was to come from the cache takes none."""
    asked = [(number, step) for number, step in enumerate(steps, 1) if step.get("expected_type") != "cached"]
    return [(number, step, log[place] if place < len(log) else None) for place, (number, step) in enumerate(asked)]


def _check_entry(step: Step, number: int, entry: Logged | None, answer: Answer) -> None:
    match step.get("expected_type"):
        case "not_cached" if entry is None:
            raise _Failed(*_NOT_THERE)
        case "not_cached" if entry is not None and entry.number != number:
            _fail(step, "expected_type", f"the origin got number {entry.number}")
        case "etag_validated" if entry is None or "if-none-match" not in entry.fields:
            _fail(step, "expected_type", "the origin got no If-None-Match")
        case "lm_validated" if entry is None or "if-modified-since" not in entry.fields:
            _fail(step, "expected_type", "the origin got no If-Modified-Since")
    if entry is not None:
        _check_seen(step, entry, answer)
    elif step.get("expected_request_headers") or "expected_method" in step:
        raise _Failed(*_NOT_THERE)


_NOT_THERE = ("error", "the origin has no such request")


def _check_seen(step: Step, entry: Logged, answer: Answer) -> None:
    for wanted in step.get("expected_request_headers", ()):
        name, *rest = [wanted] if isinstance(wanted, str) else wanted
        value = entry.fields.get(name.lower())
        if value is None or (rest and value != str(rest[0])):
            _fail(step, "expected_request_headers", f"{name} was {value!r}; wanted: {rest}")
    for name, value in entry.remembered.items():
        if name != "date" and field(answer.fields, name) != value:
            raise _Failed("setup", f"{name} is {field(answer.fields, name)!r}, the origin sent {value!r}")
    if step.get("expected_method", entry.method) != entry.method:
        _fail(step, "expected_method", f"was {entry.method}")
