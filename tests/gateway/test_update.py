"""Settings changed while the gateway runs: buckets and counters keep their state."""

import pytest

from apigate import ConfigurationError, Method, Rate
from tests.gateway.asking import Open, admitted, ask, built

TEN = Rate(10, per=100)


def test_a_methods_rate_is_changed_and_what_it_is_owed_stays_owed():
    gateway = built(methods={"GET /pets/{id}": Method(throttle=TEN)})
    assert admitted(gateway, "GET /pets/1", most=7) == 7
    gateway.stage().update("GET /pets/{id}", throttle="20/second; burst=20")
    assert admitted(gateway, "GET /pets/1") == 13
    gateway.stage().update("GET /pets/{id}", throttle=Rate(1, per=1, burst=5))
    assert admitted(gateway, "GET /pets/1") == 0  # owes its whole, smaller, bucket
    gateway.clock.advance(5)
    assert admitted(gateway, "GET /pets/1") == 5


def test_the_global_rate_is_changed_for_every_stage_and_for_preflights():
    gateway = built(throttle=TEN)
    preflight = {"origin": "https://app.example", "access_control_request_method": "PUT"}
    assert admitted(gateway, most=8) == 8
    gateway.update(throttle=Rate(9, per=100))
    assert ask(gateway, "OPTIONS /", **preflight).status == 200
    assert ask(gateway, "OPTIONS /", **preflight).status == 429
    assert ask(gateway).status == 429


@pytest.mark.parametrize("settings", [{"in_flight": 2}, {"modes": {"global": "shadow"}}, {}], ids=repr)
def test_the_global_settings_are_changed_one_by_one_where_there_is_no_rate(settings):
    built(client_throttle=TEN).update(**settings)


def test_a_stages_own_settings_are_changed():
    gateway = built(client_throttle=TEN)
    assert admitted(gateway, most=4) == 4
    gateway.stage().update(client_throttle=Rate(5, per=100))
    assert admitted(gateway) == 1
    gateway.stage().update(client_throttle=None)
    assert admitted(gateway) == 50
    gateway.stage().update(client_throttle=Rate(5, per=100))
    assert admitted(gateway) == 0  # nothing was forgotten


def test_the_default_of_methods_is_changed_for_those_that_inherit_it():
    gateway = built(methods={"*": Method(throttle=TEN), "GET /own": Method(throttle=TEN), "GET /unset": Method()})
    gateway.stage().update("*", throttle=Rate(1, per=100))
    assert [admitted(gateway, f"GET /{path}") for path in ("own", "unset", "unmatched")] == [10, 1, 1]


def test_a_method_may_be_added():
    gateway = built(methods={"*": Method(throttle=TEN)})
    gateway.stage().update("GET /new/{id}", throttle=Rate(2, per=100))
    assert admitted(gateway, "GET /new/1") == 2
    assert admitted(gateway, "GET /old") == 10


def test_one_setting_is_changed_and_the_others_of_the_method_stay():
    gateway = built(methods={"GET /": Method(throttle=TEN, client_throttle=Rate(3, per=100), cost=2)})
    gateway.stage().update("GET /", throttle=Rate(9, per=100))
    settings = gateway.stage().settings.methods["GET /"]
    assert (settings.throttle, settings.client_throttle, settings.cost) == (
        (Rate(9, per=100),),
        (Rate(3, per=100),),
        2,
    )


def test_an_empty_gateway_becomes_one_with_gates_and_back():
    gateway = built()
    assert gateway.is_empty
    assert admitted(gateway) == 50
    gateway.update(throttle=TEN)
    assert admitted(gateway) == 10
    gateway.update(throttle=None)
    assert gateway.is_empty
    gateway.stage().update("GET /x", client_throttle=TEN)
    assert not gateway.is_empty


def test_counters_go_on():
    gateway = built(throttle=TEN)
    ask(gateway)
    gateway.update(throttle="20/s")
    gateway.stage().update("GET /", cost=2)
    ask(gateway, "GET /other")
    ask(gateway, "GET /")
    assert gateway.stats() == {"default": {"*": {"admitted": 2}, "GET /": {"admitted": 1}}}


def test_a_request_under_way_is_settled_as_it_was_begun():
    gateway = built(methods={"GET /": Method(throttle=Rate(2, per=100), refund="2xx")})
    under_way = Open(gateway)
    gateway.stage().update("GET /", throttle=Rate(3, per=100), refund=None)
    under_way.close()
    assert admitted(gateway) == 3


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("GET /", {"throtle": "1/s"}, "did you mean 'throttle'"),
        ("GET /", {"throttle": "often"}, "throttle"),
        ("get /", {"throttle": "1/s"}, "verb in capitals"),
        ("GET /{x}", {"cost": 1}, "match the same requests"),
        (None, {"cost": -1}, "cost"),
        (None, {"name": "other"}, "'name' is no setting"),
        (None, {"methods": {}}, "'methods' is no setting"),
        ("GET /", {"variables": {}}, "'variables' is no setting"),
    ],
)
def test_what_cannot_be_used_changes_nothing(method, settings, said):
    gateway = built(methods={"GET /": Method(throttle=TEN), "GET /{id}": Method()})
    before = (gateway.stage().settings, repr(gateway))
    with pytest.raises(ConfigurationError, match=said):
        gateway.stage().update(method, **settings)
    assert (gateway.stage().settings, repr(gateway)) == before
    assert admitted(gateway) == 10


@pytest.mark.parametrize("settings", [{"throttle": "often"}, {"in_flight": 0}, {"modes": {"golbal": "off"}}])
def test_what_cannot_be_used_changes_nothing_at_the_global_level(settings):
    gateway = built(throttle=TEN)
    with pytest.raises(ConfigurationError):
        gateway.update(**settings)
    assert admitted(gateway) == 10


def test_an_unknown_stage_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="'prod' is no stage; stages are default"):
        built().stage("prod")
