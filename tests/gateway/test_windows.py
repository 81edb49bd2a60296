"""A window at a level of a gateway: what clients are told, and everything else that a level is asked for."""

import asyncio

import pytest

from apigate import ConfigurationError, Gateway, Method, Rate, Stage, Throttled, Window
from apigate.audit import audit
from tests.gateway.asking import ask, ask_in_task, built

FIXED, MOVING, SLIDING = (Window("5/minute", kind=kind) for kind in ("fixed", "moving", "sliding"))
each_asking = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
each_window = pytest.mark.parametrize("window", [FIXED, MOVING, SLIDING], ids=["fixed", "moving", "sliding"])


@each_asking
@each_window
@pytest.mark.parametrize(
    "place",
    [
        lambda window: {"throttle": window},
        lambda window: {"client_throttle": window},
        lambda window: {"client_throttle": [window, "100/second"]},
        lambda window: {"methods": {"*": Method(throttle=window)}},
        lambda window: {"methods": {"GET /": Method(client_throttle=window)}},
        lambda window: {"stages": [Stage("prod", throttle=window, client_throttle=Rate(100))]},
    ],
    ids=["global", "client", "beside-a-rate", "method", "client-method", "stage"],
)
def test_a_window_may_stand_at_any_level(asking, window, place):
    gateway = built(**place(window))
    assert [asking(gateway).status for _ in range(6)] == [200] * 5 + [429]


@each_window
def test_a_refusal_tells_the_exact_wait_in_whole_seconds(window):
    gateway = built(client_throttle=window)
    for _ in range(5):
        ask(gateway)
        gateway.clock.advance(1.25)
    refused = ask(gateway)
    wait = 54  # 53.75 s, or a millisecond more
    assert refused.fields["retry-after"] == str(wait)
    assert refused.fields["ratelimit"] == f'"client";r=0;t={wait}'
    assert f"The client limit of {window} was exceeded." in refused.body.decode()
    gateway.clock.advance(wait)
    assert ask(gateway).status == 200


