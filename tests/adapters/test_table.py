"""The behaviour table: every row is a test, every column a server with a host. `columns` says which meet.

What is promised is promised by all of them.
"""

import json

import pytest

from tests.adapters.apps import CHUNKS
from tests.adapters.columns import columns_of
from tests.adapters.harness import Visit


def pytest_generate_tests(metafunc):
    metafunc.parametrize("server", columns_of(metafunc.function.__name__))


OWN_FIELDS = [
    ("x-app", "yes"),
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("content-type", "text/plain"),
    ("content-length", "5"),
]
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


def problem(status, title, detail, kind="about:blank", violated=None):
    found = {"type": kind, "title": title, "status": status, "detail": detail}
    return found if violated is None else {**found, "violated-policies": violated}


def exhausted(visit: Visit, target="/pets/1", **fields) -> None:
    """Take both tokens of a slow rate."""
    assert [visit.get(target, **fields).status for _ in range(2)] == [200, 200]


# ---- refusals, level by level


@pytest.mark.parametrize("level", ["global", "stage", "method", "client", "client-method"])
def test_each_level_admits_its_burst_and_refuses_the_next(visit, level):
    cell = visit(level)
    exhausted(cell)
    reply = cell.get()
    detail = f"The {level} limit of 1/10 second; burst=2 was exceeded."
    body = json.dumps(problem(429, "Too Many Requests", detail, QUOTA_EXCEEDED, [level])).encode()
    fields = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("retry-after", "10"),
        ("ratelimit", f'"{level}";r=0;t=10'),
    ]
    assert reply == (429, cell.in_order(fields), body, True)


@pytest.mark.parametrize("level", ["global", "stage", "method", "client", "client-method"])
def test_after_the_announced_wait_one_more_is_admitted(visit, level):
    cell = visit(level)
    exhausted(cell)
    assert cell.get().status == 429
    cell.advance(9.999999)
    assert cell.get().get("retry-after") == "1"
    cell.advance(0.000001)
    assert [cell.get().status, cell.get().status] == [200, 429]


def test_a_refused_request_does_not_reach_the_app(visit):
    cell = visit("global")
    exhausted(cell)
    cell.get()
    assert cell.report()["calls"] == 2


@pytest.mark.parametrize("level", ["client", "client-method"])
def test_clients_do_not_share_their_buckets(visit, level):
    cell = visit(level)
    exhausted(cell, x_client="alice")
    assert cell.get(x_client="alice").status == 429
    exhausted(cell, x_client="bob")


@pytest.mark.parametrize("level", ["global", "stage", "method"])
def test_the_other_levels_are_shared_by_all_clients(visit, level):
    cell = visit(level)
    assert [cell.get(x_client=who).status for who in ("alice", "bob", "carol")] == [200, 200, 429]


def test_a_request_takes_from_every_level_and_the_tightest_is_told(visit):
    cell = visit("all-levels")
    reply = cell.get()
    assert reply.get("ratelimit-policy") == (
        '"global";q=5;w=50, "stage";q=4;w=40, "method";q=2;w=20, "client";q=3;w=30, "client-method";q=2;w=40'
    )
    assert reply.get("ratelimit") == '"method";r=1;t=10'


def test_a_refusal_names_all_the_levels_that_refused_each_with_its_own_wait(visit):
    cell = visit("all-levels")
    exhausted(cell)
    reply = cell.get()
    assert reply.get("ratelimit") == '"method";r=0;t=10, "client-method";r=0;t=20'
    assert reply.get("retry-after") == "20"
    assert json.loads(reply.body)["violated-policies"] == ["method", "client-method"]


def test_a_refusal_takes_from_no_level(visit):
    cell = visit("all-levels")
    exhausted(cell)
    assert {cell.get().status for _ in range(5)} == {429}
    cell.advance(20)  # method and client-method have a token again; the others would not, had refusals taken any
    assert cell.get().status == 200


def test_requests_that_match_no_method_share_one_bucket(visit):
    cell = visit("unmatched")
    assert [cell.get(f"/path/{number}").status for number in range(3)] == [200, 200, 429]
    assert {cell.get("/known").status for _ in range(5)} == {200}


