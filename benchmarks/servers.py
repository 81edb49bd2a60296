"""Real servers: requests a second of one worker under wrk on loopback, with each gate and without.

Rule: all servers of a table run throughout, each in a process of its own; wrk loads one at a time, in
a fresh order each round, and what is compared is compared within a round. A row that refuses must
refuse whatever it is asked, any other nothing; else the run ends with AssertionError.

wrk and the proxies come from the system's packages. Without them the rows say so.
"""

import http.client
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import fastapi_apps, flask_apps, nginx, raw_apps
from benchmarks.fronts import Front
from benchmarks.measure import Load, Plan, missing
from benchmarks.subjects import Subject

__all__ = ["Row", "Table", "loads", "measured"]

PATH = "/pets"
ROOT = Path(__file__).parents[1]
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
PATIENCE = 120.0
"""Seconds that a server may take to start or to stop; a dozen of them start at once, on a machine that may be busy."""


@dataclass(frozen=True)
class Row:
    """A row of a table: a subject behind its server, or a proxy in front of the table's first row.

    Attributes:
        name: What the table calls it.
        subject: The app; None for a proxy.
        refuse: Whether it is to refuse.
        front: The proxy.
        mark: A field that must be in the second answer, and what must be in it.
    """

    name: str
    subject: Subject | None = None
    refuse: bool = False
    front: Front | None = None
    mark: tuple[str, str] | None = None


@dataclass(frozen=True)
class Table:
    """Rows that are measured together. `connections` is how many requests are under way at any time."""

    title: str
    server: str
    rows: tuple[Row, ...]
    connections: int


class Answers(NamedTuple):
    """What wrk counted; `trouble` is its word on connections that failed.

    `slowest` is what 99 of 100 answers did not exceed, in seconds.
    """

    rate: float
    slowest: float
    total: int
    refused: int
    trouble: str


def _rows(*subjects: Subject) -> tuple[Row, ...]:
    admitting = tuple(Row(subject.name, subject) for subject in subjects)
    refusing = tuple(Row(f"{subject.name}, refusing", subject, refuse=True) for subject in subjects if subject.limits)
    return admitting + refusing


RAW = (
    Subject("bare app", raw_apps.bare_asgi, limits=False),
    Subject("floor gate", raw_apps.asgi_floor),
    Subject("apigate, three levels", raw_apps.asgi_apigate),
    Subject("thin gate on limits", raw_apps.asgi_limits, ("limits",)),
)
NGINX = (
    Row("nginx in front", front=nginx.PROXY),
    Row("nginx limit_req in front", front=nginx.LIMITED),
    Row("nginx limit_req in front, refusing", front=nginx.REFUSING, refuse=True),
)
NO_OP = Row("Starlette BaseHTTPMiddleware, no-op", Subject("", raw_apps.asgi_base_http, ("starlette",), limits=False))
TABLES = (
    Table("uvicorn, raw ASGI app", "uvicorn", (*_rows(*RAW), NO_OP, *NGINX), connections=32),
    Table("uvicorn, FastAPI", "uvicorn", _rows(*fastapi_apps.OWN, *fastapi_apps.PEERS), connections=32),
    Table(
        "gunicorn sync, Flask",
        "gunicorn",
        _rows(flask_apps.BARE, flask_apps.FLOOR, flask_apps.APIGATE, flask_apps.FLASK_LIMITER, flask_apps.THROTTLED_PY),
        connections=8,
    ),
)


def loads(plan: Plan) -> Iterator[Load]:
    """Every table."""
    return measured(TABLES, plan)


def measured(tables: Sequence[Table], plan: Plan) -> Iterator[Load]:
    """These tables. Rounds are short, so that what disturbs one row disturbs the next; wrk's own clock counts."""
    rounds, seconds = max(1, plan.rounds // 2), max(0.05, 0.35 * plan.scale)
    for table in tables:
        yield _measure(table, rounds, seconds)


def _measure(table: Table, rounds: int, seconds: float) -> Load:
    left_out = {row.name: why for row in table.rows if (why := _lacking(table, row)) is not None}
    rows = [row for row in table.rows if row.name not in left_out]
    rates: dict[str, list[float]] = {row.name: [] for row in table.rows}
    slowest: dict[str, list[float]] = {row.name: [] for row in table.rows}
    order = random.Random(rounds)
    with ExitStack() as stack:
        ports = _start(table, rows, _Processes(stack))
        for row in rows:
            _check(row, ports[row.name])
        for _ in range(rounds):
            for row in order.sample(rows, len(rows)):
                answers = _wrk(ports[row.name], table.connections, seconds)
                _must_be(row, answers)
                rates[row.name].append(answers.rate)
                slowest[row.name].append(answers.slowest)
                if answers.trouble:
                    left_out[row.name] = f"wrk: {answers.trouble}"
    return Load(table.title, rates, left_out, slowest=slowest)


def _lacking(table: Table, row: Row) -> str | None:
    """Why this row cannot be measured here, in plain words."""
    programs = {"wrk": "wrk"} | ({row.front.program: row.front.package} if row.front else {})
    for program, package in programs.items():
        if shutil.which(program) is None:
            return f"there is no {program} (apt-get install {package})"
    needs = row.subject.needs if row.subject else ()
    module = missing((table.server, *needs))
    return None if module is None else f"{module} is not installed"


class _Processes:
    """Servers that are ended with the stack: all are told first, then all are waited for."""

    def __init__(self, stack: ExitStack) -> None:
        self.waited = stack.enter_context(ExitStack())
        self.told = stack.enter_context(ExitStack())

    def start(self, command: Sequence[str], listener: socket.socket | None = None) -> None:
        """Start one; what it has to say goes where our own messages go."""
        fds = () if listener is None else (listener.fileno(),)
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=fds, stdout=sys.stderr)
        self.waited.callback(_wait, process)
        self.told.callback(process.terminate)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _start(table: Table, rows: Sequence[Row], processes: _Processes) -> Mapping[str, int]:
    """Start all of them, and say on which port each listens."""
    ports: dict[str, int] = {}
    for row in rows:
        if row.subject is not None:
            ports[row.name] = _serve(processes, table.server, row.subject, refuse=row.refuse)
        elif row.front is not None:
            folder = processes.waited.enter_context(tempfile.TemporaryDirectory())
            ports[row.name], holder, command = row.front.prepare(folder, ports[rows[0].name])
            processes.waited.enter_context(holder)
            processes.start(command)
    return ports


