"""The cache and Django's responses: what an exchange hears of them, and what is made of an answer.

Rule: what is stored is the response as it is here. What middleware further out is going to add to it, and what tells
that it was made for one person, counts as if it were there already: a session that was read is `Vary: Cookie`, a cookie
that is still to be set forbids to store it.

Source: RFC 9111; Django, "Middleware ordering"; CVE-2026-48588, CVE-2026-35192.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from http.cookies import CookieError, Morsel
from typing import Any, cast, final

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.http.request import RawPostDataException, UnreadablePostError

from apigate.caching.answer import Answer
from apigate.caching.exchange import UNKEYED, Exchange
from apigate.core.message import Field, RequestFields, is_length
from apigate.core.native import put_fields
from apigate.core.steps import let_go
from apigate.routing.kept_chunks import KeptChunks, KeptChunksAsync, Later, end

__all__ = [
    "DjangoCarrier",
    "add_fields",
    "answered",
    "carry",
    "closers",
    "do_nothing",
    "expected_lines",
    "field_lines",
    "has_read_content",
    "is_file",
    "put_questions",
    "read_content",
]

_VARY = ("Vary", "Cookie")
_NEVER = ("Vary", "*")


@final
class DjangoCarrier:
    """Between the cache and a view of Django, see `Carrier`.

    Args:
        request: The request that the view serves.
    """

    def __init__(self, request: HttpRequest) -> None:
        """Keep it."""
        self._request = request

    def put_questions(self, exchange: Exchange) -> Callable[[], None]:
        """See `Carrier`."""
        return put_questions(self._request, exchange)

    def answer(self, answer: Answer) -> HttpResponse:
        """See `Carrier`."""
        return answered(answer)

    def read_content(self, most: int) -> bytes | None:
        """See `Carrier`."""
        return read_content(self._request, most)

    def carry(self, exchange: Exchange, returned: object) -> object:
        """See `Carrier`; what is no response is left for Django to complain of."""
        if not isinstance(returned, HttpResponseBase):
            end(exchange)
            return returned
        if getattr(returned, "is_rendered", True) or not exchange.keeps:
            return carry(exchange, self._request, returned)

        def rendered(response: HttpResponse) -> HttpResponseBase:
            made = carry(exchange, self._request, response)
            end(exchange)
            return made

        cast("Any", returned).add_post_render_callback(rendered)
        return returned


def carry(
    exchange: Exchange, request: HttpRequest, response: HttpResponseBase, later: Later = let_go
) -> HttpResponseBase:
    """Have an exchange hear a response, and give what the client gets.

    Args:
        exchange: The exchange.
        request: The request.
        response: The response, rendered.
        later: As for `end`, of a response that is streamed.
    """
    if request.method in ("GET", "HEAD") and has_read_content(request):
        exchange.waive(UNKEYED)
    lines = [*field_lines(response), *expected_lines(request, response)]
    added = exchange.begin(response.status_code, lines)
    if exchange.replies:
        made = exchange.finish()
        if made is not None:
            replaced = answered(made)
            closers(replaced).extend(closers(response))  # not its close(): that tells Django that the request has ended
            return replaced
    add_fields(response, added)
    if not isinstance(response, StreamingHttpResponse):
        if exchange.keeps:
            exchange.feed(cast("HttpResponse", response).content)
        exchange.finish()
    elif is_file(response):
        exchange.waive()  # the server sends it by itself
        exchange.finish()
    elif response.is_async:
        response.streaming_content = KeptChunksAsync(exchange, response.streaming_content)
        closers(response).append(lambda: end(exchange, later))
    else:
        response.streaming_content = KeptChunks(exchange, response.streaming_content, later)
    return response


def answered(answer: Answer) -> HttpResponse:
    """What the cache answers, as a response of Django."""
    made = HttpResponse(answer.body, status=answer.status)
    del made.headers["Content-Type"]  # the default
    for name, value in answer.text:
        if name.lower() == "set-cookie":
            _set_cookie(made, value)
        else:
            known = made.headers.get(name)
            made.headers[name] = value if known is None else f"{known}, {value}"
    return made


def add_fields(response: HttpResponseBase, added: "list[Field] | tuple[Field, ...]") -> None:
    """Add fields to a response; Django has one line for each name."""
    for field in added:
        name, value = field.text
        known = response.headers.get(name)
        response.headers[name] = value if known is None else f"{known}, {value}"


def field_lines(response: HttpResponseBase) -> list[tuple[str, str]]:
    """The field lines of a response, with those of its cookies."""
    cookies = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    return [*[(str(name), str(value)) for name, value in response.items()], *cookies]


def put_questions(request: HttpRequest, exchange: Exchange | None) -> Callable[[], None]:
    """Set what the cache asks the project itself, and give what takes that back: it is no question of the client's.

    Args:
        request: The request.
        exchange: The exchange, if there is one.
    """
    if exchange is None or not exchange.questions:
        return do_nothing

    def put(fields: RequestFields) -> RequestFields:
        vars(request).pop("headers", None)  # it is read from META once
        return put_fields(request.META, fields)

    before = put(exchange.questions)

    def take_back() -> None:
        put(before)

    return take_back


def read_content(request: HttpRequest, most: int) -> bytes | None:
    """The whole content of a request, which the view can read again; None if it is longer than `most` bytes.

    Under ASGI a request that does not say how long its content is has none that can be read here.

    Args:
        request: The request.
        most: Bytes.
    """
    declared: str = request.META.get("CONTENT_LENGTH") or ""
    if declared:
        if not is_length(declared) or int(declared) > most:
            return None
    elif hasattr(request, "scope"):
        return None
    try:
        content = request.body
    except (RawPostDataException, RequestDataTooBig, UnreadablePostError):
        return None
    return content if len(content) <= most and (not declared or len(content) == int(declared)) else None


def has_read_content(request: HttpRequest) -> bool:
    """Tell whether the project has read content of a request, of which over HTTP/2 no field tells."""
    held = vars(request)
    return bool(held["_body"] if "_body" in held else held.get("_read_started"))


def closers(response: HttpResponseBase) -> list[Callable[[], object]]:
    """What is called when a response is closed; Django has no public name for it."""
    found: list[Callable[[], object]] = cast("Any", response)._resource_closers  # noqa: SLF001
    return found


def is_file(response: StreamingHttpResponse) -> bool:
    """Tell whether the server may send the response as a file."""
    return getattr(response, "file_to_stream", None) is not None


def expected_lines(request: HttpRequest, response: HttpResponseBase) -> Iterator[tuple[str, str]]:
    """What sessions, CSRF protection, messages and languages will add further out, for the exchange alone."""
    varied = {name.strip().lower() for name in response.headers.get("Vary", "").split(",")}
    session: object = getattr(request, "session", None)
    if getattr(session, "modified", False) and settings.SESSION_COOKIE_NAME not in response.cookies:
        yield _NEVER
    if request.META.get("CSRF_COOKIE_NEEDS_UPDATE"):
        yield _NEVER
    messages: object = getattr(request, "_messages", None)
    if getattr(messages, "used", False) or getattr(messages, "added_new", False):
        yield _NEVER  # what one visitor is told; Django says so in no field
    if getattr(session, "accessed", False) and "cookie" not in varied:
        yield _VARY
    if hasattr(request, "LANGUAGE_CODE") and "accept-language" not in varied and "Content-Language" not in response:
        yield "Vary", "Accept-Language, Cookie"


def _set_cookie(made: HttpResponse, line: str) -> None:
    """Set a cookie as its line has it; one that Python cannot read keeps its words."""
    before = len(made.cookies)
    with suppress(CookieError):
        made.cookies.load(line)
    if len(made.cookies) == before:
        name = line.partition("=")[0].strip()
        cookies: dict[str, Any] = made.cookies
        dict[str, Any].__setitem__(cookies, f"{name} {before}", _Line(line))


class _Line(Morsel[str]):
    """A line of Set-Cookie as it is."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line

    def OutputString(self, attrs: object = None) -> str:  # noqa: ARG002, N802 - as its parent has it
        return self._line


def do_nothing() -> None:
    """There is nothing to be taken back."""