def test_a_method_has_one_bucket_whatever_its_parameters_are(visit):
    cell = visit("method")
    assert [cell.get(f"/pets/{number}").status for number in range(3)] == [200, 200, 429]
    assert cell.get("/other").status == 200


# ---- fields


def test_an_admitted_response_keeps_the_apps_fields_and_gets_the_gateways_after_them(visit):
    cell = visit("global")
    fields = [*OWN_FIELDS, ("ratelimit-policy", '"global";q=2;w=20'), ("ratelimit", '"global";r=1;t=10')]
    assert cell.get() == (200, cell.in_order(fields), b"hello", True)


@pytest.mark.parametrize(
    ("cell", "admitted", "refused"),
    [
        (
            "draft-07",
            [("ratelimit-policy", "2;w=20"), ("ratelimit", "limit=2, remaining=1, reset=10")],
            [("retry-after", "10"), ("ratelimit", "limit=2, remaining=0, reset=10")],
        ),
        (
            "draft-06",
            [("ratelimit-limit", "2, 2;w=20"), ("ratelimit-remaining", "1"), ("ratelimit-reset", "10")],
            [
                ("retry-after", "10"),
                ("ratelimit-limit", "2, 2;w=20"),
                ("ratelimit-remaining", "0"),
                ("ratelimit-reset", "10"),
            ],
        ),
        ("no-fields", [], [("retry-after", "10")]),
        ("shadow", [], None),
    ],
)
def test_each_version_of_the_fields(visit, cell, admitted, refused):
    client = visit(cell)
    assert client.get().fields == client.in_order([*OWN_FIELDS, *admitted])
    client.get()
    third = client.get()
    own = OWN_FIELDS if refused is None else [(name, third.get(name)) for name in ("content-type", "content-length")]
    assert third.fields == client.in_order([*own, *(refused or [])])


def test_a_method_that_is_exempt_has_no_fields_and_takes_nothing(visit):
    cell = visit("exempt")
    assert all(cell.get("/health").fields == cell.in_order(OWN_FIELDS) for _ in range(5))
    exhausted(cell)
    assert cell.get("/health").status == 200


@pytest.mark.parametrize("status", [204, 304, 404, 500])
def test_the_apps_own_status_is_passed_on_with_the_fields(visit, status):
    reply = visit("global").get(x_do="status", x_status=str(status))
    assert (reply.status, reply.body, reply.get("ratelimit")) == (status, b"", '"global";r=1;t=10')


def test_what_the_app_says_is_missing_is_passed_on_with_the_fields(visit):
    cell = visit("global")
    reply = cell.get(x_do="missing")
    assert (reply.status, reply.get("ratelimit")) == (404, '"global";r=1;t=10')
    assert (reply.body == b"") is not cell.differs("answers for what is missing in words of its own")


def test_a_verb_that_no_route_serves_is_the_frameworks_405_with_the_fields_and_counts(visit):
    cell = visit("global")
    reply = cell.ask("DELETE", "/pets/1")
    if cell.differs("has no endpoints"):
        assert reply.status == 200
    else:
        allowed = set((reply.get("allow") or "").split(", "))
        assert (reply.status, "GET" in allowed, "DELETE" in allowed) == (405, True, False)
    assert reply.get("ratelimit") == '"global";r=1;t=10'
    assert [cell.get().status, cell.get().status] == [200, 429]


def test_shadow_refuses_nothing_and_counts_what_it_would_have_refused(visit):
    cell = visit("shadow")
    assert {cell.get().status for _ in range(4)} == {200}
    report = cell.report()
    assert report["stats"] == [{"default": {cell.counted_as: {"admitted": 4, "shadow:global": 2}}}]
    assert report["events"] == ["WouldDeny", "WouldDeny"]


# ---- the gateway's own responses


def test_amazons_body(visit):
    cell = visit("amazon")
    exhausted(cell)
    reply = cell.get()
    assert (reply.status, reply.get("content-type")) == (429, "application/json")
    assert reply.body == b'{"message": "Too Many Requests"}'
    assert reply.get("retry-after") == "10"


