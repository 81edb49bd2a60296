"""What becomes of a call when Redis is killed, paused, cut off, full, a replica, or no Redis at all.

A fault shows as a `StoreError` with its cause, never later than the deadline, and the next call after it is answered as
if nothing had been.
"""

import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from apigate.core.errors import StoreError, StoreTimeoutError
from apigate.throttling.limit import Limit
from apigate.throttling.window import Window
from tests.relay import Relay
from tests.servers import until
from tests.stores.asking import PATIENT_MS, TRIES, Asked, hasty, in_time, is_admitted, limits, timed

DEADLINE_MS = 500
TWO = ("10/hour", "100/hour")


def assert_refused_to_answer(answer, kind=StoreError):
    assert isinstance(answer, kind)
    assert answer.operation == "acquire"
    assert answer.__cause__ is not None


# ---- killed and started again


@pytest.mark.parametrize("idle", [True, False], ids=["idle connections", "no connection"])
def test_a_killed_server_is_a_fault_and_the_next_one_is_asked_without_one(own_redis, caller, stores, idle):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    if idle:
        caller.at_once([asked.call] * 4)
    own_redis.kill()
    answer, _ = timed(asked.acquire)
    assert_refused_to_answer(answer)
    own_redis.start()
    assert asked.acquire().allowed
    assert asked.left() == [9, 99]


def test_a_server_started_again_unnoticed_is_asked_without_a_fault(own_redis, caller, stores):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    caller.at_once([asked.call] * 4)
    own_redis.kill()
    own_redis.start()
    assert all(answer.allowed for answer in caller.at_once([asked.call] * 4))
    assert asked.left() == [6, 96]


def test_under_load_each_call_is_answered_or_a_fault_while_the_server_is_killed_and_started(own_redis, caller, stores):
    store = stores(own_redis.uri)
    asked = Asked(caller, store, limits("1000000/hour"))
    caller.at_once([asked.call] * 8)
    stopping = threading.Event()

    def restart():
        for _ in range(3):
            own_redis.kill()
            own_redis.start()
        stopping.set()

    operator = threading.Thread(target=restart)
    operator.start()
    answers = []
    with hasty(store, 1_000):
        while not stopping.is_set():
            answers += caller.at_once([asked.call] * 8)
    operator.join()
    faults = [answer for answer in answers if not getattr(answer, "allowed", False)]
    assert [fault for fault in faults if not isinstance(fault, StoreError) or fault.__cause__ is None] == []
    assert all(answer.allowed for answer in caller.at_once([asked.call] * 8))


# ---- paused


def test_a_paused_server_keeps_nobody_beyond_the_deadline(own_redis, caller, stores):
    store = stores(own_redis.uri)
    asked = Asked(caller, store, limits(*TWO))
    caller.at_once([asked.call] * 4)
    own_redis.pause()
    with hasty(store, DEADLINE_MS):
        for _ in range(4):
            for answers in in_time(lambda: [timed(lambda: caller.at_once([asked.call] * 4))], DEADLINE_MS):
                for answer in answers:
                    assert_refused_to_answer(answer, StoreTimeoutError)
    own_redis.resume()
    assert asked.acquire().allowed


def test_nor_does_one_that_is_paused_before_the_first_call(own_redis, caller, stores):
    def first_call():
        asked = Asked(caller, stores(own_redis.uri, deadline_ms=DEADLINE_MS), limits(*TWO))
        return [timed(asked.acquire)]

    own_redis.pause()
    for answer in in_time(first_call, DEADLINE_MS):
        assert_refused_to_answer(answer, StoreTimeoutError)
    own_redis.resume()


def test_many_more_than_go_in_one_batch_are_all_given_up_in_time(own_redis, caller, stores):
    store = stores(own_redis.uri)
    asked = Asked(caller, store, limits("100000/week"))
    many, under_way = (300, 2 * 128) if caller.name == "tasks" else (16, 16)
    own_redis.pause()
    with hasty(store, DEADLINE_MS):
        attempts = in_time(lambda: [timed(lambda: caller.at_once([asked.call] * many))], DEADLINE_MS)
    assert {type(answer) for answers in attempts for answer in answers} == {StoreTimeoutError}
    own_redis.resume()
    assert asked.left()[0] >= 100_000 - under_way * len(attempts)  # the others were given up unsent


# ---- a network between


def through(relay, more="0"):
    return f"redis://127.0.0.1:{relay.port}/{more}"


@pytest.mark.parametrize("share", [0.45, 0.7])
def test_answers_that_are_all_late_keep_nobody_beyond_the_deadline_from_the_first_call_on(relay, caller, stores, share):
    """A connection is greeted with several questions, each answered late."""
    relay.delay = DEADLINE_MS / 1_000 * share

    def first_calls():
        asked = Asked(caller, stores(through(relay, "1"), deadline_ms=DEADLINE_MS), limits(*TWO))
        opened.append(asked)
        return [timed(asked.acquire) for _ in range(3)]

    opened = []
    for answer in in_time(first_calls, DEADLINE_MS):
        assert not isinstance(answer, StoreError) or isinstance(answer, StoreTimeoutError)
    relay.delay = 0.0
    opened[-1].buckets._store.connections.deadline_ms = PATIENT_MS
    until(lambda: is_admitted(opened[-1]), "it is asked without a fault")


