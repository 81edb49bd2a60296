"""A few promises over a real connection: uvicorn in a process of its own."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

APP = """
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.cors import CORSMiddleware

from apigate import Gateway, Method
from apigate.fastapi import GatewayMiddleware

gateway = Gateway(methods={"GET /table/{id}": Method(throttle="1/hour")})
app, router = FastAPI(), APIRouter(prefix="/pets")

@router.get("/{pet}")
@gateway.throttle("1/hour")
def read(pet: int) -> int:
    return pet

@router.get("/stream/{pet}")
@gateway.throttle("1/hour")
async def stream(pet: int) -> StreamingResponse:
    return StreamingResponse(iter([b"a", b"b"]))

@app.get("/table/{name}")
def table(name: str) -> str:
    return name

@app.websocket("/ws")
@gateway.throttle("1/hour")
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()

app.include_router(router, prefix="/api")
app.add_middleware(CORSMiddleware, allow_origins=["https://page.example"])
app.add_middleware(GatewayMiddleware, gateway=gateway)
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.py").write_text(APP, encoding="utf-8")
    listener = socket.create_server(("127.0.0.1", 0))  # listens already, so that nobody has to wait for the server
    command = [sys.executable, "-W", "ignore", "-m", "uvicorn", "served:app", "--fd", str(listener.fileno())]
    port: int = listener.getsockname()[1]
    with listener:  # and from here on only the server has it: should that end, nobody waits either
        server = subprocess.Popen([*command, "--log-level", "error"], cwd=folder, pass_fds=[listener.fileno()])
    yield port
    server.terminate()
    server.wait(timeout=30)


def got(port: int, target: str, verb: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(verb, target, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_a_decorated_endpoint_in_a_nested_router(port):
    assert got(port, "/api/pets/7")[::2] == (200, b"7")
    status, headers, body = got(port, "/api/pets/8", Origin="https://page.example")
    assert status == 429
    assert 3590 <= int(headers["retry-after"]) <= 3600
    assert headers["access-control-allow-origin"] == "https://page.example"
    assert b'"violated-policies": ["method"]' in body
    assert got(port, "/api/pets/%39")[0] == 429
    assert got(port, "/api/pets/9", "HEAD")[0] == 405


def test_a_stream(port):
    assert got(port, "/api/pets/stream/1")[::2] == (200, b"ab")
    assert got(port, "/api/pets/stream/1")[0] == 429


def test_the_method_table(port):
    assert [got(port, f"/table/{name}")[0] for name in "ab"] == [200, 429]


def test_a_websocket(port):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{port}/ws") as websocket:
        assert websocket.recv() == "hello"
    with pytest.raises(InvalidStatus) as raised, connect(f"ws://127.0.0.1:{port}/ws"):
        pass
    assert raised.value.response.status_code in (429, 403)  # 403 where the server offers no denial response


def test_the_document_names_the_refusals(port):
    status, _, body = got(port, "/openapi.json")
    assert (status, body.count(b'"429"')) == (200, 2)
