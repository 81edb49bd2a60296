"""The demo's app: a pet store, in plain ASGI."""

import json
from typing import TypeAlias, final

from apigate.asgi import ASGIApp, GatewayMiddleware, Receive, Scope, Send
from apigate.gateway import Gateway

__all__ = ["PetStore", "create_app"]

Answer: TypeAlias = tuple[int, object]
"""A status, and the content to be sent as JSON."""


def create_app(gateway: Gateway) -> ASGIApp:
    """The pet store behind a gateway."""
    return GatewayMiddleware(PetStore(), gateway)


@final
class PetStore:
    """Pets by number, kept in memory.

    >>> PetStore().answer("GET", "/pets/1", b"")
    (200, 'Rex')
    """

    def __init__(self) -> None:
        """Start with some pets."""
        self.pets: dict[int, str] = {1: "Rex", 2: "Mia", 3: "Tweety"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; where its path began with a stage, the gate has put that into `root_path`."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        status, content = self.answer(scope["method"], path, await _body(receive))
        body = json.dumps(content).encode() + b"\n"
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if content is self.pets:
            headers.append((b"etag", b'"%d"' % len(self.pets)))  # pets come, and never go
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def answer(self, verb: str, path: str, body: bytes) -> Answer:
        """Status and content of the response to a request."""
        if (verb, path) == ("POST", "/pets"):
            return self._add(body)
        pets = {f"/pets/{number}": name for number, name in self.pets.items()}
        known: dict[str, object] = {"/pets": self.pets, "/health": "well", **pets}
        if path not in known:
            return 404, "There is no such thing in this store."
        return (200, known[path]) if verb in ("GET", "HEAD") else (405, "That cannot be done here.")

    def _add(self, body: bytes) -> Answer:
        try:
            name = json.loads(body)["name"]
        except (ValueError, TypeError, KeyError):
            return 400, 'Send a pet, such as {"name": "Bella"}.'
        number = max(self.pets) + 1
        self.pets[number] = str(name)
        return 201, {number: name}


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
