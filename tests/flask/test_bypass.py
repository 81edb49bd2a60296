"""The hunt for a way around a limit in Flask's and Werkzeug's router.

Each app has one endpoint that counts how often it is reached, limited to once by a decorator or by the method table.
Every other way to write the request that still reaches it, after it was reached once, would be a bypass.
"""

from urllib.parse import unquote_to_bytes

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter

from apigate import Method
from tests.flask.asking import gated, gateway

VERBS = ["GET", "HEAD", "get", "hEaD", "OPTIONS", "POST", "QUERY", "BREW", ""]
FIELDS = {
    "none": {},
    "method override": {"HTTP_X_HTTP_METHOD_OVERRIDE": "GET"},
    "preflight": {"HTTP_ORIGIN": "https://a.example", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"},
    "websocket": {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "upgrade"},
    "host": {"HTTP_HOST": "other.example"},
    "no host": {"HTTP_HOST": "a..b"},
    "original url": {"HTTP_X_ORIGINAL_URL": "/other", "HTTP_X_REWRITE_URL": "/other"},
    "request uri": {"REQUEST_URI": "/other", "RAW_URI": "/other"},
}


def ways_to_write(path):
    """The path as written, and everything near it that some router may take for it."""
    first, last = path[1:2], path[-1:]
    swaps = {
        path,
        f"{path}/",
        f"{path}//",
        f"/{path}",
        f"//{path}",
        path.lstrip("/"),
        path.replace("/", "//"),
        path.replace("/", "/./"),
        f"/x/..{path}",
        f"/.{path}",
        f"{path}/.",
        f"{path}/..",
        f"{path}/x/..",
        f"http://shop.example{path}",
        f"//shop.example{path}",
        path.upper(),
        path.title(),
        path.swapcase(),
        f"{path}?",
        f"{path}%3F",
        f"{path}%23",
        f"{path};a=b",
        f"{path}%00",
        f"{path}%0A",
        f"{path}%20",
        f"%20{path}",
        f"{path}%09",
        f"{path}%2F",
        f"%2F{path.lstrip('/')}",
        f"{path}.",
        f"{path}%2E",
        f"{path}%FF",
        f"{path}\xad",
        path.replace(first, f"%{ord(first):02X}", 1) if first else path,
        path.replace(first, f"%{ord(first):02x}", 1) if first else path,
        path.replace(first, f"%25{ord(first):02X}", 1) if first else path,
        f"{path[:-1]}%{ord(last):02X}" if last else path,
        path.replace("/", "%2F"),
        path.replace("/", "\\"),
        path.replace("/", "%5C"),
        path.replace("a", "\N{FULLWIDTH LATIN SMALL LETTER A}"),
        path.replace("i", "\N{LATIN SMALL LETTER DOTLESS I}"),
        path.replace("s", "\N{LATIN SMALL LETTER LONG S}"),
        f"|{path}",
        f"{path}|",
    }
    return sorted(swaps)


# ---- apps; each calls `reached` in its one limited view, under `GET /things/7/details` and what its rule says


def plain(app, view):
    app.add_url_rule("/things/<int:n>/details", "v", view)


def static(app, view):
    app.add_url_rule("/things/7/details", "v", view)


def trailing_slash(app, view):
    app.add_url_rule("/things/<n>/details/", "v", view)


def path_converter(app, view):
    app.add_url_rule("/things/<path:n>", "v", view)


def everything(app, view):
    app.add_url_rule("/<path:n>", "v", view)


def several_rules(app, view):
    app.add_url_rule("/things/7/details", "v", view)
    app.add_url_rule("/things/<n>/details", "v", view)
    app.add_url_rule("/<any(things, Things):t>/<n>/details", "v", view)


def lenient(app, view):
    app.url_map.strict_slashes = app.url_map.merge_slashes = False
    app.add_url_rule("/things/<n>/details", "v", view)


def converter(app, view):
    class AnyCase(BaseConverter):
        """A router that ignores case, as a user may write one."""

        regex = "(?i:things)"

        def to_python(self, value):
            return value.lower()

    app.url_map.converters["anycase"] = AnyCase
    app.add_url_rule("/<anycase:t>/<n>/details", "v", view)


def blueprint(app, view):
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__)
    inner.add_url_rule("/details", "v", view)
    outer.register_blueprint(inner, url_prefix="/<n>")
    app.register_blueprint(outer, url_prefix="/things")


def method_view(app, view):
    class V(MethodView):
        def get(self, **arguments):
            return view(**arguments)

    app.add_url_rule("/things/<n>/details", view_func=V.as_view("v"))


def all_verbs(app, view):
    app.add_url_rule("/things/<n>/details", "v", view, methods=["GET", "POST", "QUERY", "BREW", "OPTIONS"])


