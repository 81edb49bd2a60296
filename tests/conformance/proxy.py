"""A reverse proxy in a few lines, as an ASGI app and as a WSGI app: what the caches stand around over real HTTP.

It forwards by a transport of httpx and not by a client, which would add fields of its own and decode bodies. The raw
path and the raw body go on; what is hop-by-hop stays here.
"""

from collections.abc import AsyncIterable, Iterable, Iterator

import httpx

from apigate.asgi import ASGIApp, Receive, Scope, Send
from apigate.wsgi import Environ, StartResponse, WSGIApp
from tests.conformance.native import asgi_request, begin_wsgi, read_asgi, send_asgi, wsgi_request
from tests.conformance.wire import Answer, Request, across_hop, framed, without

_BAD_GATEWAY = Answer(502, framed([("content-type", "text/plain")], len(b"Bad Gateway")), b"Bad Gateway")
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


def asgi_proxy(port: int, *, raises: bool) -> ASGIApp:
    """Forward to a port of loopback.

    Args:
        port: Where the origin listens.
        raises: Whether it raises the transport's error where the origin drops the connection; else it answers 502.
    """
    transport = httpx.AsyncHTTPTransport(limits=_LIMITS)

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        request = asgi_request(scope, await read_asgi(receive))
        try:
            response = await transport.handle_async_request(_outward(request, port))
        except httpx.TransportError:
            if raises:
                raise
            await send_asgi(send, _BAD_GATEWAY)
            return
        headers = [(name.encode(), value.encode("latin-1")) for name, value in _fields(response)]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        assert isinstance(response.stream, AsyncIterable)
        async for chunk in response.stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await response.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return proxy


def wsgi_proxy(port: int, *, raises: bool) -> WSGIApp:
    """The same as a WSGI app."""
    transport = httpx.HTTPTransport(limits=_LIMITS)

    def proxy(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            response = transport.handle_request(_outward(wsgi_request(environ), port))
        except httpx.TransportError:
            if raises:
                raise
            return begin_wsgi(start_response, _BAD_GATEWAY)
        begin_wsgi(start_response, Answer(response.status_code, _fields(response)))
        return _chunks(response)

    return proxy


def _outward(request: Request, port: int) -> httpx.Request:
    fields = without(across_hop(request.fields), ("host",))
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    url = httpx.URL(scheme="http", host="127.0.0.1", port=port, raw_path=request.target.encode())
    return httpx.Request(request.method, url, headers=headers, content=request.body or None)


def _fields(response: httpx.Response) -> list[tuple[str, str]]:
    fields = [(name.decode().lower(), value.decode("latin-1")) for name, value in response.headers.raw]
    return across_hop(fields)


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    assert isinstance(response.stream, Iterable)
    try:
        yield from response.stream
    finally:
        response.close()
