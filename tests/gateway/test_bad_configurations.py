"""Every setting that cannot be used is refused when the gateway is built; the message names it and what is allowed."""

import re

import pytest

from apigate import (
    CORS,
    CachePolicy,
    ConfigurationError,
    Gateway,
    GatewayResponse,
    Method,
    Rate,
    ResponseCache,
    Stage,
    Throttle,
    Window,
)
from apigate.staging import Header, Host
from apigate.stores.memory import MemoryStore

PROD, BETA = Stage("prod"), Stage("beta")

# What is built, the setting that the message must name, and what it must say of what is allowed.
BAD = {
    "a rate that is no rate": (lambda: Gateway(throttle="often"), "throttle", "100/second"),
    "a rate that is a number": (lambda: Gateway(throttle=5), "throttle", "give a Rate"),
    "a rate of nothing": (lambda: Gateway(throttle=[]), "throttle", "give a Rate"),
    "a rate of zero": (lambda: Gateway(throttle="0/second"), "throttle", "at least 1"),
    "a rate below one": (lambda: Rate(0.5), "Rate count", "make the period longer"),
    "a burst of zero": (lambda: Rate(1, burst=0), "Rate burst", "at least 1"),
    "a burst that is a flag": (lambda: Rate(1, burst=True), "Rate burst", "at least 1"),
    "a period of nothing": (lambda: Rate(1, per=0), "Rate per", "366 days"),
    "a period in words": (lambda: Rate(1, per="minute"), "Rate per", "seconds"),
    "a calendar month": (lambda: Gateway(client_throttle="5/month"), "client_throttle", "use days, as '30 day'"),
    "an unknown unit": (lambda: Gateway(throttle="5/fortnight"), "throttle", "second, minute, hour, day, week"),
    "a burst without a rate": (lambda: Gateway(throttle="burst=5"), "throttle", "follows no rate"),
    "numbers too large": (lambda: Rate(7, per=86_400, burst=10**9), "7/day; burst=1000000000", "too large for exact"),
    "the client's rate": (lambda: Gateway(client_throttle="x"), "client_throttle", "100/second"),
    "the stage's rate": (lambda: Stage("prod", throttle="x"), "Stage 'prod' throttle", "100/second"),
    "the method's rate": (lambda: Method(throttle="x"), "Method throttle", "100/second"),
    "the client's rate at a method": (lambda: Method(client_throttle=-1), "Method client_throttle", "give a Rate"),
    "no slots": (lambda: Gateway(in_flight=0), "in_flight", "at least 1"),
    "half a slot": (lambda: Stage("prod", client_in_flight=0.5), "client_in_flight", "whole number"),
    "slots as a text": (lambda: Method(in_flight="5"), "Method in_flight", "whole number"),
    "slots as a flag": (lambda: Gateway(in_flight=True), "in_flight", "whole number"),
    "a cost below nothing": (lambda: Gateway(cost=-1), "cost", "at least 0"),
    "a cost as a text": (lambda: Method(cost="1"), "Method cost", "at least 0"),
    "a cost as a flag": (lambda: Method(cost=True), "Method cost", "function"),
    "exempt as a text": (lambda: Method(exempt="yes"), "Method exempt", "True, False or a function"),
    "a refund of no status": (lambda: Method(refund="2xx, ok"), "refund", "'2xx' or '404'"),
    "a refund of a class that is none": (lambda: Method(refund="6xx"), "refund", "'2xx' or '404'"),
    "a refund as a number": (lambda: Method(refund=404), "refund", "'2xx, 404'"),
    "a final cost that is no function": (lambda: Method(final_cost=3), "final_cost", "function"),
    "modes that are no table": (lambda: Gateway(modes="shadow"), "modes", "mapping from level to mode"),
    "an unknown level": (lambda: Gateway(modes={"globe": "off"}), "modes", "global, stage, method, client"),
    "an unknown mode": (lambda: Method(modes={"method": "maybe"}), r"modes\['method'\]", "enforce, shadow, off"),
    "a stage without a name": (lambda: Stage(""), "Stage name", "letters, digits"),
    "a stage with a space": (lambda: Stage("my stage"), "Stage name", "letters, digits"),
    "a stage with a slash": (lambda: Stage("a/b"), "Stage name", "letters, digits"),
    "a stage that is no text": (lambda: Stage(5), "Stage name", "letters, digits"),
    "two stages of one name": (lambda: Gateway(stages=[PROD, Stage("prod")]), "stages", "twice"),
    "a stage that is none": (lambda: Gateway(stages=["prod"]), "stages", "not a Stage"),
    "one stage instead of a list": (lambda: Gateway(stages=PROD), "stages", "list"),
    "both styles": (
        lambda: Gateway(stages=[PROD], client_throttle="1/s", methods={}),
        "client_throttle, methods",
        "Stage",
    ),
    "methods that are no table": (lambda: Gateway(methods=["GET /"]), "methods", "mapping|table"),
    "a method that is none": (lambda: Gateway(methods={"GET /": "1/s"}), r"methods\['GET /'\]", "not a Method"),
    "a method's name": (lambda: Gateway(methods={"pets": Method()}), "methods", "'GET /pets/{id}'"),
    "a method's name that is no text": (
        lambda: Gateway(methods={5: Method()}),
        "methods",
        "not a method|'GET /pets/{id}'",
    ),
    "methods that are alike": (lambda: Gateway(methods={"/{a}": Method(), "/{b}": Method()}), "methods", "keep one"),
    "variables that are no table": (lambda: Gateway(variables=["a"]), "variables", "mapping|table"),
    "a variable that is no text": (lambda: Gateway(variables={"a": 1}), "variables", "not a text"),
    "an unknown selector": (lambda: Gateway(stage_by="path"), "stage_by", r"PathPrefix\(\)"),
    "a selector of two kinds": (lambda: Gateway(stage_by={"host": {}, "header": "x"}), "stage_by", "header = "),
    "a selector's class": (lambda: Gateway(stages=[PROD], stage_by=Host), "stage_by", r"Host\(\{"),
    "no host": (lambda: Host({}), "stage_by Host", "mapping from host to stage"),
    "hosts in a list": (lambda: Host(["a"]), "stage_by Host", "mapping from host to stage"),
    "a host that is no text": (lambda: Host({5: "prod"}), "stage_by Host", "mapping from host to stage"),
    "a host of no stage": (lambda: Gateway(stages=[PROD], stage_by=Host({"a": "x"})), "stage_by", "stages are prod"),
    "no header": (lambda: Header(""), "stage_by Header", "name of a header"),
    "a default of no stage": (lambda: Gateway(stages=[PROD], stage_by=Header("x", "y")), "stage_by", "stages are prod"),
    "an unknown store": (
        lambda: Gateway(store="postgres://x"),
        "store",
        "allowed are memory://, file:///path, redis://host",
    ),
    "a store's path": (lambda: Gateway(store="memory:///folder"), "store", "'memory://'"),
    "a store's option": (lambda: Gateway(store="memory://?keys=5"), "store", "max_keys"),
    "a store's option that is no number": (lambda: Gateway(store="memory://?max_keys=many"), "store", "max_keys"),
    "a store that is none": (lambda: Gateway(store=5), "store", "`open`"),
    "an outage policy that is none": (lambda: Gateway(outage="ignore"), "outage", "open, closed, local"),
    "an outage policy by a level that is none": (lambda: Gateway(outage={"user": "open"}), "outage", "client-method"),
    "a level's outage policy that is none": (
        lambda: Gateway(outage={"client": "fail"}),
        r"outage\['client'\]",
        "open, closed, local",
    ),
    "outage policies in a list": (lambda: Gateway(outage=["open"]), "outage", "open, closed, local"),
    "no worker": (lambda: Gateway(workers=0), "workers", "at least 1"),
    "workers as a text": (lambda: Gateway(workers="4"), "workers", "at least 1"),
    "workers as a flag": (lambda: Gateway(workers=True), "workers", "at least 1"),
    "no bucket at all": (lambda: MemoryStore(max_keys=0), "max_keys", "at least 1"),
    "a name that is none": (lambda: Gateway(name=5), "name", "text"),
    "a client that is no function": (lambda: Gateway(client="x-user"), "client", "function of the request"),
    "hops below nothing": (lambda: Gateway(trusted_hops=-1), "trusted_hops", "at least 0"),
    "hops as a flag": (lambda: Gateway(trusted_hops=True), "trusted_hops", "at least 0"),
    "a forwarding header that is none": (
        lambda: Gateway(forwarding_header="x-real-ip"),
        "forwarding_header",
        "x-forwarded-for, forwarded",
    ),
    "responses in a list": (lambda: Gateway(responses=["THROTTLED"]), "responses", "mapping|table"),
    "an unknown response": (
        lambda: Gateway(responses={"TOO_MANY": GatewayResponse()}),
        "responses",
        "THROTTLED, OVERLOADED",
    ),
    "a response that is none": (
        lambda: Gateway(responses={"THROTTLED": 429}),
        r"responses\['THROTTLED'\]",
        "GatewayResponse",
    ),
    "a response's status": (lambda: GatewayResponse(status=200), "GatewayResponse status", "400 to 599"),
    "a response's body": (lambda: GatewayResponse(body={"a": 1}), "GatewayResponse body", "neither a text nor"),
    "a response's status as a text": (lambda: GatewayResponse(status="429"), "GatewayResponse status", "400 to 599"),
    "a response's field that cannot be sent": (
        lambda: GatewayResponse(headers={"X-Own": "a\r\nb"}),
        "GatewayResponse headers",
        "cannot be sent",
    ),
    "a response's field without a name": (
        lambda: GatewayResponse(headers={"": "a"}),
        "GatewayResponse headers",
        "cannot be sent",
    ),
    "a response's field with a space": (
        lambda: GatewayResponse(headers={"X Own": "a"}),
        "GatewayResponse headers",
        "cannot be sent",
    ),
    "a response's field beyond latin-1": (
        lambda: GatewayResponse(headers={"X": "日"}),
        "GatewayResponse headers",
        "cannot be sent",
    ),
    "a response's field that is a number": (
        lambda: GatewayResponse(headers={"X": 1}),
        "GatewayResponse headers",
        "cannot be sent",
    ),
    "an error format": (lambda: Gateway(error_format="xml"), "error_format", "'problem', 'amazon'"),
    "a version of the fields": (lambda: Gateway(rate_limit="draft-03"), "rate_limit", "draft-11, draft-07, draft-06"),
    "x_rate_limit as a text": (lambda: Gateway(x_rate_limit="yes"), "x_rate_limit", "True"),
    "one policy instead of a list": (lambda: Gateway(policies=5), "policies", "list|phase"),
    "a listener that is no function": (lambda: Gateway(on_event=[]), "on_event", "function of an event"),
    "a clock that is none": (lambda: Gateway(clock="now"), "clock", "now_us"),
}


