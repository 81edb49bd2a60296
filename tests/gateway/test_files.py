"""Gateways from tables and TOML files: the same names as in code."""

import sys
from importlib import import_module

import pytest

from apigate import CachePolicy, ConfigurationError, Gateway, GatewayResponse, Method, Rate, Stage
from apigate.staging import Header, Host, PathPrefix
from apigate.testing import FakeClock
from tests.gateway.asking import ask

TOML = """
throttle = "10000/second; burst=5000"
[stages.prod]
throttle = "1000/second; burst=2000"
client_throttle = "10/second; burst=20"
variables = { table = "pets-prod" }
[stages.prod.methods."*"]
throttle = "100/second; burst=200"
[stages.prod.methods."GET /pets/{id}"]
throttle = "50/second; burst=100"
[stages.prod.methods."POST /pets"]
throttle = "5/second; burst=10"
client_throttle = "1/second; burst=2"
[stages.prod.methods."GET /health"]
exempt = true
"""


def in_code(**objects) -> Gateway:
    return Gateway(
        throttle=Rate(10_000, burst=5_000),
        stages=[
            Stage(
                "prod",
                throttle=Rate(1_000, burst=2_000),
                client_throttle=Rate(10, burst=20),
                variables={"table": "pets-prod"},
                methods={
                    "*": Method(throttle=Rate(100, burst=200)),
                    "GET /pets/{id}": Method(throttle="50/second; burst=100"),
                    "POST /pets": Method(throttle=Rate(5, burst=10), client_throttle=Rate(1, burst=2)),
                    "GET /health": Method(exempt=True),
                },
            ),
        ],
        **objects,
    )


def levels(gateway: Gateway, asked: str) -> list[tuple[str, str, int]]:
    return [(state.policy, str(state.rate), state.remaining) for state in gateway.explain(*asked.split(" ")).levels]


@pytest.fixture
def written(tmp_path):
    """Write a TOML file; gives its path."""

    def write(text: str):
        path = tmp_path / "apigate.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_says_what_code_says(written):
    gateway, expected = Gateway.from_file(written(TOML)), in_code()
    assert repr(gateway) == repr(expected)
    assert gateway.stage("prod").settings == expected.stage("prod").settings
    for asked in ("GET /pets/1", "POST /pets", "GET /health", "GET /other"):
        assert levels(gateway, asked) == levels(expected, asked)


def test_objects_are_given_beside_the_file(written):
    events, clock = [], FakeClock()
    objects = {"client": lambda asked: "everybody", "on_event": events.append, "clock": clock}
    gateway = Gateway.from_file(written('client_throttle = "1/minute"'), **objects)
    assert [ask(gateway, peer=peer).status for peer in ("192.0.2.1", "192.0.2.2")] == [200, 429]
    assert [event.client for event in events] == ["client:everybody"]
    clock.advance(60)
    assert ask(gateway).status == 200


def test_the_path_may_be_a_text(written):
    assert Gateway.from_file(str(written('throttle = "5/s"'))).name == "apigate"


def test_every_setting_that_a_file_can_hold(written):
    gateway = Gateway.from_file(
        written("""
            name = "shop"
            throttle = ["100/second", "1000/minute; burst=50"]
            in_flight = 9
            modes = { global = "shadow" }
            store = "memory://?max_keys=5000"
            trusted_hops = 1
            forwarding_header = "forwarded"
            error_format = "amazon"
            rate_limit = "draft-07"
            x_rate_limit = true
            client_throttle = "off"
            client_in_flight = 3
            cost = 2
            exempt = false
            refund = "5xx"
            variables = { a = "b" }
            [responses.THROTTLED]
            status = 420
            headers = { X-Own = "yes" }
            body = "calm"
            content_type = "text/plain"
            [methods."GET /pets"]
            throttle = "off"
            in_flight = "off"
            client_in_flight = 2
            refund = "off"
            modes = { client-method = "shadow" }
        """)
    )
    expected = Gateway(
        name="shop",
        throttle=["100/second", "1000/minute; burst=50"],
        in_flight=9,
        modes={"global": "shadow"},
        store="memory://?max_keys=5000",
        trusted_hops=1,
        forwarding_header="forwarded",
        error_format="amazon",
        rate_limit="draft-07",
        x_rate_limit=True,
        client_throttle=None,
        client_in_flight=3,
        cost=2,
        exempt=False,
        refund="5xx",
        variables={"a": "b"},
        responses={
            "THROTTLED": GatewayResponse(status=420, headers={"X-Own": "yes"}, body="calm", content_type="text/plain")
        },
        methods={
            "GET /pets": Method(
                throttle=None, in_flight=None, client_in_flight=2, refund=None, modes={"client-method": "shadow"}
            )
        },
    )
    assert repr(gateway) == repr(expected)
    assert gateway.stage().settings == expected.stage().settings
    assert gateway.store.max_keys == 5_000
    assert gateway.identity.trusted_hops == 1


