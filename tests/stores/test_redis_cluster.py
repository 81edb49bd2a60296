"""A real cluster of three nodes: one slot for a gateway, or one for each client; slots that move, nodes that go."""

import gc
import threading
import warnings

import pytest

from apigate import ConfigurationError
from apigate.core.errors import StoreError
from apigate.stores.redis import RedisStore
from tests.servers import RedisCluster, until
from tests.stores.asking import Asked, hasty, in_time, is_admitted, limits, timed

DEADLINE_MS = 400
CLIENTS = [f"client-{number}" for number in range(30)]
WIDE, NARROW = "1000/hour", "10/hour"


@pytest.fixture(scope="module")
def cluster_of_the_faults():
    with RedisCluster(lost_ms=2_000) as cluster:
        yield cluster


@pytest.fixture
def own_cluster(cluster_of_the_faults):
    """A cluster of whose nodes the test may pause or kill any, if it sees to it that they go on."""
    until(cluster_of_the_faults.is_whole, "it is whole")
    cluster_of_the_faults.flush()
    return cluster_of_the_faults


@pytest.fixture(params=["redis", "valkey"])
def uri(request, redis_cluster):
    """The cluster's address, for each client library."""
    return redis_cluster.uri.replace("redis+", f"{request.param}+")


def keys_by_node(cluster):
    return [len(node.command("KEYS", "*")) for node in cluster.nodes]


# ---- one slot, or one for each client


def test_by_default_one_node_decides_for_a_gateway_in_one_trip(redis_cluster, caller, stores, uri):
    asked = Asked(caller, stores(uri), limits(WIDE, NARROW))
    asked.acquire("", "warm")
    before = redis_cluster.scripts()
    decisions = [asked.acquire("", client) for client in CLIENTS]
    assert redis_cluster.scripts() - before == len(CLIENTS)
    assert {(decision.allowed, decision.round_trips) for decision in decisions} == {(True, 1)}
    assert sorted(keys_by_node(redis_cluster)) == [0, 0, len(CLIENTS) + 2]


def test_gateways_of_different_names_lie_on_different_nodes(redis_cluster, caller, stores, uri):
    store = stores(uri)
    for owner in ("shop", "bank", "post", "mill", "farm", "port"):
        assert Asked(caller, store, limits(WIDE, owner=owner)).acquire().allowed
    assert sum(count > 0 for count in keys_by_node(redis_cluster)) > 1


def test_spread_out_the_buckets_of_clients_lie_on_all_nodes_and_a_request_asks_two(redis_cluster, caller, stores, uri):
    asked = Asked(caller, stores(uri, spread=True, server_time=False), limits(WIDE, NARROW, NARROW))
    decisions = [asked.acquire("", client, client) for client in CLIENTS]
    assert {(decision.allowed, decision.round_trips) for decision in decisions} == {(True, 2)}
    assert all(count >= 2 for count in keys_by_node(redis_cluster))
    assert asked.left("", CLIENTS[0], CLIENTS[0]) == [1_000 - len(CLIENTS), 9, 9]


def test_spread_out_who_asks_a_single_slot_asks_once(caller, stores, uri):
    asked = Asked(caller, stores(uri, spread=True), limits(NARROW, NARROW))
    assert asked.acquire("client").round_trips == 1


def test_a_refusal_by_the_second_slot_leaves_the_first_as_it_was(caller, stores, uri):
    asked = Asked(caller, stores(uri, spread=True, server_time=False), limits("2/hour", NARROW))
    assert [asked.acquire("", "a").allowed for _ in range(2)] == [True, True]
    refused = asked.acquire("", "b", cost=2)
    assert (refused.allowed, refused.violated, refused.round_trips) == (False, ("level-0",), 3)
    assert asked.left("", "b") == [0, 10]


def test_a_refusal_by_the_first_slot_takes_nothing_at_the_second(caller, stores, uri):
    asked = Asked(caller, stores(uri, spread=True, server_time=False), limits(WIDE, "1/hour"))
    asked.acquire("", "a")
    refused = asked.acquire("", "a")
    assert (refused.allowed, refused.violated, refused.round_trips) == (False, ("level-1",), 2)
    assert [state.remaining for state in refused.buckets] == [999, 0]
    assert asked.left("", "a") == [999, 0]


def test_spread_out_many_at_once_are_admitted_as_often_as_the_narrowest_allows(caller, stores, uri):
    """Who is refused by the second slot holds tokens of the first for a moment; that denies, it never admits."""
    asked = Asked(caller, stores(uri, spread=True, server_time=False), limits("40/hour", NARROW))
    answers = caller.at_once([lambda client=client: asked.call(("", client)) for client in CLIENTS[:8] * 8])
    admitted = sum(answer.allowed for answer in answers)
    assert admitted == 40
    spent = sum(10 - asked.left("", client)[1] for client in CLIENTS[:8])
    assert spent == admitted


def test_spread_needs_a_cluster(redis_server):
    with pytest.raises(ConfigurationError, match="is no cluster, so there is nothing to spread over"):
        RedisStore(redis_server.uri, spread=True)


# ---- slots that move


def slot_of(cluster):
    return cluster.slot_of("apigate:{shop}:")


def test_a_slot_that_has_moved_is_found_in_the_same_call(redis_cluster, caller, stores, uri):
    asked = Asked(caller, stores(uri, server_time=False), limits(WIDE, NARROW))
    asked.acquire()
    owner = redis_cluster.owner_of(slot_of(redis_cluster))
    redis_cluster.move(slot_of(redis_cluster), next(node for node in redis_cluster.nodes if node is not owner))
    assert asked.acquire().allowed
    assert asked.left() == [998, 8]