def test_operations_one_after_the_other_have_a_deadline_each(relay, caller, stores):
    store = stores(through(relay))
    asked, windows = Asked(caller, store, limits(*TWO)), store.windows()
    window = Limit("shop:window", "window", "window", Window("5/hour", kind="fixed"))
    asked.acquire()
    relay.delay = 0.15 * DEADLINE_MS / 1_000

    def operations():
        for _ in range(4):
            asked.reset("a")  # two names, so two answers
            caller.ask(windows.reset, window, "a")
            caller.ask(windows.peek, window, "a", 1, 0)
            caller.ask(windows.reset, window, None)
        return asked.left()

    with hasty(store, DEADLINE_MS):
        # A busy machine may make one of them late; were there one deadline for all, some would be late each time.
        ended = (timed(operations)[0] for _ in range(TRIES))
        assert next(left for left in ended if not isinstance(left, StoreTimeoutError)) == [10, 100]


def test_nor_does_it_where_the_server_has_lost_the_script(own_redis, relay, caller, stores):
    store = stores(through(relay))
    asked = Asked(caller, store, limits(*TWO))

    def without_the_script():
        relay.delay = 0.0
        asked.acquire()
        own_redis.command("SCRIPT", "FLUSH")
        relay.delay = DEADLINE_MS / 1_000 * 0.7
        with hasty(store, DEADLINE_MS):
            return [timed(asked.acquire)]

    for answer in in_time(without_the_script, DEADLINE_MS):
        assert_refused_to_answer(answer, StoreTimeoutError)


def test_answers_that_never_come_are_given_up_and_belong_to_nobody_later(relay, caller, stores):
    store = stores(through(relay))
    asked = Asked(caller, store, limits(*TWO))
    asked.acquire("a", cost=1)
    relay.hold()
    with hasty(store, DEADLINE_MS):
        for answer in in_time(lambda: [timed(lambda: asked.acquire("a", cost=2))], DEADLINE_MS):
            assert_refused_to_answer(answer, StoreTimeoutError)
    relay.release()
    assert [state.remaining for state in asked.acquire("b", cost=5).buckets] == [5, 95]


def test_a_lost_answer_is_a_fault_of_a_call_that_took_once(own_redis, relay, caller, stores):
    asked = Asked(caller, stores(through(relay)), limits(*TWO))
    asked.acquire()
    relay.lose_next_answer()
    answer, _ = timed(lambda: asked.acquire(cost=3))
    assert_refused_to_answer(answer)
    assert asked.left() == [6, 96]


def test_a_lost_question_is_a_fault_of_a_call_that_took_nothing(relay, caller, stores):
    asked = Asked(caller, stores(through(relay)), limits(*TWO))
    asked.acquire()
    relay.lose_next_question()
    answer, _ = timed(lambda: asked.acquire(cost=3))
    assert_refused_to_answer(answer)
    assert asked.left() == [9, 99]


def test_connections_that_were_cut_while_nobody_called_are_no_fault(relay, caller, stores):
    asked = Asked(caller, stores(through(relay)), limits(*TWO))
    caller.at_once([asked.call] * 3)
    relay.cut()
    assert all(answer.allowed for answer in caller.at_once([asked.call] * 3))
    assert asked.left() == [4, 94]


def test_connections_that_the_server_closed_while_nobody_called_are_no_fault(own_redis, caller, stores):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    caller.at_once([asked.call] * 3)
    own_redis.drop_connections()
    assert all(answer.allowed for answer in caller.at_once([asked.call] * 3))


def test_a_server_that_closes_idle_connections_by_itself_is_no_fault(own_redis, caller, stores):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    caller.at_once([asked.call] * 3)
    own_redis.command("CONFIG", "SET", "timeout", 1)
    until(lambda: not ours(own_redis), "the server closes what is idle")
    assert all(answer.allowed for answer in caller.at_once([asked.call] * 3))


