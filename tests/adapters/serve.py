"""Runs uvicorn on a socket that the test opened: `python -m tests.adapters.serve FD HTTP WEBSOCKETS`."""

import socket
import sys

import uvicorn

from tests.adapters.cells import asgi_host

if __name__ == "__main__":
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(asgi_host(), http=sys.argv[2], ws=sys.argv[3], lifespan="on", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])
