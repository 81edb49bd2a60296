"""What a request costs: a number or a function, given back or corrected by its outcome."""

import asyncio
from collections import Counter
from threading import Barrier, Thread

import pytest

from apigate import Method, Rate
from tests.gateway.asking import Open, admitted, ask, ask_in_task, built, task_asks


def left(answer) -> int:
    """Tokens left, as the client is told."""
    return int(answer.fields["ratelimit"].partition(";r=")[2].partition(";")[0])


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_cost_is_taken_at_every_level(asking):
    gateway = built(throttle=Rate(10), client_throttle=Rate(9), cost=4)
    asking(gateway)
    asking(gateway)
    assert [state.remaining for state in gateway.explain("GET", "/", address="192.0.2.1").levels] == [2, 1]
    assert asking(gateway).status == 429


def test_a_cost_may_be_a_function_of_the_request():
    gateway = built(throttle=Rate(10), cost=lambda asked: int(asked.headers.get("x-size", "1")))
    assert left(ask(gateway, x_size="7")) == 3
    assert ask(gateway, x_size="4").status == 429
    assert left(ask(gateway)) == 2


def test_a_cost_of_nothing_is_admitted_by_an_empty_bucket():
    gateway = built(throttle=Rate(1, per=60), methods={"GET /free": Method(cost=0)})
    assert [ask(gateway).status for _ in range(2)] == [200, 429]
    assert ask(gateway, "GET /free").status == 200


@pytest.mark.parametrize("cost", [3, lambda asked: 3], ids=["number", "function"])
def test_a_cost_above_the_burst_is_never_admitted_and_has_no_retry_after(cost):
    gateway = built(throttle=Rate(1, per=10, burst=2), cost=cost)
    refused = ask(gateway)
    assert refused.status == 429
    assert "retry-after" not in refused.fields
    assert refused.fields["ratelimit"] == '"global";r=0'
    assert b"costs more than it ever admits at once" in refused.body


def test_where_one_level_admits_later_and_another_never_there_is_no_retry_after():
    gateway = built(throttle=Rate(1, per=10, burst=5), client_throttle=Rate(1, per=10, burst=2), cost=3)
    assert "retry-after" not in ask(gateway).fields
    assert left(ask(built(throttle=Rate(1, per=10, burst=5), cost=3))) == 2


@pytest.mark.parametrize("bad", [-1, 1.5, "1", None])
def test_a_cost_function_that_gives_no_cost_is_the_programs_error_and_frees_what_was_held(bad):
    gateway = built(throttle=Rate(10), in_flight=1, cost=lambda asked: bad)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError), match="cost"):
            ask(gateway)


# ---- refund

LOGIN = {"POST /login": Method(client_throttle="5/minute", refund="2xx")}


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_only_failed_logins_count(asking):
    gateway = built(methods=LOGIN)
    assert {asking(gateway, "POST /login", x_client="alice").status for _ in range(20)} == {200}
    failed = [asking(gateway, "POST /login", 401, x_client="alice").status for _ in range(7)]
    assert failed == [401] * 5 + [429] * 2
    assert asking(gateway, "POST /login", x_client="alice").status == 429
    assert asking(gateway, "POST /login", x_client="bob").status == 200


def test_of_twenty_failing_logins_in_parallel_tasks_five_are_served():
    gateway = built(methods=LOGIN)

    async def storm() -> Counter[int]:
        asked = [task_asks(gateway, "POST /login", 401, x_client="alice") for _ in range(20)]
        return Counter([answer.status for answer in await asyncio.gather(*asked)])

    assert asyncio.run(storm()) == {401: 5, 429: 15}


