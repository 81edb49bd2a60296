"""The three trivial caches of section 9, whose results are known: they test the runner."""

from collections.abc import Callable, Iterable
from typing import Protocol

from apigate.asgi import ASGIApp, Receive, Scope, Send
from apigate.wsgi import Environ, StartResponse, WSGIApp
from tests.conformance.native import asgi_request, begin_wsgi, collect_asgi, collect_wsgi, send_asgi
from tests.conformance.wire import Answer, Request, field

_CONDITIONS = ("if-none-match", "if-modified-since")


class Control(Protocol):
    """A cache that keeps answers by target."""

    def before(self, request: Request) -> Answer | list[tuple[str, str]]:
        """Answer a request, or say which fields to add to it."""
        ...

    def after(self, request: Request, added: list[tuple[str, str]], answer: Answer) -> Answer:
        """What the client gets for what the origin answered."""
        ...


class NoCache:
    """No cache."""

    def before(self, request: Request) -> Answer | list[tuple[str, str]]:
        return []

    def after(self, request: Request, added: list[tuple[str, str]], answer: Answer) -> Answer:
        return answer


class Sticky:
    """Keeps the first answer to a GET for good."""

    def __init__(self) -> None:
        self._kept: dict[str, Answer] = {}

    def before(self, request: Request) -> Answer | list[tuple[str, str]]:
        return self._kept.get(request.target, []) if request.method == "GET" else []

    def after(self, request: Request, added: list[tuple[str, str]], answer: Answer) -> Answer:
        if request.method == "GET":
            self._kept[request.target] = answer
        return answer


class Revalidating:
    """Asks the origin each time whether what it keeps still holds."""

    def __init__(self) -> None:
        self._kept: dict[str, Answer] = {}

    def before(self, request: Request) -> Answer | list[tuple[str, str]]:
        kept = self._kept.get(request.target)
        if request.method != "GET" or kept is None or any(field(request.fields, name) for name in _CONDITIONS):
            return []
        validators = (field(kept.fields, "etag"), field(kept.fields, "last-modified"))
        return [(name, value) for name, value in zip(_CONDITIONS, validators, strict=True) if value is not None]

    def after(self, request: Request, added: list[tuple[str, str]], answer: Answer) -> Answer:
        if request.method != "GET":
            return answer
        if answer.status == 304 and added:
            return self._kept[request.target]
        if answer.status == 200 and (field(answer.fields, "etag") or field(answer.fields, "last-modified")):
            self._kept[request.target] = answer
        return answer


CONTROLS: dict[str, Callable[[], Control]] = {"none": NoCache, "sticky": Sticky, "reval": Revalidating}


def around_asgi(control: Control, app: ASGIApp) -> ASGIApp:
    """The cache around an ASGI app."""

    async def cached(scope: Scope, receive: Receive, send: Send) -> None:
        request = asgi_request(scope)
        added = control.before(request)
        if isinstance(added, Answer):
            await send_asgi(send, added)
            return
        headers = [*scope["headers"], *((name.encode(), value.encode("latin-1")) for name, value in added)]
        answer = await collect_asgi(app, {**scope, "headers": headers}, receive)
        await send_asgi(send, control.after(request, added, answer))

    return cached


def around_wsgi(control: Control, app: WSGIApp) -> WSGIApp:
    """The cache around a WSGI app."""

    def cached(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        target = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else "")
        fields = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
        request = Request(environ["REQUEST_METHOD"], target, fields)
        added = control.before(request)
        if isinstance(added, Answer):
            return begin_wsgi(start_response, added)
        more = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in added}
        answer = collect_wsgi(app, {**environ, **more})
        return begin_wsgi(start_response, control.after(request, added, answer))

    return cached
