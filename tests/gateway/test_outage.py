"""A gateway whose store cannot be reached: what clients get, what is told, and how it is set."""

import asyncio
import json

import pytest

from apigate import Gateway, GatewayResponse, Method, Rate, Stage, StoreTimeoutError
from apigate.core.events import Denied, StoreFull, StoreOutage, StoreRecovered
from apigate.stores.guarded import GuardedStore
from apigate.stores.memory import MemoryStore
from tests.gateway.asking import ask, ask_in_task, built, statuses, task_asks
from tests.outages import FailingStore, attempts_end, tasks_run

SLOW = 10**6
ASKING = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
WAY = pytest.mark.parametrize("way", ["at once", "by loop"])


def down(way="at once", kind=None):
    store = FailingStore(way)
    store.fail(*[kind] if kind else [])
    return store


def gateway(store, **settings):
    return built(**{"store": store, "name": "shop", **settings})


# ---- what clients get


@ASKING
@WAY
def test_each_process_admits_its_share_and_then_refuses_as_ever(asking, way):
    built = gateway(down(way), client_throttle=Rate(1, per=SLOW, burst=8), workers=4)
    answers = [asking(built) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].fields["ratelimit"] == '"client";r=1;t=4000000'
    assert answers[0].fields["ratelimit-policy"] == '"client";q=8;w=8000000'
    assert answers[2].fields["retry-after"] == "4000000"
    assert json.loads(answers[2].body)["detail"] == "The client limit of 1/1000000 second; burst=8 was exceeded."


@pytest.mark.parametrize("version", ["draft-11", "draft-07", "draft-06"])
def test_what_is_stated_is_the_limit_that_is_configured_and_what_is_left_is_of_the_share(version):
    built = gateway(down(), client_throttle="10/hour", workers=4, rate_limit=version, x_rate_limit=True)
    first, *_, refused = [ask(built) for _ in range(3)]
    left = {"draft-11": '"client";r=1;t=1440', "draft-07": "limit=10, remaining=1, reset=1440", "draft-06": None}[
        version
    ]
    assert first.fields.get("ratelimit") == left
    assert (first.fields["x-ratelimit-limit"], first.fields["x-ratelimit-remaining"]) == ("10", "1")
    assert first.fields.get("ratelimit-limit") == ("10, 10;w=3600" if version == "draft-06" else None)
    assert refused.status == 429
    assert json.loads(refused.body)["detail"] == "The client limit of 10/hour was exceeded."


@ASKING
@WAY
def test_a_closed_level_is_503_with_a_time_to_come_again_and_nothing_that_counts(asking, way):
    built = gateway(down(way), client_throttle=Rate(10), outage="closed", x_rate_limit=True)
    answer = asking(built)
    assert answer.status == 503
    assert answer.fields == {
        "content-type": "application/problem+json",
        "content-length": str(len(answer.body)),
        "retry-after": "1",
    }
    assert json.loads(answer.body) == {
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The client limit cannot be checked at the moment.",
    }


def test_two_closed_levels_are_both_named():
    built = gateway(down(), throttle=Rate(9), client_throttle=Rate(9), outage="closed")
    problem = json.loads(ask(built).body)
    assert problem["detail"] == "The global and client limits cannot be checked at the moment."
    assert "violated-policies" not in problem


def test_the_503_in_amazons_form():
    answer = ask(gateway(down(), throttle=Rate(9), outage="closed", error_format="amazon"))
    assert json.loads(answer.body) == {"message": "Service Unavailable"}
    assert answer.fields["x-amzn-errortype"] == "ServiceUnavailableException"


def test_the_503_customised():
    own = {"STORE_UNAVAILABLE": GatewayResponse(status=529, body="later", content_type="text/plain")}
    answer = ask(gateway(down(), throttle=Rate(9), outage="closed", responses=own))
    assert (answer.status, answer.body, answer.fields["retry-after"]) == (529, b"later", "1")
    every = {"DEFAULT_5XX": GatewayResponse(status=599)}
    assert ask(gateway(down(), throttle=Rate(9), outage="closed", responses=every)).status == 599


@ASKING
@WAY
def test_an_open_level_lets_everybody_in_and_tells_nothing_of_it(asking, way):
    built = gateway(down(way), client_throttle=Rate(1, per=SLOW), outage="open", x_rate_limit=True)
    answers = [asking(built) for _ in range(4)]
    assert {answer.status for answer in answers} == {200}
    assert "ratelimit" not in answers[-1].fields
    assert "x-ratelimit-remaining" not in answers[-1].fields
    assert answers[-1].context.decision.local


