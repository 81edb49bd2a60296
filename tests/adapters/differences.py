"""Where a server, or a framework, does otherwise than the table promises: what it does, by whom, and why.

No cell is skipped. A row that meets one of these asks `visit.differs(...)` and asserts what that server does instead;
`test_servers` sees to it that every line here is asked for, and that nothing else leaves a row early.
"""

FRAMEWORKS = ("fastapi_host", "django_asgi_host", "flask_host", "django_wsgi_host")

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
    "may cut off a response before its body": {
        "granian-wsgi": "head and chunks wait in a buffer that an error of the body throws away, if that comes soon",
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
    "counts each of its endpoints": dict.fromkeys(
        FRAMEWORKS, "its routes are read, so a request that no method names is counted where it goes"
    ),
    "has no endpoints": dict.fromkeys(
        ("asgi_host", "wsgi_host"),
        "its app is one function: no verb is wrong, and what is decorated is found out when it is called",
    ),
    "makes a 500 of an error by itself": {
        "flask_host": "handle_exception answers within the gate, which lets it out as any response",
        "django_asgi_host": "convert_exception_to_response stands around each middleware and the view within",
        "django_wsgi_host": "convert_exception_to_response stands around each middleware and the view within",
    },
    "answers for what is missing in words of its own": {
        "fastapi_host": "HTTPException is answered in JSON",
        "flask_host": "abort is answered in HTML",
        "django_asgi_host": "Http404 is answered in HTML",
        "django_wsgi_host": "Http404 is answered in HTML",
    },
    "hands out a context where there is no gate": dict.fromkeys(
        FRAMEWORKS, "a view need not ask whether there is one: it is empty, and belongs to no stage"
    ),
    "routes on what is left below the stage": {
        "django_asgi_host": "path_info is without the prefix, as in WSGI",
    },
    "sends cookies last": dict.fromkeys(
        ("django_asgi_host", "django_wsgi_host"), "a response keeps its cookies apart until the handler sends it"
    ),
    "leaves it to the garbage collector to close a body that it could not send": {
        "fastapi_host": "StreamingResponse closes no iterator; an error on the way may keep it for a while",
        "asgi+django_asgi_host": "sending raises once the client has gone, and then its handler closes no response",
        "granian-asgi+django_asgi_host": "the same, where that comes before the message that the client has gone",
    },
}
