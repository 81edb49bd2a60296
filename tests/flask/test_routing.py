"""Which endpoint the gate sees before Flask runs: always the one that Flask then serves."""

import warnings

import pytest
from flask import Blueprint, Flask, Response, request, stream_with_context, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter, Rule, UnicodeConverter

from apigate import Method, Rate, Stage
from apigate.core.native import wsgi_request
from apigate.flask import context
from apigate.routing.flask import FlaskRouting
from apigate.staging import Host, PathPrefix
from tests.flask.asking import ask, gated, gateway, remaining, statuses

PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}


def told():
    """What a view answers: the method that the gate saw. Here that is the one Flask serves."""
    return f"{context.method}"


def anything(**_):
    return told()


def app_with(*rules, **settings):
    app = Flask("shop", **settings)
    for number, rule in enumerate(rules):
        app.add_url_rule(rule, f"view{number}", anything)
    return app


# ---- templates


@pytest.mark.parametrize(
    ("rule", "path", "template"),
    [
        ("/", "/", "/"),
        ("/pets", "/pets", "/pets"),
        ("/pets/<pet>", "/pets/a", "/pets/{pet}"),
        ("/pets/<string(minlength=2):pet>", "/pets/ab", "/pets/{pet}"),
        ("/pets/<int:pet_id>", "/pets/7", "/pets/{pet_id}"),
        ("/pets/<int(min=1,max=9):pet_id>", "/pets/7", "/pets/{pet_id}"),
        ("/pets/<float:weight>", "/pets/7.5", "/pets/{weight}"),
        ("/pets/<uuid:pet>", "/pets/a8098c1a-f86e-11da-bd1a-00112444be1e", "/pets/{pet}"),
        ("/<any(cats, dogs):kind>", "/cats", "/{kind}"),
        ("/files/<path:name>", "/files/a/b/c", "/files/{name+}"),
        ("/files/<path:name>/edit", "/files/a/b/edit", "/files/{name+}/edit"),
        ("/<a>/x/<int:b>", "/1/x/2", "/{a}/x/{b}"),
        ("/<a>-<b>", "/1-2", "/{a}-{b}"),
        ("/büro/<x>", "/büro/ü", "/büro/{x}"),
    ],
)
def test_every_kind_of_rule_has_a_template(rule, path, template):
    app = gated(app_with(rule), gateway(throttle="10/second"))
    for _ in range(2):  # the second time from memory
        assert ask(app, f"GET {path}").text == f"GET {template}"


def test_nested_blueprints_have_the_whole_template():
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, url_prefix="/outer/<int:o>")
    inner.add_url_rule("/x/<y>", "x", anything)
    outer.register_blueprint(inner, url_prefix="/inner")
    app = Flask("shop")
    app.register_blueprint(outer, url_prefix="/api/<int:o>")
    gated(app, gateway(methods={"GET /api/{o}/inner/x/{y}": Method(client_throttle="1/minute")}))
    assert ask(app, "GET /api/1/inner/x/5").text == "GET /api/{o}/inner/x/{y}"
    assert statuses(app, "GET /api/2/inner/x/6") == [429]


def test_a_method_of_the_table_is_any_route_of_its_shape():
    app = app_with("/pets/<int:pet_id>", "/pets/new")
    gated(app, gateway(methods={"GET /pets/{id}": Method(client_throttle="1/minute")}))
    assert ask(app, "GET /pets/7").text == "GET /pets/{id}"  # called as the table has it
    assert statuses(app, "GET /pets/8", "GET /cats/8") == [429, 404]
    assert statuses(app, "GET /pets/new") == [429]  # a path that the table names is limited, whatever route serves it


def test_a_default_gives_each_route_its_own_bucket():
    app = app_with("/pets/<int:pet_id>", "/cats", "/dogs")
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    assert statuses(app, "GET /pets/1", "GET /pets/2", "GET /cats") == [200, 429, 200]
    assert statuses(app, "GET /dogs", "GET /cats") == [200, 429]


