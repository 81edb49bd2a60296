"""The path rules of a gateway: cleaning a path may close it, never open it."""

import pytest

from apigate import Method, Rate
from apigate.core.policy import Phase
from tests.gateway.asking import Open, admitted, ask, built, statuses

TWO = Rate(1, per=10, burst=2)
THREE = Rate(1, per=10, burst=3)
PREFLIGHT = {"origin": "https://app.example", "access_control_request_method": "PUT"}


@pytest.mark.parametrize("path", ["/a/../b", "/./b", "/b/.", "/b/..", "/..", "//../b"])
def test_a_dot_segment_is_a_400_that_takes_nothing(path):
    gateway = built(throttle=TWO)
    assert {ask(gateway, f"{verb} {path}").status for verb in ("GET", "POST", "OPTIONS", "get")} == {400}
    assert admitted(gateway) == 2


@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\t", "\x1f", "\x7f"], ids=ascii)
@pytest.mark.parametrize("path", ["/pets{}", "/{}", "{}/pets", "/pe{}ts"])
def test_a_control_character_is_a_400_that_takes_nothing(path, character):
    gateway = built(throttle=TWO)
    assert ask(gateway, f"GET {path.format(character)}").status == 400
    assert admitted(gateway) == 2


def test_characters_that_are_only_unusual_are_paths_like_others():
    gateway = built(throttle=Rate(9))
    assert statuses(gateway, "GET /é", "GET /a b", "GET /\u202e", "GET /\ufffd", "GET /\xa0") == [200] * 5


def test_a_dot_segment_is_refused_before_a_preflight_is_recognised():
    assert ask(built(throttle=TWO), "OPTIONS /a/../b", **PREFLIGHT).status == 400


def test_names_that_merely_begin_or_end_with_dots_are_paths_like_others():
    gateway = built(throttle=Rate(9))
    assert statuses(gateway, "GET /.well-known/x", "GET /a..b", "GET /...", "GET /x.") == [200] * 4


@pytest.mark.parametrize("path", ["/pets/", "//pets", "//pets//", "/pets//"])
def test_slashes_make_no_other_bucket(path):
    gateway = built(methods={"GET /pets": Method(throttle=TWO)})
    assert statuses(gateway, "GET /pets", f"GET {path}", f"GET {path}", "GET /pets") == [200, 200, 429, 429]


def test_where_both_readings_match_the_limits_of_both_hold():
    gateway = built(methods={"GET /c/{proxy+}": Method(throttle=THREE), "GET /c/d": Method(throttle=TWO)})
    assert admitted(gateway, "GET /c//d") == 2
    assert admitted(gateway, "GET /c/d") == 0
    assert admitted(gateway, "GET /c/x") == 1  # the doubled slash took two of its three


def test_where_both_readings_match_the_higher_cost_holds():
    gateway = built(methods={"GET /c/{proxy+}": Method(cost=3), "GET /c/d": Method(cost=2)}, throttle=Rate(6))
    assert admitted(gateway, "GET /c//d") == 2


def test_where_both_readings_match_a_cost_that_is_a_function_is_compared_too():
    methods = {"GET /c/{proxy+}": Method(cost=lambda asked: 3), "GET /c/d": Method(cost=2)}
    assert admitted(built(methods=methods, throttle=Rate(6)), "GET /c//d") == 2


@pytest.mark.parametrize(
    ("greedy", "literal", "free"),
    [(True, True, True), (True, False, False), (False, True, False), (lambda asked: True, True, True)],
    ids=["both", "only as sent", "only collapsed", "by a function"],
)
def test_where_both_readings_match_a_request_is_exempt_only_if_both_say_so(greedy, literal, free):
    methods = {"GET /c/{proxy+}": Method(exempt=greedy), "GET /c/d": Method(exempt=literal)}
    assert admitted(built(methods=methods, throttle=TWO), "GET /c//d") == (50 if free else 2)


def test_where_both_readings_match_in_flight_limits_of_both_hold():
    gateway = built(methods={"GET /c/{proxy+}": Method(in_flight=1), "GET /c/d": Method(in_flight=1)})
    first = Open(gateway, "GET /c//d")
    assert statuses(gateway, "GET /c/d", "GET /c/x", "GET /other") == [503, 503, 200]
    first.close()
    assert statuses(gateway, "GET /c/d", "GET /c/x") == [200, 200]


