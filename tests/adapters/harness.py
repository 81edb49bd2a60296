"""What a test sees of a server, whichever it is: `Visit` asks, `Harness` serves, `Exchange` is a response coming in.

An exchange has status and fields first, then the body chunk by chunk as it comes, so that a test sees what is held
back. A client may `leave` in the middle.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple, Protocol

from tests.adapters.differences import DIFFERENCES

DEADLINE = 60.0
SERVERS_OWN = {"date", "server", "connection", "transfer-encoding"}

Fields = list[tuple[str, str]]


class Reply(NamedTuple):
    """A whole response, without the fields that are the server's business."""

    status: int
    fields: Fields
    body: bytes
    whole: bool

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]


class Exchange(Protocol):
    """A response that is coming in."""

    status: int  # 0: the connection was closed without an answer
    fields: Fields
    whole: bool  # False once it turned out that the response was cut off

    def read(self) -> bytes:
        """The next chunk; empty at the end."""
        ...

    def leave(self) -> None:
        """Go, whatever is still to come."""
        ...


class Harness(Protocol):
    """A server around a host, by the names that `serve` and `hosts` give them."""

    server: str
    host: str
    protocol: str

    def open(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> Exchange: ...

    def stop(self) -> None: ...


def named(fields: Any) -> Fields:
    return [(name.lower(), value) for name, value in fields if name.lower() not in SERVERS_OWN]


# ---- a test's view


class Turnstile:
    """Lets the app's streams go on, one chunk for each permit."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self.port = self._listener.getsockname()[1]
        self._app: socket.socket | None = None

    def permit(self) -> None:
        if self._app is None:
            self._app = self._listener.accept()[0]
        self._app.sendall(b".")

    def close(self) -> None:
        self._listener.close()
        if self._app is not None:
            self._app.close()


class Visit:
    """A client of one fresh cell."""

    def __init__(self, harness: Harness, cell: str) -> None:
        self.harness = harness
        self.cell = cell
        self._opened: list[Exchange] = []

    def end(self) -> None:
        """Leave what a test has opened, and perhaps not read to its end."""
        for exchange in self._opened:
            exchange.leave()

    def differs(self, how: str) -> bool:
        """Whether the server, or the host, does otherwise than the table promises."""
        who = {self.harness.server, self.harness.host, f"{self.harness.server}+{self.harness.host}"}
        return not who.isdisjoint(DIFFERENCES[how])

    def in_order(self, fields: Fields) -> Fields:
        """The fields in the order in which this server, or this framework, sends them."""
        if self.differs("sorts fields by name"):
            return sorted(fields, key=lambda field: field[0])
        if self.differs("sends cookies last"):
            return sorted(fields, key=lambda field: field[0] == "set-cookie")
        return list(fields)

    @property
    def counted_as(self) -> str:
        """The method that requests for `/pets/1` are counted under, where the gateway names none."""
        return "GET /pets/{id}" if self.differs("counts each of its endpoints") else "*"

    def open(self, method: str, target: str, body: bytes = b"", **fields: str) -> Exchange:
        exchange = self._begin(method, target, body, fields)
        self._opened.append(exchange)
        return exchange

    def _begin(self, method: str, target: str, body: bytes, fields: Mapping[str, str]) -> Exchange:
        sent = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.harness.open(method, target, {"x-cell": self.cell, **sent}, body)

    def ask(self, method: str, target: str, body: bytes = b"", **fields: str) -> Reply:
        exchange = self._begin(method, target, body, fields)
        chunks = b"".join(iter(exchange.read, b""))
        return Reply(exchange.status, exchange.fields, chunks, exchange.whole)

    def get(self, target: str = "/pets/1", **fields: str) -> Reply:
        return self.ask("GET", target, **fields)

    @contextmanager
    def stream(self, target: str = "/pets/1", **fields: str) -> Iterator[tuple[Exchange, Turnstile]]:
        turnstile = Turnstile()
        try:
            yield self.open("GET", target, x_do="stream", x_turnstile=str(turnstile.port), **fields), turnstile
        finally:
            turnstile.close()

    def control(self, command: str) -> dict[str, Any]:
        return json.loads(self.ask("GET", "/", x_control=command).body)

    def advance(self, seconds: float) -> None:
        self.control(f"advance:{seconds}")

    def report(self) -> dict[str, Any]:
        return self.control("report")

    def settled(self, **counts: int) -> dict[str, Any]:
        """The cell's report, once its slots are free: a server closes a body a little after its client has it all."""
        wanted = {"held": 0, **counts}
        deadline = monotonic() + DEADLINE
        while not wanted.items() <= (report := self.report()).items() and monotonic() < deadline:
            pass
        return report