def test_of_twenty_failing_logins_in_parallel_threads_five_are_served():
    gateway = built(methods=LOGIN)
    found: list[int] = []
    barrier = Barrier(20)

    def attempt() -> None:
        barrier.wait()
        found.append(ask(gateway, "POST /login", 401, x_client="alice").status)

    threads = [Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(found) == {401: 5, 429: 15}


def test_an_attempt_under_way_counts_until_it_is_known_to_have_worked():
    gateway = built(methods=LOGIN)
    under_way = [Open(gateway, "POST /login") for _ in range(5)]
    assert ask(gateway, "POST /login").status == 429
    under_way.pop().close()
    assert ask(gateway, "POST /login").status == 200
    for attempt in under_way:
        attempt.close()


@pytest.mark.parametrize(
    ("refund", "status", "returned"),
    [
        ("2xx, 404", 200, True),
        ("2xx, 404", 299, True),
        ("2xx, 404", 404, True),
        ("2xx, 404", 403, False),
        ("5XX", 503, True),
        (" 304 ", 304, True),
        (None, 200, False),
        ("off", 200, False),
    ],
)
def test_a_refund_is_for_the_statuses_it_names(refund, status, returned):
    gateway = built(methods={"GET /": Method(throttle=Rate(1, per=60), refund=refund)})
    ask(gateway, status=status)
    assert (ask(gateway, status=status).status == 429) is not returned


def test_a_refund_is_for_method_and_client_and_leaves_global_and_stage_as_they_were_taken():
    from apigate import Stage

    ten = Rate(10, per=1_000)
    methods = {"GET /": Method(throttle=ten, client_throttle=ten)}
    stage = Stage("prod", throttle=ten, client_throttle=ten, methods=methods, refund="2xx")
    gateway = built(throttle=ten, stages=[stage], client=None)
    ask(gateway, peer="127.0.0.1")
    remaining = {state.level: state.remaining for state in gateway.explain("GET", "/").levels}
    asked_for = 0 if remaining["method"] == 10 else 1
    assert remaining == {
        "global": 9 - asked_for,
        "stage": 9 - asked_for,
        "method": 10 - asked_for,
        "client": 10 - asked_for,
        "client-method": 10 - asked_for,
    }


def test_a_refund_never_makes_a_bucket_fuller_than_full():
    gateway = built(methods={"GET /": Method(throttle=Rate(1, per=10, burst=2), refund="2xx")})
    late = [Open(gateway), Open(gateway)]
    gateway.clock.advance(1_000)  # full again before they end
    for request in late:
        request.close()
    assert admitted(gateway, status=500, most=5) == 0
    assert [ask(gateway, status=500).status for _ in range(2)] == [500, 429]


def test_an_outcome_that_never_comes_leaves_the_tokens_taken():
    gateway = built(methods={"GET /": Method(throttle=Rate(1, per=60), refund="2xx")})
    Open(gateway)
    assert ask(gateway).status == 429


# ---- final_cost


def by_status(context, status: int) -> int:
    return {200: 1, 206: 5, 404: 0}.get(status, 100)


@pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
def test_a_final_cost_gives_back_or_takes_more(asking):
    gateway = built(methods={"GET /": Method(throttle=Rate(10, per=100), cost=2, final_cost=by_status)})
    asking(gateway, status=404)
    assert left(asking(gateway, status=200)) == 8
    assert left(asking(gateway, status=206)) == 7  # 9 - 2 told at the start; 5 are taken in the end
    assert left(asking(gateway, status=200)) == 2


def test_a_final_cost_may_leave_a_debt_of_at_most_one_burst():
    gateway = built(methods={"GET /": Method(throttle=Rate(1, per=10, burst=4), final_cost=by_status)})
    ask(gateway, status=500)  # 100 in the end
    assert ask(gateway).fields["retry-after"] == "50"  # a debt of 4, and one token more
    gateway.clock.advance(49)
    assert ask(gateway).status == 429
    gateway.clock.advance(1)
    assert ask(gateway).status == 200


def test_debts_do_not_add_up_to_more_than_one_burst():
    gateway = built(methods={"GET /": Method(throttle=Rate(1, per=10, burst=4), final_cost=by_status)})
    under_way = [Open(gateway, status=500) for _ in range(4)]
    for request in under_way:
        request.close()
    assert ask(gateway).fields["retry-after"] == "50"


def test_a_refund_goes_before_a_final_cost():
    methods = {"GET /": Method(throttle=Rate(10), refund="4xx", final_cost=by_status)}
    gateway = built(methods=methods)
    ask(gateway, status=403)
    assert left(ask(gateway)) == 9


def test_a_final_cost_is_given_the_context():
    seen = []

    def final(context, status: int) -> int:
        seen.append((context.method, context.client, status))
        return 1

    gateway = built(methods={"GET /pets/{id}": Method(throttle=Rate(10), final_cost=final)})
    ask(gateway, "GET /pets/1", 404, x_client="alice")
    assert seen == [("GET /pets/{id}", "client:alice", 404)]
