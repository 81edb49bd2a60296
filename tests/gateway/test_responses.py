"""The gateway's own responses: by type, customised, and in Amazon's form."""

import json

import pytest

from apigate import Gateway, GatewayResponse, Rate
from apigate.staging import PathPrefix
from tests.gateway.asking import Open, ask, built
from tests.outages import FailingStore

ONE = Rate(1, per=10)


def each_kind(**settings):
    """A refusal of every type there is."""
    gateway = built(throttle=ONE, in_flight=1, stage_by=PathPrefix(), **settings)
    first = Open(gateway, "GET /default/x")
    overloaded = ask(gateway, "GET /default/x")
    first.close()
    return {
        "THROTTLED": ask(gateway, "GET /default/x"),
        "OVERLOADED": overloaded,
        "BAD_REQUEST_PARAMETERS": ask(gateway, "GET /default/../x"),
        "RESOURCE_NOT_FOUND": ask(gateway, "GET /nowhere"),
        "STORE_UNAVAILABLE": ask(without_store(**settings)),
    }


def without_store(**settings):
    store = FailingStore()
    store.fail()
    return built(throttle=ONE, store=store, name="shop", outage="closed", **settings)


STANDARD = {
    "THROTTLED": 429,
    "OVERLOADED": 503,
    "BAD_REQUEST_PARAMETERS": 400,
    "RESOURCE_NOT_FOUND": 404,
    "STORE_UNAVAILABLE": 503,
}


def test_every_type_is_a_problem_document():
    for kind, answer in each_kind().items():
        problem = json.loads(answer.body)
        assert (answer.status, problem["status"]) == (STANDARD[kind], STANDARD[kind])
        assert problem["title"]
        assert problem["detail"].endswith(".")
        assert problem["type"] == "about:blank" or problem["type"].startswith("https://iana.org/assignments/")
        assert answer.fields["content-type"] == "application/problem+json"
        assert answer.fields["content-length"] == str(len(answer.body))


def test_every_type_in_amazons_form():
    titles = {kind: json.loads(answer.body) for kind, answer in each_kind(error_format="amazon").items()}
    assert titles == {
        "THROTTLED": {"message": "Too Many Requests"},
        "OVERLOADED": {"message": "Service Unavailable"},
        "BAD_REQUEST_PARAMETERS": {"message": "Bad Request"},
        "RESOURCE_NOT_FOUND": {"message": "Not Found"},
        "STORE_UNAVAILABLE": {"message": "Service Unavailable"},
    }


@pytest.mark.parametrize("kind", STANDARD)
def test_one_type_is_customised_and_the_others_stay(kind):
    custom = GatewayResponse(status=444, headers={"X-Own": "yes"}, body="own", content_type="text/plain")
    for each, answer in each_kind(responses={kind: custom}).items():
        assert (answer.status == 444) is (each == kind)
        assert ("x-own" in answer.fields) is (each == kind)
        if each == kind:
            assert answer.body == b"own"
            assert answer.fields["content-type"] == "text/plain"
            assert answer.fields["content-length"] == "3"


def test_a_default_stands_in_for_the_types_that_are_not_customised_themselves():
    four, five = GatewayResponse(status=444), GatewayResponse(status=555)
    own = GatewayResponse(status=499)
    answers = each_kind(responses={"DEFAULT_4XX": four, "DEFAULT_5XX": five, "THROTTLED": own})
    assert {kind: answer.status for kind, answer in answers.items()} == {
        "THROTTLED": 499,
        "OVERLOADED": 555,
        "BAD_REQUEST_PARAMETERS": 444,
        "RESOURCE_NOT_FOUND": 444,
        "STORE_UNAVAILABLE": 555,
    }


def test_what_is_left_out_stays_as_it_is():
    plain, custom = (each_kind(**settings)["THROTTLED"] for settings in ({}, {"responses": {"THROTTLED": OWN_FIELD}}))
    assert custom.body == plain.body
    assert custom.fields == {**plain.fields, "x-own": "yes"}


OWN_FIELD = GatewayResponse(headers={"X-Own": "yes"})


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
def test_a_field_replaces_the_gateways_own_of_the_same_name(name):
    custom = GatewayResponse(headers={name: "120"})
    assert each_kind(responses={"THROTTLED": custom})["THROTTLED"].fields["retry-after"] == "120"


def test_a_content_length_cannot_be_made_wrong():
    custom = GatewayResponse(headers={"Content-Length": "7"}, body="twelve bytes")
    answer = each_kind(responses={"THROTTLED": custom})["THROTTLED"]
    assert (answer.fields["content-length"], answer.body) == ("12", b"twelve bytes")


def test_a_body_may_be_a_function_of_the_context():
    def body(context):
        return json.dumps({"error": context.request_id, "path": context.request.path, "left": context.decision.allowed})

    answer = each_kind(responses={"THROTTLED": GatewayResponse(body=body)})["THROTTLED"]
    found = json.loads(answer.body)
    assert len(found.pop("error")) == 32
    assert found == {"path": "/x", "left": False}
    assert answer.fields["content-type"] == "application/json"


def test_a_body_beyond_ascii_is_utf8_and_counted_in_bytes():
    answer = each_kind(responses={"THROTTLED": GatewayResponse(body="ruhig, é")})["THROTTLED"]
    assert answer.body == "ruhig, é".encode()
    assert answer.fields["content-length"] == "9"


def test_a_body_that_is_empty_is_sent_empty():
    answer = each_kind(responses={"THROTTLED": GatewayResponse(body="")})["THROTTLED"]
    assert (answer.body, answer.fields["content-length"]) == (b"", "0")


@pytest.mark.parametrize(
    ("rates", "detail"),
    [
        ({"throttle": ONE}, "The global limit of 1/10 second was exceeded."),
        (
            {"throttle": ONE, "client_throttle": "1/minute"},
            "The global limit of 1/10 second and the client limit of 1/minute were exceeded.",
        ),
        (
            {"client_throttle": ["1/minute", "1/hour"]},
            "The client limit of 1/minute and the client-2 limit of 1/hour were exceeded.",
        ),
    ],
)
def test_the_detail_names_what_was_exceeded(rates, detail):
    gateway = built(**rates)
    ask(gateway)
    assert json.loads(ask(gateway).body)["detail"] == detail


def test_x_rate_limit_is_sent_beside_for_old_clients():
    gateway = built(throttle=Rate(1, per=10, burst=2), x_rate_limit=True, rate_limit=None)
    now = round(gateway.clock.wall())
    assert ask(gateway).fields == {
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "1",
        "x-ratelimit-reset": str(now + 10),
    }
    ask(gateway)
    refused = ask(gateway).fields
    assert (refused["retry-after"], refused["x-ratelimit-remaining"]) == ("10", "0")
    assert refused["x-ratelimit-reset"] == str(now + 20)


def test_a_refusal_never_depends_on_the_one_before_it():
    gateways: list[Gateway] = [built(throttle=ONE, error_format=form) for form in ("problem", "amazon", "problem")]
    bodies = []
    for gateway in gateways:
        ask(gateway)
        bodies.append(ask(gateway).body)
    assert bodies[0] == bodies[2] != bodies[1]