def test_what_no_route_answers_shares_one_bucket():
    app = app_with("/pets")
    gated(app, gateway(methods={"*": Method(throttle="3/minute")}))
    assert statuses(app, "GET /a", "POST /pets", "GET /b", "GET /c", "PUT /pets", "GET /pets") == [
        *(404, 405, 404),
        *(429, 429),
        200,
    ]


@pytest.mark.parametrize("verb", ["GET", "HEAD"])
def test_head_counts_as_get(verb):
    app = gated(app_with("/pets"), gateway(methods={"*": Method(throttle="1/minute")}))
    assert statuses(app, f"{verb} /pets", "HEAD /pets", "GET /pets") == [200, 429, 429]
    assert ask(app, "HEAD /pets").data == b""


# ---- slashes


def test_a_redirect_to_the_slash_is_the_apps_and_reaches_no_endpoint():
    app = app_with("/pets/")
    gated(app, gateway(methods={"*": Method(throttle="2/minute")}))
    assert ask(app, "GET /pets").status_code == 308
    assert statuses(app, "GET /pets/", "GET /pets/", "GET /pets/") == [200, 200, 429]


def test_a_redirect_counts_where_the_table_names_the_path():
    app = gated(app_with("/pets/"), gateway(methods={"GET /pets": Method(throttle="1/minute")}))
    assert statuses(app, "GET /pets", "GET /pets/") == [308, 429]


def test_merged_slashes_are_a_redirect_or_the_same_endpoint():
    app = app_with("/a/b")
    gated(app, gateway(methods={"GET /a/b": Method(throttle="1/minute")}))
    assert statuses(app, "GET /a//b", "GET /a/b") == [308, 429]


def test_without_merging_and_strictness_every_way_to_write_it_is_limited():
    app = Flask("shop")
    app.url_map.merge_slashes = app.url_map.strict_slashes = False
    app.add_url_rule("/a/b", "ab", anything)
    app.add_url_rule("/f/<path:p>", "f", anything)
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    assert statuses(app, "GET /a/b/", "GET /a/b") == [200, 429]
    assert statuses(app, "GET /f/x//y", "GET /f/x") == [200, 429]


def test_the_default_of_a_parameter_redirects():
    app = Flask("shop")
    app.add_url_rule("/p/", "p", anything, defaults={"page": 1})
    app.add_url_rule("/p/<int:page>", "p", anything)
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    assert statuses(app, "GET /p/1", "GET /p/", "GET /p/2", "GET /p/3") == [308, 200, 200, 429]


# ---- converters


class Record:
    asked = 0


class RecordConverter(UnicodeConverter):
    """As model converters are: it looks something up, and needs the app for that."""

    def to_python(self, value):
        from flask import current_app

        Record.asked += 1
        return current_app.config["RECORDS"][value]


def records(**config):
    app = Flask("shop")
    app.config.update(RECORDS={"a": "Alice", "b": "Bob"}, **config)
    app.url_map.converters["record"] = RecordConverter
    app.add_url_rule("/people/<record:who>", "person", lambda who: f"{who} {told()}")
    app.add_url_rule("/other/<int:n>", "other", anything)
    return app


def test_a_converter_that_needs_the_app_is_asked_by_the_app_alone():
    app = gated(records(), gateway(methods={"*": Method(throttle="2/minute")}))
    Record.asked = 0
    assert ask(app, "GET /people/a").text == "Alice GET /people/{who}"
    assert ask(app, "GET /people/b").text == "Bob GET /people/{who}"
    assert statuses(app, "GET /people/a", "GET /other/1") == [429, 200]
    assert Record.asked == 2  # not for what was refused


def test_so_it_is_where_hosts_matter():
    app = gated(records(SERVER_NAME="shop.example"), gateway(methods={"*": Method(throttle="1/minute")}))
    Record.asked = 0
    assert ask(app, "GET /people/a", {"Host": "shop.example"}).text == "Alice GET /people/{who}"
    assert Record.asked == 1


def test_a_converter_that_fails_is_the_apps_to_answer():
    app = gated(records(), gateway(throttle="10/second"))
    assert statuses(app, "GET /people/nobody", "GET /people/a") == [500, 200]