def test_a_customised_response(visit):
    cell = visit("custom")
    exhausted(cell)
    fields = [
        ("content-type", "text/plain"),
        ("content-length", "4"),
        ("ratelimit", '"global";r=0;t=10'),
        ("retry-after", "99"),
        ("x-why", "calm"),
    ]
    assert cell.get() == (420, cell.in_order(fields), b"Calm", True)


@pytest.mark.parametrize("path", ["/a/../pets/1", "/pets/.", "/%2e%2e/pets", "/pets/%2E/1", "/..%2fpets", "/a/.%2e"])
def test_a_dot_segment_plain_or_encoded_is_refused(visit, path):
    cell = visit("global")
    reply = cell.get(path)
    body = problem(400, "Bad Request", "The path has a dot segment, a control character, or no slash at its start.")
    assert (reply.status, reply.get("content-type"), json.loads(reply.body)) == (400, "application/problem+json", body)
    assert cell.report()["calls"] == 0
    exhausted(cell)


def test_head_counts_as_get_and_its_refusal_has_the_fields_but_no_body(visit):
    cell = visit("method")
    admitted = cell.ask("HEAD", "/pets/1")
    assert (admitted.status, admitted.body, admitted.get("ratelimit")) == (200, b"", '"method";r=1;t=10')
    assert cell.get().status == 200
    refused, as_get = cell.ask("HEAD", "/pets/1"), cell.get()
    assert (refused.status, refused.body, refused.fields) == (429, b"", as_get.fields)


# ---- paths


@pytest.mark.parametrize("path", ["/pets/1%0a", "/pets/%0d%0a1", "/%00", "/pets/1%7f", "/%1f/1"])
def test_a_control_character_in_a_path_is_refused(visit, path):
    cell = visit("method")
    assert cell.get(path).status == 400
    assert cell.report()["calls"] == 0


def test_percent_encoding_makes_no_other_bucket(visit):
    cell = visit("method")
    assert [cell.get(path).status for path in ("/pets/1", "/p%65ts/1", "/%70%65%74%73/%31")] == [200, 200, 429]


def test_a_path_beyond_ascii_finds_its_method(visit):
    cell = visit("cafe")
    exhausted(cell, "/caf%C3%A9")
    assert cell.get("/caf%c3%a9").status == 429
    assert cell.get("/cafe").status == 200


@pytest.mark.parametrize("path", ["/pets/1/", "//pets/1", "/pets//1", "//pets//1//"])
def test_doubled_and_trailing_slashes_do_not_lead_past_a_limit(visit, path):
    cell = visit("method")
    exhausted(cell)
    assert cell.get(path).status == 429


# ---- stages


def test_a_stage_by_path_prefix_is_what_the_app_is_mounted_under(visit):
    cell = visit("by-path")
    seen = json.loads(cell.get("/beta/pets/1?q=a%20b", x_do="context").body)
    assert (seen["context"]["stage"], seen["context"]["variables"]) == ("beta", {"table": "pets-beta"})
    assert (seen["native"]["mount"], seen["native"]["query"]) == ("/beta", "q=a%20b")
    is_cut = cell.harness.protocol == "wsgi" or cell.differs("routes on what is left below the stage")
    assert seen["native"]["path"] == ("/pets/1" if is_cut else "/beta/pets/1")


def test_each_stage_has_its_own_bucket(visit):
    cell = visit("by-path")
    exhausted(cell, "/beta/pets")
    assert cell.get("/beta/pets").status == 429
    exhausted(cell, "/prod/pets")


@pytest.mark.parametrize("path", ["/", "/nowhere/pets", "/PROD/pets", "//prod/pets", "/prodx"])
def test_a_path_that_names_no_stage_is_not_found(visit, path):
    cell = visit("by-path")
    reply = cell.get(path)
    if path.startswith("//") and cell.differs("cleans a path that begins with two slashes"):
        assert (reply.status, reply.get("ratelimit")) == (200, '"stage";r=1;t=10')  # the app too sees the cleaned path
    else:
        assert json.loads(reply.body) == problem(404, "Not Found", "There is no such stage.")
        assert (reply.status, cell.report()["calls"]) == (404, 0)


@pytest.mark.parametrize(
    ("host", "status"),
    [("api.example", 200), ("API.example:8443", 200), ("api.example.", 200), ("other.example", 404), ("", 404)],
)
def test_a_stage_by_host(visit, host, status):
    assert visit("by-host").get(host=host).status == status


