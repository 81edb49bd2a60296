"""Apps of every kind with a gate and a CORS layer, each answering `/limited` twice and then refusing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

from apigate import CORS, Gateway, Rate
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.wsgi import GatewayMiddleware as WSGIGate

EXPOSED = ["Retry-After", "RateLimit"]


class API(NamedTuple):
    """An app, and which of the two interfaces it has."""

    protocol: str
    app: Any


def gateway(**settings: Any) -> Gateway:
    return Gateway(client_throttle=Rate(1, per=3_600, burst=2), **settings)


def flask_cors(origin: str) -> API:
    import flask_cors as extension
    from flask import Flask

    from apigate.flask import Apigate

    app = Flask("flask_cors_app")
    extension.CORS(app, origins=[origin], expose_headers=EXPOSED)
    Apigate(app, gateway())
    app.get("/limited")(lambda: "served")
    return API("wsgi", app)


def flask_by_hand(origin: str) -> API:
    from flask import Flask, Response

    from apigate.flask import Apigate

    app = Flask("flask_by_hand")
    Apigate(app, gateway())

    @app.after_request
    def cors(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Headers"] = "X-Custom"
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED)
        return response

    app.get("/limited")(lambda: "served")
    return API("wsgi", app)


def fastapi(origin: str, *, outside: bool) -> API:
    from fastapi import FastAPI
    from fastapi.middleware.cors import CORSMiddleware
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/limited")
    async def limited() -> PlainTextResponse:
        return PlainTextResponse("served")

    cors = {"allow_origins": [origin], "allow_headers": ["X-Custom"], "expose_headers": EXPOSED}
    layers: list[tuple[Any, dict[str, Any]]] = [(CORSMiddleware, cors), (ASGIGate, {"gateway": gateway()})]
    for layer, settings in layers if outside else reversed(layers):  # the last that is added stands outside
        app.add_middleware(layer, **settings)
    return API("asgi", app)


def fastapi_wrapped(origin: str) -> API:
    inner = fastapi(origin, outside=True).app
    inner.user_middleware = [layer for layer in inner.user_middleware if layer.cls is not ASGIGate]
    return API("asgi", ASGIGate(inner, gateway()))


def plain_asgi(origin: str, **settings: Any) -> API:
    """An app that answers preflights itself, and has no layer that could be asked."""
    fields = [(b"access-control-allow-origin", origin.encode()), (b"access-control-allow-headers", b"X-Custom")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"served"})

    return API("asgi", ASGIGate(app, gateway(**settings)))


def plain_wsgi(origin: str, **settings: Any) -> API:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(
            "200 OK", [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Headers", "X-Custom")]
        )
        return [b"served"]

    return API("wsgi", WSGIGate(app, gateway(**settings)))


@contextmanager
def django(origin: str) -> Iterator[dict[str, API]]:
    """The one Django project a process can have, over both interfaces."""
    import django as framework
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, HttpResponse
    from django.test import override_settings
    from django.urls import path

    framework.setup()

    def limited(request: HttpRequest) -> HttpResponse:
        return HttpResponse("served", content_type="text/plain")

    urls: Any = ModuleType("browser_urls")
    urls.urlpatterns = [path("limited", limited)]
    sys.modules["browser_urls"] = urls
    apps = {}
    for name, build in {"django": get_wsgi_application, "django async": get_asgi_application}.items():
        settings = override_settings(
            ROOT_URLCONF="browser_urls",
            INSTALLED_APPS=["corsheaders", "apigate.django"],
            MIDDLEWARE=["apigate.django.GatewayMiddleware", "corsheaders.middleware.CorsMiddleware"],
            CORS_ALLOWED_ORIGINS=[origin],
            CORS_ALLOW_HEADERS=["x-custom"],
            CORS_EXPOSE_HEADERS=EXPOSED,
            APIGATE={"GATEWAY": gateway()},
        )
        settings.enable()
        apps[name] = (settings, API("wsgi" if name == "django" else "asgi", build()))
    try:
        yield {name: api for name, (_, api) in apps.items()}
    finally:
        for settings, _ in reversed(apps.values()):
            settings.disable()
        del sys.modules["browser_urls"]


@contextmanager
def all_of_them(origin: str) -> Iterator[dict[str, API]]:
    """Every API by name; the last two are to fail or to be refused by the browser."""
    own = CORS(allow_origins=[origin])
    with django(origin) as projects:
        yield {
            "flask-cors": flask_cors(origin),
            "flask by hand": flask_by_hand(origin),
            "fastapi, gate outside": fastapi(origin, outside=True),
            "fastapi, gate inside": fastapi(origin, outside=False),
            "fastapi, gate around": fastapi_wrapped(origin),
            **projects,
            "asgi with CORS": plain_asgi(origin, cors=own),
            "wsgi with CORS": plain_wsgi(origin, cors=own),
            "asgi without": plain_asgi(origin),
            "wsgi, another origin": plain_wsgi(origin, cors=CORS(allow_origins=["https://elsewhere.example"])),
        }
