"""Settings: an unset one inherits from `*`, then from the stage; None and "off" remove one level, exempt all."""

import pytest

from apigate import ConfigurationError, Gateway, Method, Rate, Stage
from apigate.stores.memory import MemoryStore
from tests.gateway.asking import ask, built

NINE = Rate(9)
LEVELS = {
    "throttle": Rate(100),
    "stages": [
        Stage(
            "prod",
            throttle=Rate(90),
            client_throttle=Rate(80),
            methods={
                "*": Method(throttle=Rate(70), client_throttle=Rate(60)),
                "GET /unset": Method(),
                "GET /own": Method(throttle="7/s", client_throttle="6/s"),
                "GET /no-method": Method(throttle=None),
                "GET /no-client": Method(client_throttle=None),
                "GET /off": Method(throttle="off", client_throttle=" OFF "),
                "GET /exempt": Method(exempt=True),
            },
        )
    ],
}


def limits(gateway: Gateway, asked: str) -> dict[str, str]:
    """Every limit that a request meets, with its rate."""
    return {state.policy: str(state.rate) for state in gateway.explain(*asked.split(" ")).levels}


@pytest.mark.parametrize(
    ("path", "method", "client_method"),
    [
        ("/unset", "70/second", "60/second"),
        ("/unmatched", "70/second", "60/second"),
        ("/own", "7/second", "6/second"),
        ("/no-method", None, "60/second"),
        ("/no-client", "70/second", None),
        ("/off", None, None),
    ],
)
def test_each_level_is_inherited_or_removed_by_itself(path, method, client_method):
    wide = {"global": "100/second", "stage": "90/second", "client": "80/second"}
    own = {"method": method, "client-method": client_method}
    expected = {**wide, **{level: rate for level, rate in own.items() if rate}}
    gateway = built(**LEVELS)
    assert limits(gateway, f"GET {path}") == expected
    fields = ask(gateway, f"GET {path}").fields["ratelimit-policy"]
    assert [item.split('"')[1] for item in fields.split(", ")] == [level for level in ORDER if level in expected]


ORDER = ["global", "stage", "method", "client", "client-method"]


def test_exempt_takes_from_no_level():
    gateway = built(**LEVELS)
    assert limits(gateway, "GET /exempt") == {}
    assert ask(gateway, "GET /exempt").fields == {}


def test_exempt_may_be_a_function_of_the_request():
    gateway = built(throttle=Rate(1, per=10), exempt=lambda asked: asked.headers.get("x-probe") == "yes")
    assert [ask(gateway, x_probe="yes").status for _ in range(3)] == [200] * 3
    assert [ask(gateway).status for _ in range(2)] == [200, 429]
    assert ask(gateway, x_probe="yes").fields == {}


def test_exempt_of_the_stage_or_of_the_default_is_inherited_and_may_be_taken_back():
    methods = {"*": Method(exempt=True), "GET /counted": Method(exempt=False)}
    gateway = built(throttle=NINE, methods=methods)
    assert limits(gateway, "GET /") == {}
    assert limits(gateway, "GET /counted") == {"global": "9/second"}
    by_stage = built(throttle=NINE, exempt=True, methods={"GET /counted": Method(exempt=False)})
    assert limits(by_stage, "GET /") == {}
    assert limits(by_stage, "GET /counted") == {"global": "9/second"}


def test_the_default_of_methods_goes_before_the_stage():
    gateway = built(throttle=Rate(100), cost=5, methods={"*": Method(cost=2), "GET /own": Method(cost=1)})
    assert ask(gateway, "GET /").fields["ratelimit"] == '"global";r=98'
    assert ask(gateway, "GET /own").fields["ratelimit"] == '"global";r=97'
    of_stage = built(throttle=Rate(100), cost=5, methods={"GET /unset": Method()})
    assert ask(of_stage, "GET /unset").fields["ratelimit"] == '"global";r=95'


@pytest.mark.parametrize("setting", ["refund", "final_cost"])
def test_a_settlement_is_inherited_and_may_be_removed(setting):
    value = {"refund": "2xx", "final_cost": lambda context, status: 0}[setting]
    methods = {"*": Method(throttle=Rate(1, per=60)), "GET /kept": Method(**{setting: None})}
    gateway = built(methods=methods, **{setting: value})
    assert [ask(gateway, "GET /").status for _ in range(3)] == [200] * 3
    assert [ask(gateway, "GET /kept").status for _ in range(2)] == [200, 429]


def test_modes_are_joined_level_by_level():
    gateway = built(
        throttle=Rate(1, per=60),
        modes={"global": "shadow"},
        methods={
            "*": Method(throttle=Rate(1, per=60), client_throttle=Rate(1, per=60), modes={"method": "shadow"}),
            "GET /enforced": Method(modes={"method": "enforce"}),
            "GET /off": Method(modes={"client-method": "off"}),
        },
    )
    assert [ask(gateway, "GET /").status for _ in range(2)] == [200, 429]
    assert limits(gateway, "GET /off").keys() == {"global", "method"}
    assert [ask(gateway, "GET /off").status for _ in range(3)] == [200] * 3
    ask(gateway, "GET /enforced", x_client="alice")
    refused = ask(gateway, "GET /enforced", x_client="bob")
    assert refused.fields["ratelimit"] == '"method";r=0;t=60'


@pytest.mark.parametrize("level", ["global", "stage", "client"])
def test_a_mode_of_a_level_that_others_share_is_refused(level):
    with pytest.raises(ConfigurationError, match=f"the level '{level}' is shared with others"):
        Method(modes={level: "off"})


def test_the_mode_of_the_global_level_is_refused_at_a_stage():
    with pytest.raises(ConfigurationError, match="the level 'global' is shared with others"):
        Stage("prod", modes={"global": "off"})


def test_several_rates_of_a_level_are_all_asked():
    gateway = built(client_throttle=[Rate(1, burst=3), "5/minute"])
    assert limits(gateway, "GET /") == {"client": "1/second; burst=3", "client-2": "5/minute"}
    assert [ask(gateway).status for _ in range(4)] == [200, 200, 200, 429]
    gateway.clock.advance(3)
    assert [ask(gateway).status for _ in range(3)] == [200, 200, 429]
    assert ask(gateway).fields["ratelimit"].startswith('"client-2";r=0')


def test_settings_of_a_stage_given_to_the_gateway_are_those_of_the_stage_default():
    gateway = built(client_throttle=NINE, variables={"table": "pets"})
    assert list(gateway.stages) == ["default"]
    assert ask(gateway).context.variables == {"table": "pets"}


def test_stages_do_not_share_their_buckets_and_share_the_global_one():
    one = Rate(1, per=60)
    stages = [Stage(name, throttle=one, client_throttle=one) for name in ("prod", "beta")]
    gateway = built(throttle=Rate(2, per=60), stages=stages)
    assert [ask(gateway, stage=name).status for name in ("prod", "beta")] == [200, 200]
    assert '"global";r=0' in ask(gateway, stage="prod").fields["ratelimit"]


def test_gateways_of_different_names_share_no_bucket_of_one_store_and_those_of_one_name_do():
    store = MemoryStore()
    shop, other, again = (built(throttle=Rate(1, per=60), store=store, name=name) for name in ("shop", "other", "shop"))
    assert [ask(gateway).status for gateway in (shop, other, again)] == [200, 200, 429]