def _serve(processes: _Processes, server: str, subject: Subject, *, refuse: bool) -> int:
    """One server with one app. It inherits a socket that listens already, so that nobody need wait.

    Ours is closed: when the server dies, clients hear of it.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        app = (subject.app.__module__, subject.app.__name__, str(int(refuse)))
        processes.start((sys.executable, "-m", "benchmarks.serve", server, *app, str(listener.fileno())), listener)
        port: int = listener.getsockname()[1]
    return port


def _check(row: Row, port: int) -> None:
    """See that it admits the first request, and the second unless it is to refuse; and what marks the second."""
    refused = row.subject.refused if row.subject else nginx.REFUSED
    wanted = [200, refused if row.refuse else 200]
    answers = [_answer(port), _answer(port)]
    got = [status for status, _ in answers]
    fields = answers[1][1]
    if got != wanted or (row.mark and row.mark[1] not in fields.get(row.mark[0], "none")):
        wanted_too = f" and {row.mark}" if row.mark else ""
        raise AssertionError(
            f"{row.name}: not what is to be measured: wanted {wanted}{wanted_too}, got {got}, {fields}"
        )


def _must_be(row: Row, answers: Answers) -> None:
    """See that all were admitted, or all refused but one: nginx knows no rate below one a minute."""
    if (answers.total - answers.refused > 1) if row.refuse else answers.refused:
        raise AssertionError(f"{row.name}: not what is to be measured: {answers.refused} of {answers.total} refused")


def _answer(port: int) -> tuple[int, Mapping[str, str]]:
    """Status and fields of one answer; a server that is still starting is waited for."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", PATH)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            connection.close()


def _wrk(port: int, connections: int, seconds: float) -> Answers:
    """Load one server until something was answered: the longer, the more often nothing was."""
    while (answers := _loaded(port, connections, seconds)) is None or not answers.total:
        if seconds > PATIENCE:
            raise RuntimeError(f"wrk: {answers}")
        seconds *= 2
    return answers


def _loaded(port: int, connections: int, seconds: float) -> Answers | None:
    """Load one server for so long; None where wrk was told to stop before it could hear that.

    It counts whole seconds only, so it is told when to stop: at first a signal ends it, then it hears none for a while.
    """
    url = f"http://127.0.0.1:{port}{PATH}"
    command = [str(shutil.which("wrk")), "--threads=1", f"--connections={connections}", "--duration=600s"]
    command += ["--latency", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            deadline = time.monotonic() + seconds + PATIENCE
            said = None
            time.sleep(seconds)
            while said is None:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    said, _ = process.communicate(timeout=0.1)
                if said is None and time.monotonic() > deadline:
                    raise RuntimeError(f"wrk does not end: {command}")
        finally:
            process.kill()
    if process.returncode == -signal.SIGINT:
        return None
    rate = re.search(r"^Requests/sec:\s+([\d.]+)$", said, re.MULTILINE)
    total = re.search(r"^\s*(\d+) requests in ", said, re.MULTILINE)
    slowest = re.search(r"^\s*99%\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
    if rate is None or total is None or slowest is None:
        raise RuntimeError(f"wrk: {said}")
    refused = re.search(r"^\s*Non-2xx or 3xx responses: (\d+)$", said, re.MULTILINE)
    trouble = re.search(r"^\s*(Socket errors: .*)$", said, re.MULTILINE)
    return Answers(
        float(rate[1]),
        float(slowest[1]) * UNITS[slowest[2]],
        int(total[1]),
        int(refused[1]) if refused else 0,
        trouble[1] if trouble else "",
    )