def test_more_combinations_than_are_remembered_are_still_right():
    methods = {f"GET /{name}/{{proxy+}}": Method(throttle=TWO) for name in range(300)}
    methods |= {f"GET /{name}/x": Method(throttle=Rate(1, per=10)) for name in range(300)}
    gateway = built(methods=methods)
    assert {admitted(gateway, f"GET /{name}//x") for name in range(300)} == {1}
    assert {ask(gateway, f"GET /{name}//x").status for name in range(300)} == {429}


@pytest.mark.parametrize("verb", ["GET", "get", "Get", "HEAD", "head"])
def test_a_verb_in_other_letters_and_head_take_from_the_same_bucket(verb):
    gateway = built(methods={"GET /pets": Method(throttle=TWO)})
    assert statuses(gateway, "GET /pets", f"{verb} /pets", f"{verb} /pets") == [200, 200, 429]


def test_requests_that_match_nothing_share_one_bucket():
    gateway = built(methods={"*": Method(throttle=THREE, client_throttle=TWO), "GET /pets": Method()})
    asked = ["GET /a", "POST /b", "BREW /c/d", "GET /e"]
    assert [ask(gateway, each, x_client=each).status for each in asked] == [200, 200, 200, 429]
    assert admitted(gateway, "GET /pets") == 2


def test_random_paths_and_verbs_make_no_buckets():
    gateway = built(methods={"*": Method(throttle=Rate(10_000))}, throttle=Rate(10_000))
    for number in range(500):
        ask(gateway, f"VERB{number} /{number}/{number * 7}")
    assert len(gateway.store) == 2


# ---- preflights


def test_a_preflight_takes_from_the_global_level_alone():
    gateway = built(
        throttle=THREE, client_throttle=Rate(1, per=10), methods={"* /pets": Method(throttle=Rate(1, per=10))}
    )
    assert [ask(gateway, "OPTIONS /pets", **PREFLIGHT).status for _ in range(4)] == [200, 200, 200, 429]
    gateway.clock.advance(10)
    assert ask(gateway, "GET /pets").status == 200


def test_a_preflight_of_a_path_whose_options_are_named_is_a_request_like_others():
    gateway = built(methods={"OPTIONS /pets": Method(throttle=TWO), "* /cats": Method(throttle=TWO)})
    assert [ask(gateway, "OPTIONS /pets", **PREFLIGHT).status for _ in range(3)] == [200, 200, 429]
    assert {ask(gateway, "OPTIONS /cats", **PREFLIGHT).status for _ in range(5)} == {200}


@pytest.mark.parametrize("path", ["/pets/1", "/pets/1/", "//pets//1"])
def test_a_preflight_of_a_template_whose_options_are_named_is_a_request_like_others(path):
    gateway = built(methods={"OPTIONS /pets/{id}": Method(throttle=TWO), "GET /pets/{id}": Method(throttle=TWO)})
    assert [ask(gateway, f"OPTIONS {path}", **PREFLIGHT).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("missing", ["origin", "access_control_request_method"])
def test_an_options_request_that_is_no_preflight_is_a_request_like_others(missing):
    gateway = built(methods={"* /pets": Method(throttle=TWO)})
    fields = {name: value for name, value in PREFLIGHT.items() if name != missing}
    assert [ask(gateway, "OPTIONS /pets", **fields).status for _ in range(3)] == [200, 200, 429]


def test_a_preflight_needs_a_slot_of_the_global_level_alone():
    gateway = built(in_flight=1, client_in_flight=1, methods={"* /pets": Method(in_flight=1)})
    first = Open(gateway, "OPTIONS /pets", **PREFLIGHT)
    assert ask(gateway, "OPTIONS /pets", **PREFLIGHT).status == 503
    gateway.update(in_flight=2)
    assert ask(gateway, "GET /pets").status == 200
    first.close()


@pytest.mark.parametrize("verb", ["options", "GET", "POST"])
def test_no_other_verb_becomes_a_preflight_by_its_fields(verb):
    gateway = built(methods={"* /pets": Method(throttle=TWO)})
    assert [ask(gateway, f"{verb} /pets", **PREFLIGHT).status for _ in range(3)] == [200, 200, 429]


def test_a_preflight_is_not_authorized_but_meets_every_other_phase():
    asked = []

    class Notes:
        def __init__(self, phase):
            self.phase = phase

        def on_request(self, context):
            asked.append(self.phase)

    gateway = built(policies=[Notes(phase) for phase in Phase])
    ask(gateway, "OPTIONS /pets", **PREFLIGHT)
    assert asked == [phase for phase in Phase if phase is not Phase.AUTHORIZE]