@each_window
def test_what_is_left_and_until_when_is_told_in_every_draft(window):
    for draft, fields in {
        "draft-11": {"ratelimit-policy": '"client";q=5;w=60', "ratelimit": '"client";r=3;t=49'},
        "draft-07": {"ratelimit-policy": "5;w=60", "ratelimit": "limit=5, remaining=3, reset=50"},
        "draft-06": {"ratelimit-limit": "5, 5;w=60", "ratelimit-remaining": "3", "ratelimit-reset": "50"},
    }.items():
        gateway = built(client_throttle=window, rate_limit=draft, x_rate_limit=True)
        ask(gateway)
        gateway.clock.advance(10.5)
        answer = ask(gateway)
        assert {name: answer.fields[name] for name in fields} == fields
        wall = gateway.clock.wall()
        assert int(answer.fields["x-ratelimit-reset"]) == int(-(-wall // 1)) + 50
        assert (answer.fields["x-ratelimit-limit"], answer.fields["x-ratelimit-remaining"]) == ("5", "3")


def test_the_tightest_of_bucket_and_window_is_told():
    gateway = built(throttle=Rate(1, per=10, burst=3), client_throttle=FIXED)
    assert ask(gateway).fields["ratelimit"] == '"global";r=2;t=10'
    gateway = built(throttle=Rate(1, per=10, burst=9), client_throttle=FIXED)
    assert ask(gateway).fields["ratelimit"] == '"client";r=4;t=60'
    assert ask(gateway).fields["ratelimit-policy"] == '"global";q=9;w=90, "client";q=5;w=60'


def test_a_cost_above_the_count_is_never_admitted_and_has_no_retry_after():
    refused = ask(built(client_throttle=FIXED, cost=6))
    assert refused.status == 429
    assert "retry-after" not in refused.fields
    assert b"costs more than it ever admits at once" in refused.body


@each_asking
@each_window
def test_only_failures_count_where_the_others_are_refunded(asking, window):
    gateway = built(client_throttle=window, throttle=Rate(50), refund="2xx")
    assert [asking(gateway).status for _ in range(20)] == [200] * 20
    assert [asking(gateway, status=401).status for _ in range(7)] == [401] * 5 + [429] * 2


@each_window
def test_a_slow_request_that_is_refunded_gives_nothing_to_a_later_window(window):
    from tests.gateway.asking import Open

    gateway = built(client_throttle=window, refund="2xx")
    slow = Open(gateway)
    gateway.clock.advance(200)
    assert [ask(gateway, status=401).status for _ in range(5)] == [401] * 5
    slow.close()
    assert ask(gateway, status=401).status == 429


def test_the_final_cost_is_settled_in_the_window():
    gateway = built(client_throttle=FIXED, final_cost=lambda context, status: 3)
    assert [ask(gateway).status for _ in range(3)] == [200, 200, 429]


@each_window
def test_shadow_mode_counts_who_would_have_been_refused(window):
    events = []
    gateway = built(
        client_throttle=window, throttle=Rate(10, burst=50), modes={"client": "shadow"}, on_event=events.append
    )
    assert [ask(gateway).status for _ in range(8)] == [200] * 8
    assert gateway.stats()["default"]["*"] == {"admitted": 8, "shadow:client": 3}
    assert [event.levels for event in events] == [("client",)] * 3
    gateway.stage().update(modes={"client": "off"})
    assert ask(gateway).status == 200


def test_two_windows_at_levels_of_one_request_are_refused_when_the_gateway_is_built():
    for settings, first, second in [
        ({"throttle": FIXED, "client_throttle": MOVING}, "global", "client"),
        (
            {"client_throttle": FIXED, "methods": {"GET /pets": Method(client_throttle=MOVING)}},
            "client",
            "client-method",
        ),
        ({"stages": [Stage("prod", throttle=FIXED, methods={"*": Method(throttle=SLIDING)})]}, "stage", "method"),
        ({"throttle": [FIXED, MOVING]}, "global", "global-2"),
    ]:
        with pytest.raises(ConfigurationError, match=rf"two windows, at the levels {first} \(.+\) and {second} \(.+\)"):
            built(**settings)


def test_different_methods_may_have_a_window_each():
    gateway = built(methods={"GET /a": Method(throttle=FIXED), "GET /b": Method(throttle=MOVING), "GET /c": Method()})
    assert [ask(gateway, f"GET /{name}").status for name in "abc"] == [200] * 3


def test_a_path_that_meets_two_methods_is_counted_in_both_windows_or_in_none():
    """A doubled slash is looked up as it was sent and cleaned; no build can foresee which methods meet."""
    methods = {"GET /a/b": Method(throttle=FIXED), "GET /a//b": Method(throttle=Window("2/minute", kind="moving"))}
    gateway = built(methods=methods)
    assert [ask(gateway, "GET /a//b").status for _ in range(4)] == [200, 200, 429, 429]
    assert gateway.explain("GET", "/a/b").levels[0].remaining == 2  # 5, less 2, less the one that is asked about
    assert [ask(gateway, "GET /a/b").status for _ in range(4)] == [200, 200, 200, 429]


def test_an_update_to_a_second_window_is_refused_and_changes_nothing():
    gateway = built(client_throttle=FIXED)
    with pytest.raises(ConfigurationError, match="two windows"):
        gateway.update(throttle=MOVING)
    with pytest.raises(ConfigurationError, match="two windows"):
        gateway.stage().update(throttle=MOVING)
    assert [ask(gateway).status for _ in range(6)] == [200] * 5 + [429]


def test_a_window_is_changed_while_the_gateway_runs_and_forgets_nothing():
    gateway = built(client_throttle=FIXED)
    for _ in range(4):
        ask(gateway)
    gateway.stage().update(client_throttle=Window("6/minute", kind="fixed"))
    assert [ask(gateway).status for _ in range(3)] == [200, 200, 429]
    gateway.stage().update(client_throttle=None)
    assert ask(gateway).status == 200


def test_explain_repr_and_the_table_of_methods_name_the_window():
    gateway = built(client_throttle=FIXED, methods={"GET /dear": Method(cost=6)})
    ask(gateway)
    explained = str(gateway.explain("GET", "/", address="192.0.2.1"))
    assert "client          5/minute in a fixed window   3 left" in explained
    assert "refuses: the cost is above its count" in str(gateway.explain("GET", "/dear"))
    assert "THROTTLE  client 5/minute in a fixed window" in repr(gateway)
    assert any("5/minute in a fixed window" in line for line in audit(gateway))


def test_lint_says_of_a_window_what_is_sure_and_nothing_else():
    gateway = Gateway(
        throttle=Window("10/minute", kind="fixed"),
        client_throttle=Rate(1, per=6, burst=20),  # neither always comes before the other
        methods={"GET /dear": Method(cost=11)},
        cors=None,
    )
    assert [finding.check for finding in gateway.lint()] == ["cost-above-burst"]
    assert "above the count of the global limit 10/minute in a fixed window" in str(gateway.lint()[0])
    faster = Gateway(throttle=Rate(1), client_throttle=Window("100/second", kind="moving"), cors=None)
    assert [finding.check for finding in faster.lint()] == ["rate-above-wider"]


def test_from_a_file(tmp_path):
    (tmp_path / "apigate.toml").write_text(
        'client_throttle = { window = "5/minute", kind = "moving" }\n'
        '[methods."GET /login"]\nthrottle = ["10/second", "100/minute"]\n',
        encoding="utf-8",
    )
    gateway = Gateway.from_file(tmp_path / "apigate.toml")
    assert [ask(gateway).status for _ in range(6)] == [200] * 5 + [429]
    (tmp_path / "apigate.toml").write_text('throttle = { window = "5/minute", kind = "sideways" }', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"apigate\.toml: throttle: Window kind: 'sideways' is unknown"):
        Gateway.from_file(tmp_path / "apigate.toml")


# ---- decorators


@each_window
def test_a_function_may_have_a_window_of_its_own(window):
    gateway = built()

    @gateway.throttle(window, key=lambda user: user)
    def send(user):
        return user

    @gateway.throttle(window, key=lambda user: user)
    async def send_async(user):
        return user

    assert [send("a") for _ in range(5)] == ["a"] * 5
    with pytest.raises(Throttled, match="refused by client-method; retry after 60"):
        send("a")
    assert send("b") == "b"
    for _ in range(5):
        asyncio.run(send_async("a"))
    with pytest.raises(Throttled):
        asyncio.run(send_async("a"))


def test_a_decorator_with_a_second_window_is_refused_where_it_is_applied():
    def pets():
        pass

    for settings in ({"throttle": FIXED}, {"client_throttle": FIXED}, {"methods": {"*": Method(throttle=FIXED)}}):
        gateway = built(**settings)
        with pytest.raises(ConfigurationError, match=r"two windows, at the levels .* and method"):
            gateway.throttle(MOVING)(pets)
        gateway.throttle(Rate(5))(pets)
        gateway.throttle(MOVING, key=lambda: "a")(pets)  # counted by itself, wherever it is called
    gateway = built()
    decorated = gateway.throttle(FIXED, per="client")(pets)
    with pytest.raises(ConfigurationError, match=r"two windows, at the levels client-method .* and method"):
        gateway.throttle(MOVING)(decorated)
    built().throttle(MOVING)(decorated)  # of another gateway, which counts by itself


def test_a_window_for_all_methods_is_refused_once_a_decorator_has_one():
    gateway = built()

    @gateway.throttle(MOVING)
    def pets():
        pass

    with pytest.raises(ConfigurationError, match="two windows"):
        gateway.update(throttle=FIXED)
    gateway.update(throttle=Rate(5))
