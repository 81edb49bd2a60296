"""The app that real servers serve to `test_servers`; `python -m tests.flask.live FD` serves it by waitress."""

import socket
import sys

from flask import Flask, Response, stream_with_context
from flask_cors import CORS

from apigate.flask import context
from tests.flask.asking import gated, gateway

app = Flask("live")
gate = gateway(throttle="1000/minute")


@app.get("/things/<int:n>")
@gate.throttle("2/minute", per="client")
def thing(n: int) -> str:
    """Limited."""
    return f"{context.method} {n}"


@app.get("/numbers")
def numbers() -> Response:
    """Streamed."""
    return Response(stream_with_context(f"{n} {context.method}\n" for n in range(3)), mimetype="text/plain")


CORS(app)
gated(app, gate)

if __name__ == "__main__":
    from waitress import create_server

    create_server(app, sockets=[socket.socket(fileno=int(sys.argv[1]))]).run()
