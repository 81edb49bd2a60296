"""The script is sent when the server does not know it, within the same call."""

import threading

import pytest

from tests.servers import RedisServer, redis_programs
from tests.stores.asking import Asked, limits

TWO = ("100000/hour", "100000/hour")


@pytest.fixture(params=["redis", "valkey", "unix", "cluster"])
def address(request, redis_server):
    """A server or cluster, and its address."""
    if request.param == "cluster":
        cluster = request.getfixturevalue("redis_cluster")
        return cluster.nodes, cluster.uri
    return [redis_server], {
        "redis": redis_server.uri,
        "valkey": redis_server.uri.replace("redis:", "valkey:"),
        "unix": redis_server.unix_uri,
    }[request.param]


def forget_scripts(nodes):
    for node in nodes:
        node.command("SCRIPT", "FLUSH")


def test_a_server_that_has_forgotten_the_script_is_told_it_in_the_same_call(address, caller, stores):
    nodes, uri = address
    asked = Asked(caller, stores(uri, server_time=False), limits(*TWO))
    for taken in range(1, 6):
        forget_scripts(nodes)
        decision = asked.acquire()
        assert (decision.allowed, decision.remaining) == (True, 100_000 - taken)
    forget_scripts(nodes)
    asked.adjust(tokens=-1)
    forget_scripts(nodes)
    assert asked.left() == [99_996, 99_996]


def test_it_is_told_once_and_then_named(redis_server, caller, stores):
    asked = Asked(caller, stores(redis_server.uri), limits(*TWO))
    forget_scripts([redis_server])
    before = redis_server.commands()
    for _ in range(5):
        asked.acquire()
    sent = redis_server.commands() - before
    assert (sent["eval"], sent["evalsha"]) == (1, 5)


def test_scripts_that_are_flushed_under_load_are_no_fault(address, caller, stores):
    nodes, uri = address
    asked = Asked(caller, stores(uri, server_time=False), limits(*TWO))
    stopping = threading.Event()

    def flush():
        while not stopping.is_set():
            forget_scripts(nodes)

    flushing = threading.Thread(target=flush)
    flushing.start()
    answers = [answer for _ in range(15) for answer in caller.at_once([asked.call] * 8)]
    stopping.set()
    flushing.join()
    assert [answer for answer in answers if not getattr(answer, "allowed", False)] == []
    assert asked.left() == [100_000 - 120] * 2


@pytest.mark.parametrize("program", redis_programs())
def test_every_redis_that_is_found_runs_it(program, caller, stores):
    with RedisServer(program=program) as server:
        asked = Asked(caller, stores(server.uri), limits("3/hour", "2/hour"))
        assert [asked.acquire().allowed for _ in range(3)] == [True, True, False]