@pytest.mark.parametrize(
    ("line", "selector"),
    [
        ('stage_by = "path-prefix"', PathPrefix()),
        ('stage_by = { host = { "api.example" = "prod" } }', Host({"api.example": "prod"})),
        ('stage_by = { header = "x-stage" }', Header("x-stage")),
        ('stage_by = { header = "x-stage", default = "prod" }', Header("x-stage", "prod")),
    ],
)
def test_how_a_stage_is_chosen(written, line, selector):
    gateway = Gateway.from_file(written(f'{line}\n[stages.prod]\nthrottle = "5/s"'))
    assert repr(gateway.stage_by) == repr(selector)


def test_a_table_is_not_changed():
    table = {
        "stages": {"prod": {"methods": {"GET /": {"throttle": "5/s"}}}},
        "responses": {"THROTTLED": {"status": 420}},
    }
    before = repr(table)
    Gateway.from_dict(table)
    Gateway.from_dict(table)
    assert repr(table) == before


def test_an_empty_table_is_an_empty_gateway():
    assert Gateway.from_dict({}).is_empty


def test_a_setting_in_the_table_and_beside_it_is_refused():
    with pytest.raises(ConfigurationError, match="name: given in the configuration and beside it"):
        Gateway.from_dict({"name": "table"}, name="object")


# ---- mistakes


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"throtle": "1/s"}, r"'throtle' is no setting; did you mean 'throttle'\?"),
        ({"clientthrottle": "1/s"}, r"did you mean 'client_throttle'\?"),
        ({"zzz": 1}, r"'zzz' is no setting; allowed are .*throttle"),
        ({"stages": {"prod": {"method": {}}}}, r"stages\.prod: 'method' is no setting; did you mean 'methods'\?"),
        ({"stages": {"prod": {"name": "x"}}}, r"stages\.prod: 'name' is no setting"),
        (
            {"stages": {"prod": {"methods": {"GET /": {"throttel": 1}}}}},
            r"stages\.prod\.methods\.\"GET /\": 'throttel' .*'throttle'",
        ),
        (
            {"methods": {"GET /": {"exmpt": True}}},
            r"methods\.\"GET /\": 'exmpt' is no setting; did you mean 'exempt'\?",
        ),
        ({"responses": {"THROTTLED": {"code": 1}}}, r"responses\.THROTTLED: 'code' is no setting; allowed are body"),
        ({"stages": ["prod"]}, r"stages: \['prod'\] is not a table"),
        ({"stages": {"prod": "5/s"}}, r"stages\.prod: '5/s' is not a table"),
        ({"methods": "GET /"}, r"methods: 'GET /' is not a table"),
        ({"methods": {"GET /": "5/s"}}, r"methods\.\"GET /\": '5/s' is not a table"),
        ({"responses": "THROTTLED"}, r"responses: 'THROTTLED' is not a table"),
        ({"responses": {"THROTTLED": 420}}, r"responses\.THROTTLED: 420 is not a table"),
        ({"variables": "a"}, "variables"),
        ({"client": "x-user"}, "client"),
        ({"policies": []}, "policies"),
        ({"on_event": "print"}, "on_event"),
        ({"throttle": "often"}, "throttle"),
        ({"stages": {"prod": {"throttle": "often"}}}, "prod"),
        ({"stages": {"my stage": {}}}, "my stage"),
        ({"stages": {"prod": {}}, "client_throttle": "1/s"}, "client_throttle must stand in a Stage"),
        ({5: "x"}, "5 is no setting"),
    ],
    ids=str,
)
def test_a_mistake_is_named_with_its_place(table, said):
    with pytest.raises(ConfigurationError, match=said):
        Gateway.from_dict(table)


