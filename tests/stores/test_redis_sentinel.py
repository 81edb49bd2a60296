"""A primary, its replica and a Sentinel: when the primary is lost, the same store asks the new one, unaided."""

import pytest

from apigate.core.errors import StoreError, StoreTimeoutError
from tests.servers import until
from tests.stores.asking import Asked, hasty, in_time, is_admitted, limits, timed

DEADLINE_MS = 400
TWO = ("1000/hour", "10/hour")


@pytest.fixture
def uri(request, redis_sentinel):
    """Its address, for one client library or, where a test names it, for another."""
    return redis_sentinel.uri.replace("redis+", f"{getattr(request, 'param', 'redis')}+")


both_libraries = pytest.mark.parametrize("uri", ["redis", "valkey"], indirect=True)


def replicated(sentinel):
    """Whether the replica has all that was written."""
    offsets = [server.command("INFO", "replication") for server in (sentinel.primary, sentinel.replica)]
    return offsets[0]["master_repl_offset"] == offsets[1]["slave_repl_offset"]


@both_libraries
def test_the_primary_that_sentinel_names_is_asked_in_one_trip(redis_sentinel, caller, stores, uri):
    asked = Asked(caller, stores(uri), limits(*TWO))
    asked.acquire()
    before = [server.commands()["evalsha"] for server in (redis_sentinel.primary, redis_sentinel.replica)]
    assert asked.acquire().round_trips == 1
    after = [server.commands()["evalsha"] for server in (redis_sentinel.primary, redis_sentinel.replica)]
    assert [after[0] - before[0], after[1] - before[1]] == [1, 0]


@both_libraries
def test_when_the_primary_is_killed_the_promoted_replica_is_asked_and_has_what_was_taken(
    redis_sentinel, caller, stores, uri
):
    store = stores(uri, server_time=False)
    asked = Asked(caller, store, limits(*TWO))
    caller.at_once([asked.call] * 3)
    until(lambda: replicated(redis_sentinel), "the replica has it all")
    old = redis_sentinel.primary
    old.kill()
    with hasty(store, DEADLINE_MS):
        answers = in_time(lambda: [timed(asked.acquire)], DEADLINE_MS)
        assert all(isinstance(answer, StoreError) for answer in answers)
        redis_sentinel.look_for_the_primary()

        def is_promoted():
            answers.extend(in_time(lambda: [timed(asked.acquire)], DEADLINE_MS))
            return redis_sentinel.primary_port() == redis_sentinel.replica.port

        until(is_promoted, "the replica is promoted")
    redis_sentinel.await_promotion()
    until(lambda: answers.append(timed(asked.acquire)[0]) or is_allowed(answers[-1]), "it is asked")
    refused = [answer for answer in answers if isinstance(answer, StoreError)]
    assert all(fault.__cause__ is not None for fault in refused)
    admitted = 3 + sum(map(is_allowed, answers))
    unknown = sum(isinstance(fault, StoreTimeoutError) for fault in refused)  # on a busy machine it may have taken
    taken = 1_000 - asked.left()[0]
    assert admitted <= taken <= admitted + unknown
    assert asked.left() == [1_000 - taken, 10 - taken]
    old.start()
    old.command("REPLICAOF", "127.0.0.1", redis_sentinel.primary.port)  # Sentinel would do it after ten seconds
    assert asked.acquire().allowed
    assert asked.left() == [999 - taken, 9 - taken]


def is_allowed(answer):
    return getattr(answer, "allowed", False)


def test_when_the_parts_are_changed_with_both_up_connections_to_the_old_primary_are_left(
    redis_sentinel, caller, stores, uri
):
    """The old primary refuses to write as a replica: a fault at most, and then the new one is asked."""
    asked = Asked(caller, stores(uri, server_time=False), limits("1000/hour"))
    caller.at_once([asked.call] * 4)
    until(lambda: replicated(redis_sentinel), "the replica has it all")
    redis_sentinel.fail_over()
    until(lambda: all(getattr(answer, "allowed", False) for answer in caller.at_once([asked.call] * 4)), "it is asked")
    assert redis_sentinel.primary.command("EXISTS", "apigate:{shop}:level-0=a")


def test_a_paused_sentinel_keeps_nobody_beyond_the_deadline(redis_sentinel, caller, stores, uri):
    asked = Asked(caller, stores(uri, deadline_ms=DEADLINE_MS), limits(*TWO))
    redis_sentinel.sentinel.pause()
    answers = in_time(lambda: [timed(asked.acquire)], DEADLINE_MS)
    redis_sentinel.sentinel.resume()
    assert all(isinstance(answer, StoreError) for answer in answers)
    until(lambda: is_admitted(asked), "it is asked again")


def test_connections_that_are_there_need_no_sentinel(redis_sentinel, caller, stores, uri):
    asked = Asked(caller, stores(uri, server_time=False), limits(*TWO))
    asked.acquire()
    redis_sentinel.sentinel.kill()
    assert asked.acquire().allowed
    assert asked.left() == [998, 8]