def test_a_converter_with_a_pattern_of_its_own():
    class Regex(BaseConverter):
        def __init__(self, url_map, *items):
            super().__init__(url_map)
            self.regex = items[0]

    app = Flask("shop")
    app.url_map.converters["regex"] = Regex
    app.add_url_rule('/<regex("[a-c]{3}"):code>/<regex("(x|y)z?"):b>', "code", anything)
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    assert ask(app, "GET /abc/x").text == "GET /{code}/{b}"
    assert statuses(app, "GET /cba/yz", "GET /abd/x") == [429, 404]


def test_a_converter_that_crosses_slashes_is_greedy():
    class Rest(BaseConverter):
        regex = ".+?"
        part_isolating = False

        def to_python(self, value):
            return value.split("/")

    app = Flask("shop")
    app.url_map.converters["rest"] = Rest
    app.add_url_rule("/rest/<rest:names>", "rest", anything)
    assert ask(gated(app, gateway(throttle="1/second")), "GET /rest/a/b").text == "GET /rest/{names+}"


# ---- hosts, subdomains, mounts


def test_host_matching():
    app = Flask("shop", host_matching=True, static_host="static.example")
    app.add_url_rule("/x/<int:n>", "one", anything, host="one.example")
    app.add_url_rule("/x/y", "two", anything, host="<name>.two.example")
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    assert ask(app, "GET /x/1", {"Host": "one.example"}).text == "GET /x/{n}"
    assert ask(app, "GET /x/y", {"Host": "a.two.example"}).text == "GET /x/y"
    assert statuses(app, "GET /x/2", headers={"Host": "one.example"}) == [429]
    assert statuses(app, "GET /x/y", headers={"Host": "b.two.example"}) == [429]
    assert statuses(app, "GET /x/y", headers={"Host": "one.example"}) == [404]


def test_subdomain_matching():
    app = Flask("shop", subdomain_matching=True)
    app.config["SERVER_NAME"] = "shop.example"
    app.add_url_rule("/x", "main", anything)
    app.add_url_rule("/x/<y>", "sub", anything, subdomain="<user>")
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    assert ask(app, "GET /x", {"Host": "shop.example"}).text == "GET /x"
    assert ask(app, "GET /x/1", {"Host": "alice.shop.example"}).text == "GET /x/{y}"
    assert statuses(app, "GET /x/2", headers={"Host": "bob.shop.example"}) == [429]


@pytest.mark.parametrize("host", ["a..b", "\xff", "", "[", "a b", "shop.example:x", "x" * 300, "evil.example"])
@pytest.mark.parametrize("kind", ["plain", "host_matching", "subdomain_matching", "server name"])
def test_no_host_makes_the_gate_raise(kind, host):
    matching = {"host_matching": kind == "host_matching", "subdomain_matching": kind == "subdomain_matching"}
    app = Flask("shop", static_folder=None, **matching)
    if kind in ("subdomain_matching", "server name"):
        app.config["SERVER_NAME"] = "shop.example"
    app.config["TRUSTED_HOSTS"] = ["shop.example"]
    app.add_url_rule("/", "root", anything, **({"host": "shop.example"} if kind == "host_matching" else {}))
    bare = app.wsgi_app
    gated(app, gateway(throttle="10/second"))

    def outcome():
        try:
            return ask(app, "GET /", HTTP_HOST=host).status_code
        except ValueError as error:  # Werkzeug before 3.1 raises it at some
            return str(error)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Current server name")  # Werkzeug's, of a host that is not the configured one
        with_gate = outcome()
        app.wsgi_app = bare
        assert with_gate == outcome()


def test_an_apps_own_url_adapter_is_asked():
    class Tenants(Flask):
        def create_url_adapter(self, request):
            adapter = super().create_url_adapter(request)
            if request is not None and request.headers.get("x-tenant") == "b":
                adapter.subdomain = "b"
            return adapter

    app = Tenants("shop")
    app.add_url_rule("/x", "a", anything)
    app.add_url_rule("/<x>", "b", anything, subdomain="b")
    gated(app, gateway(throttle="10/second"))
    assert ask(app, "GET /x").text == "GET /x"
    assert ask(app, "GET /x", {"x-tenant": "b"}).text == "GET /{x}"