@pytest.mark.parametrize(("fields", "stage"), [({}, "prod"), ({"x_stage": "beta"}, "beta")])
def test_a_stage_by_header(visit, fields, stage):
    assert json.loads(visit("by-header").get(x_do="context", **fields).body)["context"]["stage"] == stage


def test_an_unknown_stage_in_a_header_is_not_found(visit):
    assert visit("by-header").get(x_stage="nowhere").status == 404


def test_a_stage_fixed_where_the_gateway_is_put_around_the_app(visit):
    assert json.loads(visit("context-fixed").get(x_do="context").body)["context"]["stage"] == "beta"


# ---- context


def test_the_app_finds_its_context(visit):
    reply = visit("context").get("/pets/7", x_do="context", x_client="alice")
    seen = json.loads(reply.body)["context"]
    assert len(seen.pop("request_id")) == 32
    assert seen == {
        "stage": "prod",
        "method": "GET /pets/{id}",
        "client": "client:alice",
        "principal": None,
        "variables": {"table": "pets"},
        "remaining": {"stage": 1, "method": 4},
    }


def test_without_a_rule_the_client_is_the_address_of_the_peer(visit):
    seen = json.loads(visit("context").get(x_do="context").body)["context"]
    assert seen["client"] == "ip:127.0.0.1"


# ---- nothing to do


def test_an_empty_gateway_is_not_there(visit):
    bare, empty = visit("bare"), visit("empty")
    assert empty.get() == bare.get() == (200, bare.in_order(OWN_FIELDS), b"hello", True)
    seen = json.loads(empty.get(x_do="context").body)["context"]
    if empty.differs("hands out a context where there is no gate"):
        assert (seen["stage"], seen["method"], seen["remaining"]) == ("(none)", None, {})
    else:
        assert seen is None


# ---- counting


def test_a_gate_in_a_gate_of_the_same_gateway_counts_once(visit):
    cell = visit("twice")
    reply = cell.get()
    assert reply.all("ratelimit") == ['"global";r=1;t=10']
    assert cell.settled()["held"] == 0  # it has one slot: the inner gate did not ask for a second
    assert cell.get().status == 200
    assert cell.settled()["held"] == 0
    assert cell.get().status == 429
    assert cell.report()["stats"] == [{"default": {cell.counted_as: {"admitted": 2, "THROTTLED": 1}}}]


def test_different_gateways_both_count(visit):
    cell = visit("two-gateways")
    exhausted(cell)
    assert cell.get().status == 429
    admitted = {"admitted": 2}
    inner, outer = cell.report()["stats"]
    assert inner == {"default": {cell.counted_as: admitted}}
    assert outer == {"default": {cell.counted_as: {**admitted, "THROTTLED": 1}}}


def test_one_gateway_around_two_apps_is_one_limit(visit):
    cell = visit("two-apps")
    assert [cell.get(path).status for path in ("/left", "/right", "/left", "/right")] == [200, 200, 429, 429]


# ---- decorated endpoints


@pytest.mark.parametrize(("cell", "level"), [("marked", "method"), ("marked-client", "client-method")])
def test_a_decorated_endpoint_refuses_as_its_level_does(visit, cell, level):
    client = visit(cell)
    admitted = client.get(x_client="alice")
    known = None if client.differs("has no endpoints") else f'"{level}";r=1;t=10'
    assert (admitted.status, admitted.body, admitted.get("ratelimit")) == (200, b"hello", known)
    assert client.get(x_client="alice").status == 200
    reply = client.get(x_client="alice")
    detail = f"The {level} limit of 1/10 second; burst=2 was exceeded."
    body = json.dumps(problem(429, "Too Many Requests", detail, QUOTA_EXCEEDED, [level])).encode()
    fields = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("retry-after", "10"),
        ("ratelimit", f'"{level}";r=0;t=10'),
    ]
    assert reply == (429, client.in_order(fields), body, True)
    assert client.report()["calls"] == 2
    client.advance(10)
    assert [client.get(x_client="alice").status for _ in range(2)] == [200, 429]


