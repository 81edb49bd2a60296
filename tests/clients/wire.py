"""A relay on loopback that notes when each request came and when its response left.

Rule: both are noted between the client and the server, a response before it is passed on and a request after it has
come. So a gap is never less than what the client waited, however slow the machine is, and the clients stay as their
users have them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic
from typing import NamedTuple

HOST = "127.0.0.1"


class Exchange(NamedTuple):
    """A request and its response."""

    came: float  # seconds of the monotonic clock
    left: float
    sender: str  # the first word of User-Agent
    status: int
    retry_after: int | None


class Gap(NamedTuple):
    """The time from a refusal to the same client's next request."""

    told: int
    waited: float


class Wire(ThreadingHTTPServer):
    """The relay; `exchanges` is what it has seen, in order of the responses."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__((HOST, 0), Passage)
        self.port = port
        self.url = f"http://{HOST}:{self.server_port}"
        self.exchanges: list[Exchange] = []

    @property
    def refusals(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.status == 429]

    def gaps(self) -> list[Gap]:
        """What each client that sends one request at a time did about its refusals."""
        found = []
        for number, refusal in enumerate(self.exchanges):
            later = (each for each in self.exchanges[number + 1 :] if each.sender == refusal.sender)
            if refusal.retry_after is not None and (retry := next(later, None)):
                found.append(Gap(refusal.retry_after, retry.came - refusal.left))
        return found


class Passage(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Wire

    def relay(self) -> None:
        came = monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = HTTPConnection(HOST, self.server.port, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        told = answer.headers.get("Retry-After")
        sender = self.headers["User-Agent"].split("/")[0]
        self.server.exchanges.append(Exchange(came, monotonic(), sender, answer.status, told and int(told)))
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.relay()

    def do_POST(self) -> None:
        self.relay()


@contextmanager
def relayed(port: int) -> Iterator[Wire]:
    """Relay to a port as long as the block runs."""
    with Wire(port) as wire:
        thread = Thread(target=wire.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield wire
        finally:
            wire.shutdown()
            thread.join()