def test_what_is_no_table_at_all_is_refused():
    with pytest.raises(ConfigurationError, match="table"):
        Gateway.from_dict(["throttle"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("throttle = ", "at end of document"),
        ("[stages.prod\n", "line 1, column 13"),
        ('a = "b"\na = "c"', "overwrite"),
        ("throttle = '\xff", "at end of document"),
    ],
)
def test_a_file_that_is_no_toml_is_named_with_the_place(written, text, said):
    path = written(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Gateway.from_file(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "apigate.toml"
    path.write_bytes(b'throttle = "\xff\xfe"')
    with pytest.raises(ConfigurationError, match=r"apigate\.toml"):
        Gateway.from_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing\.toml: No such file"):
        Gateway.from_file(tmp_path / "missing.toml")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="directory"):
        Gateway.from_file(tmp_path)


@pytest.mark.parametrize("where", ["", "stages.prod."])
def test_a_table_beside_the_file_is_joined_with_that_in_it(written, where):
    keys = [bytes(32)]
    path = written(f"[{where}cache]\nshared = true\npolicy = {{ ttl = 60 }}\n")
    beside = {"cache": {"encryption": keys, "policy": {"heuristic": True}}}
    gateway = Gateway.from_file(
        path, name="shop", store=f"file://{path}.state", **({"stages": {"prod": beside}} if where else beside)
    )
    (stage,) = gateway.stages.values()
    assert stage.cache.encryption is not None
    assert stage.settings.cache.policy == CachePolicy(ttl=60, heuristic=True)
    for twice in ({"policy": {"ttl": 1}}, {"policy": CachePolicy()}):
        with pytest.raises(ConfigurationError, match=rf"{where}cache\.policy(\.ttl)?: given in the configuration and"):
            Gateway.from_file(path, **({"stages": {"prod": {"cache": twice}}} if where else {"cache": twice}))


RULES = """
owners = ["not a function"]

def owner(request):
    return request.headers.get("x-owner")

class Names:
    @staticmethod
    def tags(request):
        return [f"pets of {owner(request)}"]

def operator(request):
    return "x-operator" in request.headers
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """A module to name functions of."""
    folder = tmp_path / "shop_of_files"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "rules.py").write_text(RULES)
    (folder / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("shop_of_files.rules")
    for name in [name for name in sys.modules if name.startswith("shop_of_files")]:
        del sys.modules[name]


def test_functions_of_a_cache_are_named_in_a_file(written, rules):
    gateway = Gateway.from_file(
        written("""
[cache.policy]
per = "shop_of_files.rules:owner"
[methods."GET /pets".cache]
ttl = 60
tags = "shop_of_files.rules:Names.tags"
invalidate = "shop_of_files.rules:operator"
unauthorized = "FAIL_WITH_403"
""")
    )
    settings = gateway.stage().settings
    assert settings.cache.policy == CachePolicy(per=rules.owner)
    assert settings.methods["GET /pets"].cache == CachePolicy(
        ttl=60, tags=rules.Names.tags, invalidate=rules.operator, unauthorized="FAIL_WITH_403"
    )
    anew = {"cache_control": "max-age=0"}
    assert [ask(gateway, "GET /pets", **fields).status for fields in ({}, anew)] == [200, 403]
    assert (
        ask(gateway, "GET /pets", **anew, x_operator="yes")
        .fields["cache-status"]
        .startswith("apigate; fwd=request; stored")
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"per": "shop_of_files.rules:nobody"}, "per: shop_of_files.rules:nobody: shop_of_files.rules has no nobody"),
        ({"tags": "shop_of_files.rules:owners"}, "tags: shop_of_files.rules:owners is a list, not a function"),
        ({"per": "claims:sub"}, "per: importing claims failed: ModuleNotFoundError: No module named 'claims'"),
        ({"invalidate": "shop_of_files.broken:x"}, "invalidate: importing shop_of_files.broken failed: ZeroDivision"),
        ({"invalidate": "operator"}, "invalidate: 'operator' is not a function of the request, nor in a table"),
        ({"tags": "pets"}, "tags: 'pets' is not a list of texts"),
        ({"tags": "pets: all"}, "tags: 'pets: all' is not a list of texts"),
        ({"per": "owner"}, "per: 'owner' is unknown; allowed are 'public', 'principal', 'claim:NAME' or a function"),
    ],
)
@pytest.mark.usefixtures("rules")
def test_what_names_no_function_is_said_with_its_place(setting, said):
    with pytest.raises(ConfigurationError, match=r'^methods\."GET /pets": Method cache: cache ') as raised:
        Gateway.from_dict({"methods": {"GET /pets": {"cache": {"ttl": 60, **setting}}}})
    assert said in str(raised.value)


def test_what_is_no_name_of_a_function_stays_what_it_is(rules):
    table = {"ttl": 60, "per": "claim:tenant", "tags": ["shop_of_files.rules:owner"], "invalidate": rules.operator}
    gateway = Gateway.from_dict({"methods": {"GET /pets": {"cache": table}}})
    policy = gateway.stage().settings.methods["GET /pets"].cache
    assert (policy.per, policy.tags) == ("claim:tenant", ("shop_of_files.rules:owner",))