def test_clients_do_not_share_the_bucket_of_a_decorator_for_each_client(visit):
    cell = visit("marked-client")
    exhausted(cell, x_client="alice")
    assert cell.get(x_client="alice").status == 429
    exhausted(cell, x_client="bob")


def test_a_decorator_limits_its_own_endpoint_whatever_the_path_is_and_no_other(visit):
    cell = visit("marked")
    assert [cell.get(f"/pets/{number}").status for number in range(3)] == [200, 200, 429]
    assert cell.get("/other").status == (429 if cell.differs("has no endpoints") else 200)


def test_head_takes_from_the_decorators_bucket_and_its_refusal_has_no_body(visit):
    cell = visit("marked")
    assert [cell.ask("HEAD", "/pets/1").status, cell.get().status] == [200, 200]
    refused, as_get = cell.ask("HEAD", "/pets/1"), cell.get()
    assert (refused.status, refused.body, refused.fields) == (429, b"", as_get.fields)


def test_a_request_that_a_decorator_refuses_takes_nothing_from_the_gateway(visit):
    cell = visit("marked-global")
    assert [cell.get().status for _ in range(5)] == [200, 200, 429, 429, 429]
    cell.advance(20)
    assert [cell.get().status for _ in range(3)] == [200, 200, 429]
    cell.advance(20)
    assert json.loads(cell.get().body)["violated-policies"] == ["global"]  # which has given its four


def test_a_request_that_the_gateway_refuses_takes_nothing_from_a_decorator(visit):
    cell = visit("marked-global")
    for _ in range(2):
        exhausted(cell)
        cell.advance(20)
    assert [cell.get().status for _ in range(3)] == [429, 429, 429]
    cell.advance(2_000)
    exhausted(cell)


# ---- bodies


def test_the_requests_body_reaches_the_app_as_it_was_sent(visit):
    body = bytes(range(256)) * 1_000
    assert visit("global").ask("POST", "/pets", body, x_do="echo").body == body


@pytest.mark.parametrize("cell", ["global", "in-flight"])
@pytest.mark.parametrize("kind", ["application/octet-stream", "text/event-stream"])
def test_a_stream_is_not_held_back(visit, cell, kind):
    with visit(cell).stream(x_type=kind) as (exchange, turnstile):
        assert exchange.read() == CHUNKS[0]
        for chunk in CHUNKS[1:]:
            turnstile.permit()
            assert exchange.read() == chunk
        assert exchange.read() == b""
        assert exchange.whole


# ---- slots


def test_a_slot_is_held_until_the_last_chunk(visit):
    cell = visit("in-flight")
    if cell.differs("serves one request at a time"):  # so there is nobody to refuse
        assert {cell.get().status for _ in range(3)} == {200}
    else:
        with cell.stream() as (exchange, turnstile):
            assert exchange.read() == CHUNKS[0]
            reply = cell.get()
            detail = "Too many requests are under way at once (global)."
            body = json.dumps(problem(503, "Service Unavailable", detail, REDUCED_CAPACITY, ["global"])).encode()
            content = [("content-type", "application/problem+json"), ("content-length", str(len(body)))]
            assert reply == (503, cell.in_order(content), body, True)  # no Retry-After: nobody can tell
            for _ in CHUNKS[1:]:
                turnstile.permit()
                exchange.read()
            assert exchange.read() == b""
        assert cell.settled()["held"] == 0
        assert cell.get().status == 200


def test_a_client_that_has_too_many_requests_under_way_is_told_so_and_others_are_served(visit):
    cell = visit("in-flight-client")
    if cell.differs("serves one request at a time"):
        assert {cell.get(x_client="alice").status for _ in range(3)} == {200}
    else:
        with cell.stream(x_client="alice") as (exchange, turnstile):
            assert exchange.read() == CHUNKS[0]
            refused = cell.get(x_client="alice")
            assert (refused.status, refused.get("retry-after")) == (429, None)
            assert json.loads(refused.body)["violated-policies"] == ["client"]
            assert cell.get(x_client="bob").status == 200
            for _ in CHUNKS[1:]:
                turnstile.permit()
                exchange.read()
            assert exchange.read() == b""
        assert cell.settled()["held"] == 0