def test_a_slot_that_is_moving_is_asked_where_its_keys_are(redis_cluster, caller, stores, uri):
    """With no key moved, and with all. For new buckets of several levels the server says to wait until it has moved."""
    store = stores(uri, server_time=False)
    asked = Asked(caller, store, limits(WIDE, NARROW))
    asked.acquire()
    slot = slot_of(redis_cluster)
    source = redis_cluster.owner_of(slot)
    target = next(node for node in redis_cluster.nodes if node is not source)
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.command("CLUSTER", "MYID"))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.command("CLUSTER", "MYID"))
    try:
        assert asked.acquire().allowed
        names = source.command("CLUSTER", "GETKEYSINSLOT", slot, 10)
        assert len(names) == 2
        source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *names)
        assert asked.acquire().allowed
        with hasty(store, DEADLINE_MS):
            answers = in_time(lambda: [timed(lambda: asked.acquire("new"))], DEADLINE_MS)
        assert all(isinstance(answer, StoreError) for answer in answers)
    finally:
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", target.command("CLUSTER", "MYID"))
    until(lambda: is_admitted(asked, "new"), "it has moved")
    assert asked.left() == [997, 7]


def test_under_load_a_slot_that_moves_to_and_fro_loses_nothing(redis_cluster, caller, stores, uri):
    asked = Asked(caller, stores(uri, server_time=False), limits("100000/hour"))
    asked.acquire()
    slot, moving = slot_of(redis_cluster), threading.Event()

    def move():
        for node in redis_cluster.nodes:
            redis_cluster.move(slot, node)
        moving.set()

    operator = threading.Thread(target=move)
    operator.start()
    answers = []
    while not moving.is_set():
        answers += caller.at_once([asked.call] * 4)
    operator.join()
    admitted = 1 + sum(getattr(answer, "allowed", False) for answer in answers)
    assert [answer for answer in answers if not getattr(answer, "allowed", False)] == []
    assert asked.left() == [100_000 - admitted]


# ---- nodes that are lost


def test_a_paused_node_keeps_nobody_beyond_the_deadline(own_cluster, caller, stores):
    asked = Asked(caller, stores(own_cluster.uri, deadline_ms=DEADLINE_MS), limits(WIDE, NARROW))
    until(lambda: is_admitted(asked), "a connection is made")
    node = own_cluster.owner_of(slot_of(own_cluster))
    node.pause()
    for _ in range(3):
        for answers in in_time(lambda: [timed(lambda: caller.at_once([asked.call] * 4))], DEADLINE_MS):
            assert all(isinstance(answer, StoreError) and answer.__cause__ is not None for answer in answers)
    node.resume()
    until(lambda: is_admitted(asked), "it is asked again")


def test_nor_does_a_whole_cluster_that_is_paused_before_the_first_call(own_cluster, caller, stores):
    asked = Asked(caller, stores(own_cluster.uri, deadline_ms=DEADLINE_MS), limits(WIDE, NARROW))
    for node in own_cluster.nodes:
        node.pause()
    for _ in range(2):
        answers = in_time(lambda: [timed(asked.acquire)], DEADLINE_MS)
        assert all(isinstance(answer, StoreError) for answer in answers)
    for node in own_cluster.nodes:
        node.resume()
    until(lambda: is_admitted(asked), "it is asked again")


def test_a_killed_node_is_a_fault_in_time_until_it_is_back(own_cluster, caller, stores):
    asked = Asked(caller, stores(own_cluster.uri, deadline_ms=DEADLINE_MS), limits(WIDE, NARROW))
    until(lambda: is_admitted(asked), "a connection is made")
    node = own_cluster.owner_of(slot_of(own_cluster))
    other = next(each for each in own_cluster.nodes if each is not node)
    node.kill()
    faults = []

    def is_down():
        faults.extend(in_time(lambda: [timed(asked.acquire)], DEADLINE_MS))
        return "cluster_state:fail" in other.command("CLUSTER", "INFO")

    until(is_down, "the others notice")
    faults += in_time(lambda: [timed(asked.acquire)], DEADLINE_MS)
    assert all(isinstance(answer, StoreError) and answer.__cause__ is not None for answer in faults)
    node.start()
    until(lambda: is_admitted(asked), "it is asked again")


def test_spread_out_a_fault_at_the_second_slot_gives_back_what_the_first_gave(own_cluster, caller, stores):
    store = stores(own_cluster.uri, spread=True)
    asked = Asked(caller, store, limits(WIDE, "10/week"))
    until(lambda: is_admitted(asked, "", "warm"), "a connection is made")
    node = own_cluster.owner_of(own_cluster.slot_of("apigate:{shop=}:level-0"))
    client = next(
        client
        for client in CLIENTS
        if own_cluster.owner_of(own_cluster.slot_of(f"apigate:{{shop={client}}}:level-1")) is not node
    )
    alone = Asked(caller, store, limits(WIDE, "10/week")[1:])
    assert alone.acquire(client).allowed
    node.pause()
    with hasty(store, DEADLINE_MS):
        answer, _ = timed(lambda: asked.acquire("", client))
    assert isinstance(answer, StoreError)
    node.resume()
    until(lambda: timed(lambda: alone.left(client))[0] == [9], "it is given back")


@pytest.mark.parametrize("caller", ["tasks"], indirect=True)
@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_a_loop_that_ends_in_an_outage_leaves_nothing_open(own_cluster, caller, stores, library):
    uri = own_cluster.uri.replace("redis+", f"{library}+")
    asked = Asked(caller, stores(uri, deadline_ms=DEADLINE_MS), limits(WIDE, NARROW))
    until(lambda: is_admitted(asked), "a connection is made")
    node = own_cluster.owner_of(slot_of(own_cluster))
    node.pause()
    assert not is_admitted(asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caller.close()
        gc.collect()
    node.resume()
