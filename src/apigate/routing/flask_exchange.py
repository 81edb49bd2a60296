"""The cache and Flask's responses, where a decorated view is its own gate.

Rule: what is stored is what the view returned. What Flask adds afterwards is added to each response anew; a session
that was read counts as `Vary: Cookie` here, and one that will be sent forbids to store the response.

Source: RFC 9111; Flask, "How the Session Works".
"""

from collections.abc import Callable, Iterator
from typing import Any, cast, final

from flask import Flask, current_app, request
from flask import Response as FlaskResponse
from flask.globals import request_ctx

from apigate.caching.answer import Answer
from apigate.caching.exchange import UNKEYED, Exchange
from apigate.core.closing import close
from apigate.core.message import RequestFields
from apigate.core.native import put_fields
from apigate.routing.kept_chunks import KeptChunks

__all__ = ["FlaskCarrier"]

_CONDITIONS = ("if_match", "if_modified_since", "if_none_match", "if_range", "if_unmodified_since", "range")


@final
class FlaskCarrier:
    """Between the cache and the view that Flask is serving, see `Carrier`."""

    def put_questions(self, exchange: Exchange) -> Callable[[], None]:
        """See `Carrier`."""
        environ = request.environ
        before = _put(environ, exchange.questions)

        def take_back() -> None:
            _put(environ, before)

        return take_back

    def answer(self, answer: Answer) -> FlaskResponse:
        """See `Carrier`."""
        made = current_app.response_class(answer.body, answer.status, list(answer.text))
        if all(name.lower() != "content-type" for name, _ in answer.text):
            made.headers.pop("Content-Type", None)
        return made

    def read_content(self, most: int) -> bytes | None:
        """See `Carrier`."""
        length = request.content_length
        if length is not None and length > most:
            return None
        content = request.get_data(cache=True)
        return content if len(content) <= most else None

    def carry(self, exchange: Exchange, returned: Any) -> FlaskResponse:  # Any: whatever a view returns
        """See `Carrier`."""
        response = current_app.make_response(returned)
        if request.method in ("GET", "HEAD") and _may_have_read_content():
            exchange.waive(UNKEYED)
        lines = [*response.headers.to_wsgi_list(), *_expected_lines(current_app)]
        added = exchange.begin(response.status_code, lines)
        if exchange.replies:
            made = exchange.finish()
            if made is not None:
                response.close()
                return self.answer(made)
        for field in added:
            response.headers.add(*field.text)
        if response.direct_passthrough:
            exchange.waive()  # a file, which the server sends by itself
            exchange.finish()
        elif response.is_sequence:
            exchange.feed(response.get_data())
            exchange.finish()
        else:
            response.response = _Streamed(exchange, response)
        return response


class _Streamed:
    """What a view streams; encoded, as the exchange hears bytes."""

    def __init__(self, exchange: Exchange, response: FlaskResponse) -> None:
        self._source = response.response
        self._kept = KeptChunks(exchange, response.iter_encoded())

    def __iter__(self) -> Iterator[bytes]:
        return self._kept

    def close(self) -> None:
        """Close the view's own iterable, then settle."""
        try:
            close(self._source)
        finally:
            self._kept.close()


def _may_have_read_content() -> bool:
    """Tell whether the app has looked for content of a request, of which over HTTP/2 no field tells."""
    is_told = str(request.environ.get("SERVER_PROTOCOL", "HTTP/1")).startswith("HTTP/1")
    return not is_told and request.content_length is None and "stream" in vars(request)


def _put(environ: dict[str, Any], fields: RequestFields) -> RequestFields:
    for name in _CONDITIONS:  # they are read from the environ once
        vars(request).pop(name, None)
    return put_fields(environ, fields)


def _expected_lines(app: Flask) -> Iterator[tuple[str, str]]:
    """What Flask's session will add, for the exchange alone."""
    context: Any = cast("Any", request_ctx)._get_current_object()  # noqa: SLF001 - `session` itself counts as access
    held = cast("dict[str, Any]", vars(context))
    session = held.get("_session", held.get("session"))
    if getattr(session, "accessed", True):
        yield "Vary", "Cookie"
    if getattr(session, "modified", True) or (session and app.session_interface.should_set_cookie(app, session)):
        yield "Vary", "*"