def test_each_level_by_its_own_policy():
    built = gateway(
        down(),
        throttle=Rate(1, per=SLOW, burst=4),
        outage={"global": "local", "client": "open", "method": "closed"},
        workers=2,
        methods={
            "GET /pets": Method(client_throttle=Rate(9)),
            "POST /pets": Method(throttle=Rate(9)),
        },
        client_throttle=Rate(1, per=SLOW),
    )
    assert statuses(built, "POST /pets", "GET /pets", "GET /pets", "GET /pets") == [503, 200, 200, 429]


def test_a_refusal_that_many_get_is_not_taken_for_another_one():
    """The same limits with the same wait, once refused by their tokens and once by the outage."""
    store = FailingStore()
    built = gateway(store, throttle=Rate(1, per=1), outage="closed")
    assert statuses(built, "GET /", "GET /") == [200, 429]
    store.fail()
    assert statuses(built, "GET /", "GET /") == [503, 503]
    store.work()
    built.clock.advance(0.1)
    assert ask(built).status == 503
    attempts_end()
    assert statuses(built, "GET /") == [429]


def test_a_cost_above_the_share_is_503_and_one_above_the_burst_429():
    built = gateway(
        down(),
        client_throttle=Rate(1, per=SLOW, burst=20),
        workers=4,
        methods={"GET /dear": Method(cost=6), "GET /never": Method(cost=21)},
    )
    dear, never = ask(built, "GET /dear"), ask(built, "GET /never")
    assert (dear.status, dear.fields["retry-after"]) == (503, "1")
    assert (never.status, "retry-after" in never.fields) == (429, False)


@WAY
@pytest.mark.parametrize("kind", [None, StoreTimeoutError])
def test_no_error_reaches_a_client_whenever_it_begins(way, kind):
    for failing_at in ("acquire", "adjust"):
        store = FailingStore(way)
        built = gateway(store, methods={"GET /": Method(throttle=Rate(9, per=SLOW), refund="5xx", cost=2)})

        def fails(operation, failing_at=failing_at):
            return (kind or StoreTimeoutError)(operation, "none") if operation == failing_at else None

        check = store.check

        def checked(operation, check=check, fails=fails):
            check(operation)
            if (error := fails(operation)) is not None:
                raise error

        store.check = checked
        for asking in (ask, ask_in_task):
            assert asking(built, "GET /", 500).status == 500


# ---- the way back


@ASKING
@WAY
def test_comes_back_by_itself_with_what_was_admitted_meanwhile(asking, way):
    store = FailingStore(way)
    built = gateway(store, client_throttle=Rate(1, per=SLOW, burst=8), workers=2)
    store.fail()
    assert [asking(built).status for _ in range(5)] == [200] * 4 + [429]
    store.work()
    built.clock.advance(0.1)
    for _ in range(3):  # each task is a loop of its own, which ends with it
        asking(built)
        attempts_end()
        built.clock.advance(0.1)
    for _ in range(9):
        asking(built)
    assert built.stats()["default"]["*"]["admitted"] == 8


def test_requests_of_a_loop_go_on_while_the_store_is_tried():
    store = FailingStore("awaited")
    built = gateway(store, throttle=Rate(1, per=SLOW, burst=99))

    async def program():
        store.fail()
        await task_asks(built)
        store.work()
        store.hold_async = asyncio.Event()
        built.clock.advance(1)
        answers = [await task_asks(built) for _ in range(10)]
        assert {answer.context.decision.local for answer in answers} == {True}
        store.hold_async.set()
        await tasks_run()
        store.hold_async = None
        return (await task_asks(built)).context.decision

    decision = asyncio.run(program())
    assert not decision.local
    assert decision.remaining == 99 - 12


# ---- what is told


@ASKING
def test_one_event_and_one_line_for_an_outage_and_one_for_its_end(asking, caplog):
    events = []
    store = down()
    built = gateway(store, throttle=Rate(1, per=SLOW, burst=99), on_event=events.append, workers=2)
    for _ in range(10):
        asking(built)
    store.work()
    built.clock.advance(0.5)
    asking(built)
    attempts_end()
    for _ in range(3):
        asking(built)
    assert events == [
        StoreOutage("<the store>", "open", "open: nobody is there"),
        StoreRecovered("<the store>", 0.5),
    ]
    began, ended = [record.getMessage() for record in caplog.records]
    assert began == (
        "<the store> cannot be reached (open: nobody is there); until it answers again, each process admits "
        "1/2 of each limit"
    )
    assert ended == "<the store> answers again, after 0.5 s"