def test_a_rule_for_websockets_is_none_for_others():
    app = Flask("shop")
    app.url_map.add(Rule("/ws", endpoint="ws", websocket=True))
    app.view_functions["ws"] = anything
    gated(app, gateway(methods={"*": Method(throttle="1/minute")}))
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert statuses(app, "GET /ws") == [400]
    assert ask(app, "GET /ws", upgrade).text == "GET /ws"
    assert statuses(app, "GET /ws", headers=upgrade) == [429]


@pytest.mark.parametrize("outside", [False, True])
def test_mounted_apps(outside):
    """By `DispatcherMiddleware`; gates around the mounted apps know their templates, one around all knows paths."""
    main, mounted = app_with("/x/<int:n>"), app_with("/x/<int:n>", "/<path:rest>")
    gate = gateway(methods={"GET /x/{id}": Method(throttle="1/minute")})
    if outside:
        main.wsgi_app = DispatcherMiddleware(main.wsgi_app, {"/v2": mounted})
        gated(main, gate)
        assert statuses(main, "GET /x/1", "GET /x/2", "GET /v2/x/1", "GET /v2/x/2") == [200, 429, 200, 200]
    else:
        gated(main, gate)
        gated(mounted, gate)
        main.wsgi_app = DispatcherMiddleware(main.wsgi_app, {"/v2": mounted})
        assert ask(main, "GET /x/1").text == "GET /x/{id}"
        assert statuses(main, "GET /v2/x/1", "GET /v2/y/1") == [429, 200]


# ---- OPTIONS


def options_app():
    app = Flask("shop")
    app.add_url_rule("/auto", "auto", anything, methods=["GET", "POST"])
    app.add_url_rule("/own", "own", anything, methods=["POST", "OPTIONS"])
    app.add_url_rule("/off", "off", anything, methods=["POST"], provide_automatic_options=False)
    return app


def test_an_options_that_flask_answers_takes_from_no_endpoint():
    app = gated(options_app(), gateway(methods={"*": Method(throttle="2/minute")}))
    response = ask(app, "OPTIONS /auto")
    assert (response.status_code, set(response.allow)) == (200, {"GET", "HEAD", "OPTIONS", "POST"})
    assert statuses(app, *["GET /auto"] * 3) == [200, 200, 429]


def test_an_options_that_a_view_answers_is_a_method_like_any_other():
    app = gated(options_app(), gateway(methods={"*": Method(throttle="1/minute")}))
    assert ask(app, "OPTIONS /own").text == "OPTIONS /own"
    assert statuses(app, "OPTIONS /own", "POST /own", "OPTIONS /off") == [429, 200, 405]
    assert statuses(app, "OPTIONS /own", headers=PREFLIGHT) == [429]


def test_a_preflight_that_flask_answers_takes_from_global_alone():
    table = {"*": Method(throttle="1/minute")}
    app = gated(options_app(), gateway(throttle="3/minute", client_throttle="1/minute", methods=table))
    assert statuses(app, *["OPTIONS /auto"] * 2, headers=PREFLIGHT) == [200, 200]
    assert statuses(app, "POST /auto") == [200]
    assert statuses(app, "OPTIONS /auto", headers=PREFLIGHT) == [429]


# ---- stages


def test_a_stage_by_the_paths_start():
    app = Flask("shop")

    @app.get("/pets/<int:n>")
    def pet(n):
        return f"{context.stage} {context.method} {request.path} {url_for('pet', n=n)}"

    gated(
        app,
        gateway(
            stages=[Stage("prod", methods={"GET /pets/{id}": Method(throttle="1/minute")}), Stage("beta")],
            stage_by=PathPrefix(),
        ),
    )
    assert ask(app, "GET /prod/pets/7").text == "prod GET /pets/{id} /pets/7 /prod/pets/7"
    assert statuses(app, "GET /prod/pets/8", "GET /beta/pets/8", "GET /pets/8", "GET /prod/x") == [429, 200, 404, 404]