def ours(server):
    """The connections at the server that are not the test's own."""
    return [line for line in server.command("CLIENT", "LIST").splitlines() if f"{server.socket}" not in line]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """What a server needs to speak TLS as `localhost`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on the path, which makes certificates")
    folder = tmp_path_factory.mktemp("tls")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 2 -subj /CN=localhost"
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    return context


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_over_tls_one_connection_serves_until_it_is_cut_which_is_no_fault(own_redis, tls, caller, stores, scheme):
    with Relay(own_redis.port, tls) as relay:
        store = stores(f"{scheme}://127.0.0.1:{relay.port}/0?ssl_cert_reqs=none")
        asked = Asked(caller, store, limits(*TWO))
        assert [asked.acquire().allowed for _ in range(3)] == [True] * 3
        assert relay.accepted == 1
        relay.cut()
        caller.notice()
        assert asked.acquire().allowed
        assert (relay.accepted, asked.left()) == (2, [6, 96])
        caller.close()
        store.close()


# ---- servers that refuse


def test_a_full_server_is_a_fault_and_nothing_is_taken_at_any_level(own_redis, caller, stores):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    asked.acquire("a", "b")
    own_redis.fill()
    for answer in caller.at_once([lambda: asked.call(("c", "b")), lambda: asked.call(("a", "b"))]):
        assert_refused_to_answer(answer)
    own_redis.drain()
    assert [asked.left("a", "b"), asked.left("c", "b")] == [[9, 99], [10, 99]]


def test_a_full_server_still_says_what_is_left(own_redis, caller, stores):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    asked.acquire()
    own_redis.fill()
    assert asked.left() == [9, 99]


def test_a_replica_is_a_fault_until_it_is_the_primary(own_redis, redis_server, caller, stores):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    asked.acquire()
    own_redis.command("REPLICAOF", "127.0.0.1", redis_server.port)
    answer, _ = timed(asked.acquire)
    assert_refused_to_answer(answer)
    assert "READONLY" in str(answer) or "read only" in str(answer)
    own_redis.command("REPLICAOF", "NO", "ONE")
    assert asked.acquire().allowed


def test_a_server_that_loads_its_data_is_a_fault_until_it_has(own_redis, caller, stores):
    """It looks after its clients while it loads: after each key, and Redis before 7 once for two megabytes."""
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    own_redis.command("EVAL", "for key = 1, 4000 do redis.call('SET', key, string.rep('x', 8000)) end", 0)
    asked.acquire()
    own_redis.command("CONFIG", "SET", "rdbcompression", "no")
    own_redis.command("SAVE")
    often = "loading-process-events-interval-bytes"
    knows_often = bool(own_redis.command("CONFIG", "GET", often))
    own_redis.kill()
    own_redis.options += ("--key-load-delay", "2500")  # microseconds for each key, which are ten seconds in all
    own_redis.options += (f"--{often}", "1024") if knows_often else ()
    starting = threading.Thread(target=own_redis.start)
    starting.start()
    until(lambda: "loading:1" in tell(own_redis, "INFO persistence"), "it loads")
    answer, _ = timed(asked.acquire)
    assert_refused_to_answer(answer)
    assert "loading" in str(answer).lower()
    tell(own_redis, "CONFIG SET key-load-delay 0")
    starting.join()
    assert asked.acquire().allowed
    assert asked.left() == [8, 98]


def tell(server, command):
    """What a server that loads answers; it greets no client."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(65_536).decode()


def test_a_wrong_password_is_a_fault_that_does_not_repeat_it(own_redis, caller, stores):
    own_redis.command("CONFIG", "SET", "requirepass", "sesame")
    for uri in (f"redis://:open-barley@{own_redis.address}/0", f"{own_redis.uri}?password=open-barley"):
        store = stores(uri)
        answer, _ = timed(Asked(caller, store, limits(*TWO)).acquire)
        assert_refused_to_answer(answer)
        assert "open-barley" not in f"{answer}{store!r}"
    asked = Asked(caller, stores(f"redis://:sesame@{own_redis.address}/0"), limits(*TWO))
    assert asked.acquire().allowed


def test_what_is_no_redis_at_all_is_a_fault(caller, stores):
    with socket.create_server(("127.0.0.1", 0)) as web:
        serving = threading.Thread(target=greet_all, args=(web,), daemon=True)
        serving.start()
        store = stores(f"redis://127.0.0.1:{web.getsockname()[1]}/0", deadline_ms=1_000)
        asked = Asked(caller, store, limits(*TWO))
        for _ in range(2):
            answer, _ = timed(asked.acquire)
            assert_refused_to_answer(answer)
        web.shutdown(socket.SHUT_RDWR)
    serving.join()


def greet_all(web):
    """Answer whatever is said as a server of HTTP does."""
    while True:
        try:
            connection, _ = web.accept()
        except OSError:
            return
        with connection:
            connection.recv(1_024)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_nobody_there_is_a_fault(own_redis, caller, stores):
    own_redis.kill()
    answer, _ = timed(Asked(caller, stores(own_redis.uri), limits(*TWO)).acquire)
    assert_refused_to_answer(answer)


@pytest.mark.parametrize("operation", ["peek", "adjust", "reset"])
def test_every_operation_says_so(own_redis, caller, stores, operation):
    asked = Asked(caller, stores(own_redis.uri), limits(*TWO))
    own_redis.kill()
    given = {"tokens": 1} if operation == "adjust" else {}
    with pytest.raises(StoreError) as fault:
        getattr(asked, operation)("a", **given)
    assert fault.value.operation == operation
    assert fault.value.__cause__ is not None