def mounted(app, view):
    """The limited app is mounted at / of a dispatcher, inside the gate: the gate sees no routes."""
    app.add_url_rule("/things/<n>/details", "v", view)
    app.wsgi_app = DispatcherMiddleware(Flask("main"), {"/things": _shifted(app.wsgi_app)})


def _shifted(app):
    def call(environ, start_response):
        environ["PATH_INFO"] = "/things" + environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = ""
        return app(environ, start_response)

    return call


def override(app, view):
    """Middleware inside the gate says which verb it is."""
    app.add_url_rule("/things/<n>/details", "v", view)
    inner = app.wsgi_app

    def call(environ, start_response):
        environ["REQUEST_METHOD"] = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", environ["REQUEST_METHOD"])
        return inner(environ, start_response)

    app.wsgi_app = call


def rewriting(app, view):
    """Middleware inside the gate cleans paths."""
    app.add_url_rule("/things/<n>/details", "v", view)
    inner = app.wsgi_app

    def call(environ, start_response):
        environ["PATH_INFO"] = "/" + environ["PATH_INFO"].strip("/. ").lower()
        return inner(environ, start_response)

    app.wsgi_app = call


APPS = [
    *(plain, static, trailing_slash, path_converter, everything, several_rules, lenient, converter, blueprint),
    *(method_view, all_verbs, mounted, override, rewriting),
]
BY_TABLE = [
    *(plain, static, trailing_slash, several_rules, lenient, converter, blueprint, method_view, all_verbs, mounted),
]
"""Those whose path, as the gate sees it or as the route tells, is in the table."""


def attack(app, reached):
    """Every way to write the request, each after the endpoint was reached once; those that reached it again."""
    assert call(app, "GET", target(app), {}) == 200
    assert len(reached) == 1
    found = []
    for verb in VERBS:
        for path in ways_to_write("/things/7/details"):
            for name, fields in FIELDS.items():
                status = call(app, verb, path, fields)
                assert status != 500
                if len(reached) > 1:
                    reached.pop()
                    found.append((verb, path, name))
    return found


def target(app):
    rules = [rule.rule for rule in app.url_map.iter_rules()]
    return "/things/7/details/" if "/things/<n>/details/" in rules else "/things/7/details"


def call(app, verb, path, fields):
    """One request, as a server that hands on whatever it reads."""
    answered = []
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": verb,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        **fields,
    }
    body = app(environ, lambda status, headers, exc_info=None: answered.append(int(status[:3])))
    list(body)
    getattr(body, "close", lambda: None)()
    return answered[-1]


def counting():
    reached = []

    def view(**_):
        reached.append(1)
        return "reached"

    return view, reached


@pytest.mark.parametrize("make", APPS)
def test_the_hunt_has_something_to_find(make):
    """Without a limit every app is reached in many ways; else what follows would show nothing."""
    app = Flask("shop")
    view, reached = counting()
    make(app, view)
    ways = attack(app, reached)
    assert len({(verb, path) for verb, path, _ in ways}) >= 8
    assert {name for _, _, name in ways} >= {"none", "host", "original url", "request uri"}


@pytest.mark.parametrize("per", ["method", "client"])
@pytest.mark.parametrize("make", APPS)
def test_no_decorated_endpoint_is_reached_past_its_limit(make, per, caplog):
    app, gate = Flask("shop"), gateway()
    view, reached = counting()
    make(app, gate.throttle("1/day", per=per)(view))
    gated(app, gate)
    assert attack(app, reached) == []
    assert len(caplog.records) <= 1


@pytest.mark.parametrize("make", BY_TABLE)
def test_no_endpoint_that_the_table_names_is_reached_past_its_limit(make):
    """Where the verb of the table is `*`; by the template where the route tells, and by the path where it does not."""
    app = Flask("shop")
    gate = gateway(methods={"* /things/{id}/details": Method(client_throttle="1/day")})
    view, reached = counting()
    make(app, view)
    if make is converter:  # its template is another: a table that means all of it names that
        gate = gateway(methods={"* /{t}/{n}/details": Method(client_throttle="1/day")})
    gated(app, gate)
    beyond = attack(app, reached)
    if make is several_rules:  # a second template of the same view is another method
        beyond = [found for found in beyond if found[1].casefold().startswith("/things")]
        beyond = [found for found in beyond if not found[1].startswith("/Things")]
    assert beyond == []


@pytest.mark.parametrize("make", APPS)
def test_no_endpoint_is_reached_past_the_default_of_every_method(make):
    """`*` gives each route a bucket: whatever way it is written, a route is served once a verb."""
    app = Flask("shop")
    view, reached = counting()
    make(app, view)
    gated(app, gateway(client_throttle="1/day"))
    assert attack(app, reached) == []