def test_a_refusal_by_a_rate_leaves_no_slot_taken(visit):
    cell = visit("in-flight-throttled")
    exhausted(cell)
    assert [cell.get().status for _ in range(3)] == [429, 429, 429]
    assert cell.settled()["held"] == 0
    cell.advance(10)
    assert cell.get().status == 200


def test_a_client_that_leaves_in_the_middle_frees_its_slot_and_the_body_is_closed_once(visit):
    cell = visit("in-flight")
    exchange = cell.open("GET", "/endless", x_do="endless")
    assert exchange.status == 200
    assert exchange.read()
    exchange.leave()
    if cell.differs("leaves it to the garbage collector to close a body that it could not send"):
        report = cell.settled()
        assert (report["held"], report["calls"]) == (0, 1)
    else:
        report = cell.settled(closed=1)
        assert (report["held"], report["calls"], report["closed"]) == (0, 1, 1)
    assert cell.get().status == 200


# ---- errors


def test_an_app_that_breaks_before_it_answers_is_the_servers_500_and_has_taken_its_token(visit):
    cell = visit("in-flight-throttled")
    reply = cell.get(x_do="raise")
    is_its_own = cell.differs("makes a 500 of an error by itself")
    assert (reply.status, reply.get("ratelimit")) == (500, '"global";r=1;t=10' if is_its_own else None)
    assert cell.settled()["held"] == 0
    assert [cell.get().status, cell.get().status] == [200, 429]


@pytest.mark.parametrize("act", ["raise-late", "throttled-late"])
def test_an_app_that_breaks_or_is_throttled_half_way_is_a_response_cut_off(visit, discard, act):
    cell = visit("in-flight-throttled")
    if cell.differs("leaves a response open whose app broke half-way"):
        discard()
        exchange = cell.open("GET", "/pets/1", x_do=act)
        assert (exchange.status, exchange.read()) == (200, b"half")
        assert cell.harness.has_logged("half-way" if act == "raise-late" else "Throttled: ")  # no second of the 500
        assert exchange.is_open()
        exchange.leave()
    else:
        reply = cell.get(x_do=act)
        cut_off = (reply.status, reply.get("ratelimit"), reply.body, reply.whole)
        admitted = (200, '"global";r=1;t=10')
        if cell.differs("may cut off a response before its body"):
            assert cut_off in {(*admitted, b"half", False), (*admitted, b"", False), (0, None, b"", False)}
        else:
            assert cut_off == (*admitted, b"half", False)
    assert cell.settled()["held"] == 0
    assert [cell.get().status, cell.get().status] == [200, 429]


@pytest.mark.parametrize("cell", ["global", "in-flight-throttled"])
def test_an_app_throttled_further_in_becomes_a_429_and_an_endpoint_keeps_what_it_took(visit, cell):
    client = visit(cell)
    reply = client.get(x_do="throttled")
    assert (reply.status, reply.whole) == (429, True)
    assert reply.get("retry-after") == "30"
    assert reply.get("ratelimit") == '"global";r=0;t=30'
    assert reply.get("content-length") == str(len(reply.body))
    report = client.settled()
    assert (report["held"], report["stats"]) == (0, [{"default": {client.counted_as: {"THROTTLED": 1}}}])
    left = 2 if client.differs("has no endpoints") else 1  # an endpoint had begun its work
    assert [client.get().status for _ in range(left + 1)] == [200] * left + [429]


def test_an_app_throttled_further_in_becomes_a_429_for_head_too(visit):
    reply = visit("global").ask("HEAD", "/pets/1", x_do="throttled")
    assert (reply.status, reply.body) == (429, b"")


# ---- settlement


def test_only_failed_logins_count(visit):
    cell = visit("refund")
    for _ in range(6):
        assert cell.ask("POST", "/login").status == 200
        cell.settled()
    failed = [cell.ask("POST", "/login", x_do="status", x_status="401").status for _ in range(4)]
    assert failed == [401, 401, 429, 429]
    assert cell.ask("POST", "/login").status == 429


def test_an_app_that_breaks_before_it_answers_counts_as_a_500(visit):
    cell = visit("refund-5xx")
    for _ in range(4):
        assert cell.get(x_do="raise").status == 500
        cell.settled()
    exhausted(cell)
    assert cell.get().status == 429
