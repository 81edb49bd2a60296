"""Which stage a request is for: by path, host or header, or fixed where the gateway is put around an app."""

import pytest

from apigate import ConfigurationError, Method, Rate, Stage, asgi, wsgi
from apigate.staging import Header, Host, PathPrefix
from tests.gateway.asking import ask, ask_in_task, built

ASKING = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
STAGES = [Stage("prod", throttle="9/s"), Stage("beta", throttle="9/s")]


def stage_of(answer) -> str | int:
    return answer.context.stage if answer.context else answer.status


@ASKING
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/prod", "prod"),
        ("/prod/", "prod"),
        ("/prod/pets", "prod"),
        ("/beta//pets", "beta"),
        ("/", 404),
        ("", 404),
        ("*", 404),
        ("//prod/pets", 404),
        ("/Prod/pets", 404),
        ("/prodx/pets", 404),
        ("/prod ", 404),
        ("/prod/../beta/pets", 400),
        ("/none/pets", 404),
    ],
)
def test_by_path(asking, path, found):
    assert stage_of(asking(built(stages=STAGES, stage_by=PathPrefix()), f"GET {path}")) == found


@ASKING
@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("api.example", "prod"),
        ("api.example:443", "prod"),
        ("API.Example", "prod"),
        ("api.example.", "prod"),
        (" api.example ", "prod"),
        ("[2001:db8::1]", "beta"),
        ("[2001:DB8::1]:8443", "beta"),
        ("api.example.evil", 404),
        ("evil.api.example", 404),
        ("api.example,beta.example", 404),
        ("api.example@evil", 404),
        ("", 404),
        (":443", 404),
        ("[", 404),
        ("]", 404),
        ("]api.example", 404),
        (None, 404),
    ],
)
def test_by_host(asking, host, found):
    hosts = Host({"api.example": "prod", "[2001:db8::1]": "beta"})
    fields = {} if host is None else {"host": host}
    assert stage_of(asking(built(stages=STAGES, stage_by=hosts), **fields)) == found


@ASKING
@pytest.mark.parametrize("default", [None, "prod"])
@pytest.mark.parametrize(
    ("value", "found"), [("beta", "beta"), (" prod ", "prod"), ("BETA", 404), ("", 404), ("x", 404)]
)
def test_by_header(asking, default, value, found):
    gateway = built(stages=STAGES, stage_by=Header("X-Stage", default=default))
    assert stage_of(asking(gateway, x_stage=value)) == found
    assert stage_of(asking(gateway)) == (default or 404)


@ASKING
def test_fixed_where_the_gateway_is_put_around_the_app_whatever_the_request_says(asking):
    gateway = built(stages=STAGES, stage_by=PathPrefix())
    answer = asking(gateway, "GET /prod/pets", stage="beta")
    assert (answer.context.stage, answer.context.request.path) == ("beta", "/prod/pets")


@ASKING
def test_methods_are_matched_without_the_prefix(asking):
    stages = [Stage("prod", methods={"GET /pets/{id}": Method(throttle="9/s"), "GET /": Method(throttle="8/s")})]
    gateway = built(stages=stages, stage_by=PathPrefix())
    found = [asking(gateway, f"GET {path}").context.method for path in ("/prod/pets/1", "/prod", "/prod/", "/prod/x")]
    assert found == ["GET /pets/{id}", "GET /", "GET /", None]


@ASKING
def test_one_stage_needs_no_choice_whatever_it_is_called(asking):
    assert stage_of(asking(built(stages=[Stage("prod", throttle="9/s")]))) == "prod"


@ASKING
def test_one_stage_that_is_chosen_by_path_is_only_for_that_path(asking):
    gateway = built(stages=[Stage("prod", throttle="9/s")], stage_by=PathPrefix())
    assert [stage_of(asking(gateway, f"GET {path}")) for path in ("/prod/x", "/x")] == ["prod", 404]


@ASKING
def test_stages_without_a_limit_are_chosen_all_the_same(asking):
    gateway = built(stages=[Stage("prod", variables={"a": "b"})], stage_by=PathPrefix())
    assert asking(gateway, "GET /prod/x").context.variables == {"a": "b"}
    assert asking(gateway, "GET /x").status == 404


@pytest.mark.parametrize("middleware", [asgi.GatewayMiddleware, wsgi.GatewayMiddleware], ids=["asgi", "wsgi"])
def test_several_stages_and_nothing_that_tells_which_is_refused_when_bound(middleware):
    gateway = built(stages=STAGES)
    with pytest.raises(ConfigurationError, match=r"stage_by: several stages \(prod, beta\)"):
        middleware(print, gateway)
    middleware(print, gateway, stage="prod")


@pytest.mark.parametrize("middleware", [asgi.GatewayMiddleware, wsgi.GatewayMiddleware], ids=["asgi", "wsgi"])
def test_a_stage_that_is_not_there_is_refused_when_bound(middleware):
    with pytest.raises(ConfigurationError, match="'gamma' is no stage; stages are prod, beta"):
        middleware(print, built(stages=STAGES), stage="gamma")


@ASKING
def test_a_selector_of_ones_own(asking):
    class ByQuery:
        def select(self, request):
            return (request.query, "") if request.query else None

        def names(self):
            return None

    gateway = built(stages=STAGES, stage_by=ByQuery())
    assert [stage_of(asking(gateway, f"GET /x?{query}")) for query in ("beta", "x", "")] == ["beta", 404, 404]


@ASKING
def test_a_refusal_for_want_of_a_stage_takes_nothing(asking):
    gateway = built(throttle=Rate(1, per=10), stages=[Stage("prod")], stage_by=PathPrefix())
    assert {asking(gateway, "GET /x").status for _ in range(5)} == {404}
    assert asking(gateway, "GET /prod").status == 200
