"""The acts of `apps` as a FastAPI app does them, at home behind `app.add_middleware(GatewayMiddleware, ...)`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import StreamingResponse

from apigate import Gateway
from apigate.core.context import RequestContext
from apigate.fastapi import GatewayMiddleware, context
from tests.adapters import apps
from tests.adapters.cells import Home, asgi_host_of

Context = Annotated[RequestContext, Depends(context)]


def fastapi_app(
    gateway: Gateway | None = None, *, stage: str | None = None, mark: apps.Mark = apps.unmarked
) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_api_route("/pets/{id}", mark(pet), methods=["GET", "HEAD", "POST"])
    app.add_api_route("/login", login, methods=["POST"])
    app.add_api_route("/{rest:path}", anything, methods=["GET", "HEAD", "POST"])
    app.add_api_websocket_route("/pets/{id}", mark(pet_chat))
    app.add_api_websocket_route("/{rest:path}", chat)
    if gateway is not None:
        app.add_middleware(GatewayMiddleware, gateway=gateway, stage=stage)
    return app


def fastapi_host() -> Any:
    home = Home("asgi", fastapi_app, GatewayMiddleware)
    return asgi_host_of(home, fastapi_app(Gateway(throttle="1/day")))


# ---- endpoints


async def pet(request: Request, id: str, found: Context) -> Response:  # noqa: A002 - as the route calls it
    return await act(request, found)


async def login(request: Request, found: Context) -> Response:
    return await act(request, found)


async def anything(request: Request, found: Context) -> Response:
    return await act(request, found)


async def act(request: Request, found: RequestContext) -> Response:
    request.scope["test.ledger"].add("calls")
    return await ACTS[request.headers.get("x-do", "hello")](request, found)


async def hello(request: Request, found: RequestContext) -> Response:
    response = Response(b"" if request.method == "HEAD" else b"hello")
    fields = [*apps.OWN_FIELDS, ("content-type", "text/plain"), ("content-length", "5")]
    response.raw_headers = apps.encoded(fields)
    return response


async def echo(request: Request, found: RequestContext) -> Response:
    return Response(await request.body())


async def status(request: Request, found: RequestContext) -> Response:
    return Response(status_code=int(request.headers["x-status"]))


async def missing(request: Request, found: RequestContext) -> Response:
    raise HTTPException(404)


async def seen(request: Request, found: RequestContext) -> Response:
    return Response(apps.described(found, native(request)))


def native(connection: Request | WebSocket) -> dict[str, Any]:
    scope = connection.scope
    return {"path": scope["path"], "mount": scope["root_path"], "query": connection.url.query}


async def broken(request: Request, found: RequestContext) -> Response:
    raise RuntimeError("the app is broken")


async def throttled(request: Request, found: RequestContext) -> Response:
    raise apps.throttled()


async def raise_late(request: Request, found: RequestContext) -> Response:
    error = RuntimeError("the app broke down half-way")
    return StreamingResponse(apps.half_async(error), headers={"content-length": "100"})


async def throttled_late(request: Request, found: RequestContext) -> Response:
    return StreamingResponse(apps.half_async(apps.throttled()), headers={"content-length": "100"})


async def stream(request: Request, found: RequestContext) -> Response:
    chunks = apps.turnstile_async(int(request.headers["x-turnstile"]))
    return StreamingResponse(chunks, media_type=request.headers.get("x-type", "text/plain"))


async def endless(request: Request, found: RequestContext) -> Response:
    return StreamingResponse(apps.pieces_async(request.scope["test.ledger"]))


ACTS: dict[str, Callable[[Request, RequestContext], Awaitable[Response]]] = {
    "hello": hello,
    "echo": echo,
    "status": status,
    "missing": missing,
    "context": seen,
    "raise": broken,
    "raise-late": raise_late,
    "throttled": throttled,
    "throttled-late": throttled_late,
    "stream": stream,
    "endless": endless,
}


# ---- websockets


async def pet_chat(socket: WebSocket, id: str, found: Context) -> None:  # noqa: A002 - as the route calls it
    await chat(socket, found)


async def chat(socket: WebSocket, found: Context) -> None:
    """Says who is there, then gives every message back, until the client says goodbye."""
    socket.scope["test.ledger"].add("calls")
    asked = socket.headers.get("x-do", "hello")
    if asked == "throttled-connected":
        await socket.receive()
    if asked.startswith("throttled"):
        raise apps.throttled()
    subprotocols = socket.scope.get("subprotocols")
    await socket.accept(subprotocols[-1] if subprotocols else None, headers=[(b"x-app", b"yes")])
    await socket.send_bytes(apps.described(found, native(socket)))
    while (message := await socket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text == "raise":
            raise RuntimeError("the app is broken")
        if text == "bye":
            await socket.close(4000, "bye")
            return
        await (socket.send_bytes(message["bytes"]) if text is None else socket.send_text(text))
