"""A small shop of one's own in the current folder, and the command line to be tried on it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from apigate.cli import main

SHOP = """
from apigate import Gateway, Method, Rate, Stage, asgi, wsgi

async def asgi_app(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    body = b"asgi " + scope["path"].encode() + b" " + scope["apigate"].client.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

def wsgi_app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"wsgi ", environ["PATH_INFO"].encode(), b" ", environ["apigate.context"].client.encode()]

class Callable3:
    async def __call__(self, scope, receive, send): ...

class Callable2:
    def __call__(self, environ, start_response): ...

class Namespace:
    app = wsgi_app

asgi_object, wsgi_object, number = Callable3(), Callable2(), 7

def old_asgi(scope, receive, send):
    return asgi_app(scope, receive, send)

def anything(*args): ...

def internal(request):
    return False

class Own:
    from apigate.core.policy import Phase
    phase = Phase.GUARD
    def on_request(self, context): ...

gateway = Gateway(
    name="shop",
    throttle=Rate(1000),
    in_flight=20,
    modes={"client": "shadow"},
    policies=[Own()],
    stage_by="path-prefix",
    stages=[
        Stage(
            "prod",
            throttle=Rate(100, burst=200),
            client_throttle=["10/second", "1000/hour"],
            client_in_flight=4,
            methods={
                "*": Method(throttle=Rate(50)),
                "GET /pets/{id}": Method(cost=3, refund="404"),
                "POST /pets": Method(exempt=internal, modes={"method": "off"}),
                "GET /health": Method(exempt=True),
            },
        ),
        Stage("dev"),
    ],
)
gated_asgi = asgi.GatewayMiddleware(asgi_app, gateway)
gated_wsgi = wsgi.GatewayMiddleware(wsgi_app, gateway)
open_gateway = Gateway()
"""

FILES = {
    "shop.py": SHOP,
    "apigate.toml": 'client_throttle = "3/day"\n',
    "stages.toml": 'throttle = "9/day"\n[stages.prod]\nthrottle = "2/day"\n[stages.beta]\nthrottle = "1/day"\n',
    "named.toml": "methods.'GET /pets'.cache = { ttl = 60, per = 'shop:internal' }\n",
    "odd.toml": 'throttle = "5/day"\nclient_throttle = "6/day"\n',
    "typo.toml": 'throtle = "5/day"\n',
    "rate.toml": '[stages.prod]\nthrottle = "fast"\n',
    "broken.toml": "x = = 1\n",
    "bytes.toml": "name = '\udcff'\n",
    "raises.py": 'def f():\n    raise ValueError("first\\nsecond")\nf()\n',
    "syntax.py": "def f(:\n",
    "misses.py": "import no_such_dependency\n",
    "misconfigured.py": 'from apigate import Gateway\ngateway = Gateway(throttle="fast")\n',
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


class Run(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(shop: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def run_main(*arguments: str) -> Run:
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Run(status, *capsys.readouterr())

    return run_main
