"""One trace of requests through a gateway, by ASGI and by WSGI, and what there is to be seen of it."""

import asyncio
import io
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from types import SimpleNamespace

from apigate import CachePolicy, Gateway, Method, ResponseCache, asgi, wsgi
from apigate.core.context import RequestContext
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from tests.properties.cache_model import Outcome, Question, Said, Visit

__all__ = ["AsgiWorld", "Script", "World", "WsgiWorld"]

CONDITIONS = ("if-none-match", "if-modified-since", "if-range", "range")
BODY = b"0123456789"


@dataclass(frozen=True)
class Script:
    """What the app answers, whoever asks; times are seconds from now."""

    status: int = 200
    cache_control: str = ""
    targeted: str = ""
    vary: str = ""
    etag: str = ""
    modified: int | None = None
    expires: int | None = None  # below -900: a text that is no date
    date: int | None = None
    age: int | None = None
    cookie: bool = False
    location: str = ""
    broken: str = ""
    delay: float = 0
    listed: bool = True  # whether a WSGI app gives a list
    number: int = 0

    def said(self, question: Question, wall: float) -> Said:
        """The answer to a question."""
        conditions = dict(question.conditions)
        fields = {
            "x-made": str(self.number),
            "cache-control": self.cache_control,
            "cdn-cache-control": self.targeted,
            "vary": self.vary,
            "last-modified": self._date(self.modified, wall),
            "expires": "0" if self.expires is not None and self.expires < -900 else self._date(self.expires, wall),
            "date": self._date(self.date, wall),
            "age": "" if self.age is None else str(self.age),
            "set-cookie": "a=b" if self.cookie else "",
            "location": self.location,
        }
        status = self.status
        if self.is_unchanged(conditions, wall):
            status = 304
        if status != 304 or "if-none-match" in conditions:
            fields["etag"] = self.etag
        if status not in (204, 304):
            fields["content-length"] = str(5 + self.number % 6)
        fields["x-end"] = "1"  # what follows it is the cache's
        has_content = status not in (204, 304) and question.method != "HEAD"
        body = BODY[: 5 + self.number % 6] if has_content else b""
        broken = self.broken if has_content or self.broken == "first" else ""
        return Said(
            status,
            tuple((name, value) for name, value in fields.items() if value),
            body[:3] if broken in ("within", "short") else body,
            broken,
        )

    def is_unchanged(self, conditions: Mapping[str, str], wall: float) -> bool:
        """Whether 304 is the answer."""
        if self.status != 200:
            return False
        if "if-none-match" in conditions:
            return bool(self.etag) and self.etag.removeprefix("W/") in conditions["if-none-match"].replace("W/", "")
        return self.modified is not None and conditions.get("if-modified-since") == self._date(self.modified, wall)

    @staticmethod
    def _date(offset: int | None, wall: float) -> str:
        """Rounded to ten minutes, so that one moment is met again."""
        if offset is None:
            return ""
        return formatdate((int(wall) // 600 * 600 if offset < -900 else int(wall)) + offset, usegmt=True)


class Verifier:
    """A gate that knows some credentials, and lets all others through as nobody."""

    phase = Phase.AUTHORIZE

    def __init__(self, known: Collection[str]) -> None:
        self.known = known

    def on_request(self, context: RequestContext) -> None:
        credential = context.request.value("authorization")
        context.principal = credential if credential in self.known else None


class World:
    """A gateway with a cache around one app that answers by the script of the moment."""

    def __init__(
        self, policy: CachePolicy, cache: ResponseCache | None = None, known: Collection[str] = frozenset()
    ) -> None:
        self.clock = FakeClock()
        self.cache = cache or ResponseCache()
        gates = [Verifier(known)] if known else []
        methods = {"*": Method(cache=policy)}
        self.gateway = Gateway(cache=self.cache, methods=methods, clock=self.clock, policies=gates)
        self.script = Script()
        self.wall = self.clock.wall()  # when the visit began: what is asked later is answered the same
        self.asked: list[Question] = []

    def answer(self, method: str, fields: Mapping[str, str]) -> Said:
        """What the app answers; it takes its time."""
        conditions = tuple(sorted((name, value) for name, value in fields.items() if name in CONDITIONS))
        question = Question(method, conditions)
        self.asked.append(question)
        said = self.script.said(question, self.wall)
        self.clock.advance(self.script.delay)
        return said

    def visit(self, visit: Visit, script: Script) -> Outcome:
        """Ask, and wait for what is done in the background."""
        self.script, self.wall, self.asked = script, self.clock.wall(), []
        seen = self._send(visit)
        if seen.status in (0, 504):  # the app raised; the gate's own words
            return Outcome("gate" if seen.status else "none", seen.status, asked=tuple(self.asked))
        return Outcome(
            origin_of(seen),
            seen.status,
            seen.body,
            int(seen.fields["age"]) if origin_of(seen) == "store" else None,
            seen.fields.get("x-made") if seen.status != 304 else None,
            seen.fields.get("etag"),
            tuple(self.asked),
        )

    def _send(self, visit: Visit) -> SimpleNamespace:
        raise NotImplementedError

    def close(self) -> None:
        """End it."""


def origin_of(seen: SimpleNamespace) -> str:
    """Whose response it is: before Cache-Status stands the cache's own Age, or the last field of the app."""
    names = list(seen.fields)
    return "store" if names[names.index("cache-status") - 1] == "age" else "app"


class AsgiWorld(World):
    """Through ASGI."""

    def __init__(
        self, policy: CachePolicy, cache: ResponseCache | None = None, known: Collection[str] = frozenset()
    ) -> None:
        super().__init__(policy, cache, known)
        self.runner = asyncio.Runner()
        self.app = asgi.GatewayMiddleware(self._app, self.gateway)

    def close(self) -> None:
        self.runner.close()

    async def _app(self, scope, receive, send):
        fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        said = self.answer(scope["method"], fields)
        if said.broken == "first":
            raise ConnectionResetError("the app failed")
        headers = [(name.encode(), value.encode()) for name, value in said.fields]
        await send({"type": "http.response.start", "status": said.status, "headers": headers})
        await send({"type": "http.response.body", "body": said.body[:2], "more_body": True})
        await asyncio.sleep(0)
        if said.broken == "within":
            await send({"type": "http.response.body", "body": said.body[2:], "more_body": True})
            raise ConnectionResetError("the app failed")
        await send({"type": "http.response.body", "body": said.body[2:], "more_body": False})

    def _send(self, visit: Visit) -> SimpleNamespace:
        return self.runner.run(self._ask(visit))

    async def _ask(self, visit: Visit) -> SimpleNamespace:
        scope = {
            "type": "http",
            "method": visit.method,
            "scheme": "http",
            "path": visit.path,
            "raw_path": visit.path.encode(),
            "query_string": visit.query.encode(),
            "headers": [(b"host", b"shop")] + [(name.encode(), value.encode()) for name, value in visit.fields],
            "client": ("127.0.0.1", 50_000),
        }
        sent: list[dict] = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        with suppress(ConnectionResetError):
            await self.app(scope, receive, send)
        behind = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*behind)
        if not sent:
            return SimpleNamespace(status=0)
        pairs = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        return seen(sent[0]["status"], pairs, b"".join(message.get("body", b"") for message in sent[1:]))


class WsgiWorld(World):
    """Through WSGI."""

    def __init__(
        self, policy: CachePolicy, cache: ResponseCache | None = None, known: Collection[str] = frozenset()
    ) -> None:
        super().__init__(policy, cache, known)
        self.app = wsgi.GatewayMiddleware(self._app, self.gateway)

    def _app(self, environ, start_response):
        fields = {name[5:].replace("_", "-").lower(): environ[name] for name in environ if name.startswith("HTTP_")}
        said = self.answer(environ["REQUEST_METHOD"], fields)
        if said.broken == "first":
            raise ConnectionResetError("the app failed")
        if self.script.listed and said.broken != "within":
            start_response(f"{said.status} Said", list(said.fields))
            return [said.body[:2], said.body[2:]]
        return self._streamed(said, start_response)

    def _streamed(self, said: Said, start_response) -> Iterator[bytes]:
        start_response(f"{said.status} Said", list(said.fields))
        yield said.body[:2]
        yield said.body[2:]
        if said.broken == "within":
            raise ConnectionResetError("the app failed")

    def _send(self, visit: Visit) -> SimpleNamespace:
        environ = {
            "REQUEST_METHOD": visit.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": visit.path,
            "RAW_URI": visit.path,
            "QUERY_STRING": visit.query,
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.multithread": True,
            "HTTP_HOST": "shop",
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in visit.fields},
        }
        heads: list[tuple[str, list]] = []
        chunks: list[bytes] = []

        def start_response(status, headers, exc_info=None):
            heads.append((status, headers))
            return chunks.append

        with suppress(ConnectionResetError):
            body = self.app(environ, start_response)
            try:
                chunks.extend(body)
            finally:
                getattr(body, "close", lambda: None)()
        for thread in threading.enumerate():
            if thread.name == "apigate refresh":
                thread.join()
        if not heads:
            return SimpleNamespace(status=0)
        status, headers = heads[0]
        return seen(int(status[:3]), [(name.lower(), value) for name, value in headers], b"".join(chunks))


def seen(status: int, pairs: list[tuple[str, str]], body: bytes) -> SimpleNamespace:
    """A response, in which no field comes twice."""
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), pairs
    return SimpleNamespace(status=status, fields=dict(pairs), body=body)