def test_a_stage_by_the_path_where_hosts_matter():
    app = Flask("shop", host_matching=True, static_host="static.example")
    app.add_url_rule("/x/<int:n>", "x", anything, host="one.example")
    gated(app, gateway(stages=[Stage("prod", throttle="9/second")], stage_by=PathPrefix()))
    assert ask(app, "GET /prod/x/7", {"Host": "one.example"}).text == "GET /x/{n}"


def test_a_stage_by_host():
    app = app_with("/pets")
    stages = [Stage("prod"), Stage("beta", throttle="1/minute")]
    gated(app, gateway(stages=stages, stage_by=Host({"beta.example": "beta", "api.example": "prod"})))
    assert statuses(app, *["GET /pets"] * 2, headers={"Host": "beta.example"}) == [200, 429]
    assert statuses(app, *["GET /pets"] * 2, headers={"Host": "api.example"}) == [200, 200]


# ---- streams


def test_a_streaming_view_streams_and_settles_at_its_end():
    app, going = Flask("shop"), []

    @app.get("/numbers")
    def numbers():
        def lines():
            for number in range(3):
                going.append(number)
                yield f"{number} {context.client} {request.path}\n"

        return Response(stream_with_context(lines()), mimetype="text/plain")

    gated(app, gateway(client_in_flight=1, client_throttle="10/second"))
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    first = ask(app, "GET /numbers", **environ)
    chunks = first.iter_encoded()
    assert next(chunks) == b"0 ip:192.0.2.1 /numbers\n"
    assert going == [0]
    assert ask(app, "GET /numbers", **environ).status_code == 429  # one is in flight
    assert len(list(chunks)) == 2
    first.close()
    assert ask(app, "GET /numbers", **environ).status_code == 200


# ---- a table compiled once, and again when routes change


def test_a_rule_added_while_the_app_runs_is_found_though_its_path_was_asked_before():
    app = app_with("/<name>")
    gated(app, gateway(methods={"*": Method(throttle="10/minute")}))
    assert ask(app, "GET /new").text == "GET /{name}"

    app.url_map.add(Rule("/new", endpoint="new", methods=["GET"]))
    app.view_functions["new"] = anything
    app.url_map.update()  # as `url_for` does
    assert ask(app, "GET /new").text == "GET /new"


def test_a_view_replaced_while_the_app_runs_is_asked_for_its_marks():
    app, gate = app_with("/x"), gateway(throttle="10/minute")
    gated(app, gate)
    assert ask(app, "GET /x").status_code == 200
    app.view_functions["view0"] = gate.throttle("1/minute")(anything)
    assert [remaining(ask(app, "GET /x")) for _ in range(2)] == [{"method": 0}, {"method": 0}]
    assert statuses(app, "GET /x") == [429]


def test_what_is_remembered_is_bounded():
    app = app_with("/<path:anything>")
    gated(app, gateway(throttle=Rate(100_000)))
    routing = app.extensions["apigate"].routing
    environ = {"REQUEST_METHOD": "GET", "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    for number in range(5_000):
        assert routing.find(wsgi_request({**environ, "PATH_INFO": f"/{number}"})) is not None
    assert routing.find(wsgi_request({**environ, "PATH_INFO": "/" + "x" * 100_000})) is not None
    app.url_map.add(Rule("/any", endpoint="view0"))
    assert routing.find(wsgi_request({**environ, "REQUEST_METHOD": "X" * 100_000, "PATH_INFO": "/any"})) is not None
    assert len(routing._table.known) <= 4_096
    assert all(len(verb) + len(path) < 200 for verb, path in routing._table.known)
    assert len(routing._endpoints) == 2


def test_the_endpoints_are_listed_as_they_will_be_found():
    app = app_with("/a", "/b/<int:x>")
    app.add_url_rule("/o", "o", anything, methods=["OPTIONS", "POST"])
    app.url_map.add(Rule("/old", endpoint="old", redirect_to="/a"))
    app.url_map.add(Rule("/built", endpoint="built", build_only=True))
    listed = {endpoint.method for endpoint in FlaskRouting(app).endpoints()}
    assert listed == {"GET /static/{filename+}", "GET /a", "GET /b/{x}", "OPTIONS /o", "POST /o"}
