"""As `apps.py`, for what each process needs longer to import."""

from asgiref.wsgi import WsgiToAsgi
from fastapi import FastAPI
from flask import Flask

from apigate import Gateway, asgi, wsgi
from apigate.flask import Apigate
from tests.workers.apps import LIMIT, plain_wsgi

fastapi_app = FastAPI(openapi_url=None)
fastapi_app.add_middleware(asgi.GatewayMiddleware, gateway=Gateway(name="fastapi_app", throttle=LIMIT))
fastapi_app.get("/")(lambda: "ok")

flask_app = Flask(__name__)
flask_app.get("/")(lambda: "ok")
Apigate(flask_app, Gateway(name="flask_app", throttle=LIMIT))

within = wsgi.GatewayMiddleware(plain_wsgi, Gateway(name="asgi_of_wsgi_app", throttle=LIMIT))
asgi_of_wsgi_app = WsgiToAsgi(within)
