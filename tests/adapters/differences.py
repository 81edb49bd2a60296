"""Where a server does otherwise than the table promises: what it does, by whom, and why.

No cell is skipped. A row that meets one of these asks `visit.differs(...)` and asserts what that server does instead;
`test_servers` sees to it that every line here is asked for, and that nothing else leaves a row early.
"""

DIFFERENCES: dict[str, dict[str, str]] = {
    "serves one request at a time": {
        "gunicorn-sync": "its worker has no second thread, so nobody comes in while a response is under way",
    },
    "sorts fields by name": {
        "waitress": "its tasks sort what they send; fields of the same name keep their order",
    },
    "cleans a path that begins with two slashes": {
        "waitress": "it reads //prod as an authority, which a request line may not have, and removes it",
    },
    "leaves a response open whose app broke half-way": {
        "daphne": "its attempt to begin a 500 fails, and takes with it the loop that looks after all apps",
    },
    "may cut off a response before its head": {
        "granian-wsgi": "the head waits in a buffer that an error of the body throws away, if that comes soon",
    },
    "reads the head when the app returns": {
        "granian-wsgi": "a generator that calls start_response has not run by then (not as PEP 3333)",
    },
    "has no write": {
        "granian-wsgi": "its start_response returns None (not as PEP 3333)",
    },
    "has no wsgi.file_wrapper": {
        "granian-wsgi": "PEP 3333 leaves it to the server",
        "wsgi": "there is no server; test_wsgi has what is returned to one",
    },
    "reads a file itself": {
        "waitress": "it knows its own file_wrapper, but not sendfile",
    },
    "refuses every handshake with an empty 403": {
        "daphne": "without the extension websocket.http.response, a close before accept is all there is (ASGI: a 403)",
    },
    "drops the fields of an accepted handshake": {
        "daphne": "it reads only the subprotocol of websocket.accept",
        "granian-asgi": "it reads only the subprotocol of websocket.accept",
    },
    "drops empty messages": {
        "daphne": "it asks whether the text is true, not whether there is one",
    },
    "drops the reason of a close": {
        "daphne": "it reads only the code of websocket.close",
    },
}