@ASKING
def test_a_refusal_in_an_outage_is_counted_and_told_as_what_it_is(asking):
    events = []
    built = gateway(down(), throttle=Rate(9), outage="closed", on_event=events.append)
    asking(built, "GET /pets")
    assert built.stats() == {"default": {"*": {"STORE_UNAVAILABLE": 1}}}
    denied = events[-1]
    assert isinstance(denied, Denied)
    assert (denied.kind, denied.status, denied.levels, denied.retry_after) == ("STORE_UNAVAILABLE", 503, ("global",), 1)


def test_a_listener_that_raises_does_not_keep_the_outage_from_being_one(caplog):
    def listen(event):
        raise RuntimeError("broken")

    built = gateway(down(), throttle=Rate(9), on_event=listen)
    assert ask(built).status == 200
    assert "on_event raised" in caplog.text


def test_shares_that_take_every_place_in_memory_are_told():
    events = []
    built = gateway(down(), client_throttle=Rate(1, per=SLOW), on_event=events.append)
    built.store._local.max_keys = 2
    for number in range(3):
        ask(built, x_client=str(number))
    assert events[1:] == [StoreFull(2)]


def test_explain_says_that_the_store_is_out():
    built = gateway(down(), throttle=Rate(9), outage="closed")
    explanation = built.explain("GET", "/")
    assert explanation.verdict == "STORE_UNAVAILABLE"
    assert explanation.notes[0] == "the store cannot be reached: this process decides by itself"


# ---- how it is set


def test_memory_is_not_guarded_and_any_other_store_is():
    assert isinstance(Gateway(throttle=Rate(9)).store, MemoryStore)
    store = MemoryStore()
    assert Gateway(throttle=Rate(9), store=store).store is store
    other = FailingStore()
    guarded = Gateway(throttle=Rate(9), store=other, name="shop").store
    assert isinstance(guarded, GuardedStore)
    assert guarded.store is other


def test_a_file_says_the_same():
    table = {
        "client_throttle": f"1/{SLOW} second; burst=8",
        "throttle": "9/second",
        "outage": {"client": "local", "global": "closed"},
        "workers": 4,
        "name": "shop",
    }
    assert ask(Gateway.from_dict(table, store=down())).status == 503
    whole = {**table, "outage": "local"}
    assert [ask(built).status for built in [Gateway.from_dict(whole, store=down())] for _ in range(3)] == [
        200,
        200,
        429,
    ]


@pytest.mark.parametrize(
    ("said", "share"),
    [("4", 2), (" 4 ", 2), ("1", 8), ("0", 8), ("-4", 8), ("4.0", 8), ("four", 8), ("", 8), ("9" * 5_000, 8), ("²", 8)],
    ids=repr,
)
def test_the_number_of_processes_is_that_of_the_server_where_it_says_so(said, share, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", said)
    built = gateway(down(), throttle=Rate(1, per=SLOW, burst=8))
    assert statuses(built, *["GET /"] * 9).count(200) == share


def test_gunicorn_says_it_by_its_own_variable_too(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "8")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--preload --workers=4")
    built = gateway(down(), throttle=Rate(1, per=SLOW, burst=8))
    assert statuses(built, *["GET /"] * 9).count(200) == 2


@pytest.mark.parametrize("said", ["four", "0", None], ids=repr)
def test_a_number_that_nobody_said_is_one_and_the_log_says_so(said, monkeypatch, caplog):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if said is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", said)
    gateway(down(), throttle=Rate(9))
    assert "nobody said how many processes share it" in caplog.text


def test_a_number_that_is_set_goes_before_that_of_the_server(monkeypatch, caplog):
    monkeypatch.setenv("WEB_CONCURRENCY", "8")
    built = gateway(down(), throttle=Rate(1, per=SLOW, burst=8), workers=2)
    assert statuses(built, *["GET /"] * 9).count(200) == 4
    assert "nobody said" not in caplog.text


def test_stages_and_decorated_functions_are_guarded_too():
    built = gateway(
        down(), stages=[Stage("prod", throttle=Rate(1, per=SLOW, burst=2), client_throttle=Rate(9))], workers=2
    )

    @built.throttle(Rate(1, per=SLOW, burst=4), key=lambda name: name)
    def mail(name):
        return name

    assert statuses(built, "GET /", "GET /") == [200, 429]
    assert [mail("alice"), mail("alice")] == ["alice"] * 2
    from apigate import Throttled

    with pytest.raises(Throttled):
        mail("alice")
