"""Apps behind gateways whose buckets are their process's own, or are said not to be.

Each gateway has the name of its app.
"""

from apigate import Gateway, asgi, wsgi
from apigate.stores.memory import MemoryStore

LIMIT = "1000/minute"


class Shared(MemoryStore):
    """As if other processes took from the same buckets."""

    shared = True


async def plain_asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def plain_wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


asgi_app = asgi.GatewayMiddleware(plain_asgi, Gateway(name="asgi_app", throttle=LIMIT))
wsgi_app = wsgi.GatewayMiddleware(plain_wsgi, Gateway(name="wsgi_app", throttle=LIMIT))
shared_app = wsgi.GatewayMiddleware(plain_wsgi, Gateway(name="shared_app", throttle=LIMIT, store=Shared()))
shadow_app = wsgi.GatewayMiddleware(
    plain_wsgi, Gateway(name="shadow_app", throttle=LIMIT, in_flight=20, modes={"global": "shadow"})
)
