"""The gateway at home in FastAPI and Starlette: `Depends(context)`, and the gate that reads the app's routes.

`app.add_middleware(GatewayMiddleware, gateway=gateway)`; it is the one of `apigate.asgi`. Add it last, so that it
stands outside: its refusals get the fields of the app's CORSMiddleware all the same.
"""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from apigate.asgi import GatewayMiddleware
from apigate.core.context import RequestContext
from apigate.core.native import asgi_request
from apigate.gateway import empty_context
from apigate.routing.starlette import routing_of

__all__ = ["GatewayMiddleware", "context", "document"]


async def context(connection: HTTPConnection) -> RequestContext:
    """The request context, for `Depends(context)`; an empty one where no gate stands around the app.

    Args:
        connection: The request, or the websocket.
    """
    found = connection.scope.get("apigate")
    return found if isinstance(found, RequestContext) else empty_context(asgi_request(connection.scope))


def document(app: ASGIApp) -> None:
    """Add the refusals of decorated endpoints to an app's OpenAPI document now.

    The gate does so by itself when its first request comes; this is for programs that write the document to a file.

    Args:
        app: The FastAPI app.
    """
    routing = routing_of(app)
    if routing is not None:
        routing.document()