@pytest.mark.parametrize(("build", "setting", "allowed"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_refused_by_its_name_and_says_what_is_allowed(build, setting, allowed):
    with pytest.raises(ConfigurationError) as caught:
        build()
    message = str(caught.value)
    assert re.search(setting, message), message
    assert re.search(allowed, message), message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["Bad Name", "Bäd", "X\tY", "X(Y)", "X;Y", 'X"Y'])
def test_a_fields_name_is_a_token(name):
    with pytest.raises(ConfigurationError, match="GatewayResponse headers"):
        GatewayResponse(headers={name: "a"})


@pytest.mark.parametrize(
    ("kind", "given", "name", "meant"),
    [
        (Gateway, {}, "client_throtle", "did you mean 'client_throttle'?"),
        (Gateway, {}, "x", "allowed are cache, client, "),
        (Method, {}, "cach", "did you mean 'cache'?"),
        (Stage, {"name": "prod"}, "cach", "did you mean 'cache'?"),
        (CachePolicy, {}, "tll", "did you mean 'ttl'?"),
        (CachePolicy, {}, "timeout", "did you mean 'ttl'?"),
        (ResponseCache, {}, "ttl", 'did you mean policy={"ttl": 60}?'),
        (Rate, {"count": 1}, "brust", "did you mean 'burst'?"),
        (Window, {"limit": "1/minute"}, "kinds", "did you mean 'kind'?"),
        (Throttle, {}, "stor", "did you mean 'store'?"),
        (CORS, {}, "allow_origin", "did you mean 'allow_origins'?"),
        (GatewayResponse, {}, "header", "did you mean 'headers'?"),
    ],
)
def test_a_keyword_that_is_no_setting_is_told_what_was_meant(kind, given, name, meant):
    with pytest.raises(ConfigurationError, match=re.escape(f"{kind.__name__}: {name!r} is no setting; {meant}")):
        kind(**given, **{name: 1})


def test_what_is_missing_is_pythons_own_error():
    with pytest.raises(TypeError, match="count"):
        Rate(burst=5)
