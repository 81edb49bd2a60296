"""The fields that let pages of other origins read a refusal, around apps that have no CORS layer."""

import httpx
import pytest

from apigate import CORS, CachePolicy, ConfigurationError, Gateway, Method, Stage
from apigate.core.policy import Phase
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware

SHOP = "https://shop.example"


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]


def refusal(origin, **settings):
    gateway = Gateway(throttle="1/hour", clock=FakeClock(), **settings)
    transport = httpx.WSGITransport(GatewayMiddleware(app, gateway))
    with httpx.Client(transport=transport, base_url="http://api.example") as client:
        headers = {} if origin is None else {"Origin": origin}
        assert client.get("/", headers=headers).status_code == 200
        refused = client.get("/", headers=headers)
    assert refused.status_code == 429
    return {name: value for name, value in refused.headers.items() if name.startswith("access-") or name == "vary"}


def test_a_named_origin_may_read_the_refusal_and_its_fields():
    assert refusal(SHOP, cors=CORS(allow_origins=[SHOP])) == {
        "vary": "Origin",
        "access-control-allow-origin": SHOP,
        "access-control-expose-headers": "Retry-After, RateLimit, RateLimit-Policy",
    }


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://shop.example.evil.example", "null", "https://shop.example, x", "*", ""]
)
def test_no_other_origin_may_and_caches_are_told_that_it_depends(origin):
    assert refusal(origin, cors=CORS(allow_origins=[SHOP])) == {"vary": "Origin"}


def test_without_an_origin_nothing_is_added():
    assert refusal(None, cors=CORS(allow_origins=["*"])) == {}


def test_anyone_may_where_all_are_named_but_with_credentials_each_by_its_name():
    assert refusal(SHOP, cors=CORS(allow_origins=["*"], expose_headers=[])) == {"access-control-allow-origin": "*"}
    assert refusal(SHOP, cors=CORS(allow_origins=["*"], allow_credentials=True, expose_headers=[])) == {
        "vary": "Origin",
        "access-control-allow-origin": SHOP,
        "access-control-allow-credentials": "true",
    }


@pytest.mark.parametrize(
    ("origin", "allowed"), [("https://a.shop.example", True), ("https://a.shop.example.evil", False)]
)
def test_a_regular_expression_matches_the_whole_origin(origin, allowed):
    fields = refusal(origin, cors=CORS(allow_origin_regex=r"https://[a-z]+\.shop\.example"))
    assert ("access-control-allow-origin" in fields) is allowed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "name allow_origins or allow_origin_regex"),
        ({"allow_origins": SHOP}, "is not a list of texts"),
        ({"allow_origins": ["shop.example"]}, "is no origin; write scheme and host"),
        ({"allow_origins": [f"{SHOP}/path"]}, "is no origin"),
        ({"allow_origins": ["*"], "expose_headers": ["a\r\nb"]}, "is not a list of texts"),
        ({"allow_origins": ["*"], "allow_credentials": 1}, "is not True or False"),
        ({"allow_origin_regex": "("}, "allow_origin_regex"),
    ],
)
def test_what_a_browser_would_not_understand_is_refused(settings, said):
    with pytest.raises(ConfigurationError, match="CORS") as error:
        CORS(**settings)
    assert said in str(error.value)


def test_a_file_has_it_as_a_table():
    gateway = Gateway.from_dict({"cors": {"allow_origins": [SHOP]}})
    assert gateway.cors == CORS(allow_origins=[SHOP])
    assert Gateway.from_dict({"cors": "off"}).cors is None
    with pytest.raises(ConfigurationError, match="did you mean 'allow_origins'"):
        Gateway.from_dict({"cors": {"allow_origin": [SHOP]}})
    with pytest.raises(ConfigurationError, match="cors: 'yes' is not a"):
        Gateway.from_dict({"cors": "yes"})


@pytest.mark.parametrize(
    ("settings", "found"), [({}, True), ({"cors": None}, False), ({"cors": CORS(allow_origins=[SHOP])}, False)]
)
def test_lint_says_where_a_page_cannot_read_a_refusal(settings, found):
    gateway = Gateway(throttle="1/hour", **settings)
    GatewayMiddleware(app, gateway)
    findings = [str(finding) for finding in gateway.lint() if finding.check == "unreadable-refusals"]
    assert bool(findings) is found
    assert all("test_cors.app" in finding for finding in findings)
    assert all("instead of the refusal;" in finding for finding in findings)  # it need not be a 429


class Door:
    phase = Phase.GUARD

    def on_request(self, context):
        return None


CACHED = {"*": Method(cache=CachePolicy(ttl=60))}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"methods": CACHED}, False),
        ({"methods": {**CACHED, "PUT /pets": Method(cache=None, exempt=True)}}, False),
        ({"methods": CACHED, "client_throttle": "1/hour"}, True),
        ({"methods": CACHED, "in_flight": 5}, True),
        ({"methods": CACHED, "policies": [Door()]}, True),
        ({"stages": [Stage("prod", methods=CACHED)], "stage_by": "path-prefix"}, True),
        ({"methods": {"*": Method(cache=CachePolicy(invalidate=bool, unauthorized="FAIL_WITH_403"))}}, True),
    ],
)
def test_lint_asks_for_no_cors_where_nothing_is_refused(settings, found):
    gateway = Gateway(**settings)
    GatewayMiddleware(app, gateway)
    assert ("unreadable-refusals" in {finding.check for finding in gateway.lint()}) is found


@pytest.mark.parametrize("decorator", ["throttle", "cache"])
def test_lint_asks_for_cors_where_a_decorated_function_may_be_refused(decorator):
    gateway = Gateway()
    GatewayMiddleware(app, gateway)
    decorate = gateway.cache(ttl=60) if decorator == "cache" else gateway.throttle("1/hour")
    decorate(lambda: None)
    assert ("unreadable-refusals" in {finding.check for finding in gateway.lint()}) is (decorator == "throttle")


def test_a_framework_whose_layer_adds_nothing_leaves_it_to_the_gateways_own():
    from flask import Flask

    from apigate.flask import Apigate

    flask = Flask("shop")
    flask.after_request(lambda response: response)  # it might have been the CORS layer
    Apigate(flask, Gateway(throttle="1/hour", clock=FakeClock(), cors=CORS(allow_origins=[SHOP])))
    flask.get("/")(lambda: "served")
    client = flask.test_client()
    codes = [client.get("/", headers={"Origin": SHOP}) for _ in range(2)]
    assert codes[1].status_code == 429
    assert codes[1].headers.getlist("Access-Control-Allow-Origin") == [SHOP]
