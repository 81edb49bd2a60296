"""Responses and invalidations in a file: seen at once by every process, bounded, and never made of garbage."""

import os
import signal
import stat
import subprocess
import sys
import threading
from errno import ENOSPC

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate import ConfigurationError, Gateway, Method, ResponseCache, StoreError, StoreTimeoutError
from apigate.caching.shared import SharedGenerations
from apigate.caching.store import EVERYTHING, Invalidation, log_of, position_of
from apigate.stores.cache_file import FileResponses
from apigate.stores.cache_layout import MARK, RECORDS
from apigate.stores.file import FileStore
from apigate.stores.file_kernel import SharedFile
from apigate.wsgi import GatewayMiddleware
from tests.response_stores import ListedGenerations
from tests.servers import ROOT
from tests.strategies import UNHURRIED

PETS = Invalidation("scope", "tag:pets")
FLUSH = ("all", "")
SECOND = 1_000_000
MIB = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache"


def key(number):
    return number.to_bytes(32, "big")


def opened(path, name="shop:prod", **settings):
    return FileResponses(path, name=name, max_bytes=4 * MIB, deadline_ms=20_000, **settings)


class Process:
    """What one process knows of the log."""

    def __init__(self, store):
        self.store, self.generations = store, ListedGenerations()
        self.wire = SharedGenerations(store, self.generations)
        self.now_us = 0

    def told(self):
        """What it has been told of, once it has looked."""
        self.wire.synchronise(self.now_us)
        return self.generations.told


# ---- values


def test_a_value_is_found_by_every_store_on_the_file_and_under_its_key_only(path):
    one, other = opened(path), opened(path)
    one.put(key(1), b"hello", 60)
    assert other.get(key(1), b"").value == b"hello"
    assert other.get(key(2), b"").value is None


def test_a_value_may_be_replaced_and_deleted(path):
    store = opened(path)
    store.put(key(1), b"old", 60)
    store.put(key(1), b"new", 60)
    assert store.get(key(1), b"").value == b"new"
    store.delete(key(1))
    assert store.get(key(1), b"").value is None
    store.delete(key(2))


def test_owners_do_not_see_each_others_values_and_invalidations(path):
    shop, blog = opened(path, "shop:prod"), opened(path, "blog:prod")
    one, other = Process(shop), Process(blog)
    one.told()
    other.told()
    shop.put(key(1), b"hello", 60)
    shop.learn(b"", [PETS])
    assert blog.get(key(1), b"").value is None
    assert one.told() == [FLUSH, tuple(PETS)]
    assert other.told() == [FLUSH]
    assert position_of(other.wire.known) == 1


def test_a_file_never_grows_beyond_its_bound_and_the_latest_values_are_there(path):
    store = opened(path)
    for number in range(3_000):
        store.put(key(number), bytes([number % 256]) * 1_500, 60)
    assert path.stat().st_size <= 4 * MIB
    assert store.get(key(0), b"").value is None
    latest = range(2_800, 3_000)  # so few of 1,200 that no set of eight places is ever full of them by chance
    assert [store.get(key(number), b"").value for number in latest] == [
        bytes([number % 256]) * 1_500 for number in latest
    ]


def test_a_value_that_is_too_long_is_not_kept(path):
    store = opened(path)
    store.put(key(1), bytes(store.max_item_bytes), 60)
    store.put(key(2), bytes(store.max_item_bytes + 1), 60)
    assert store.get(key(1), b"").value == bytes(store.max_item_bytes)
    assert store.get(key(2), b"").value is None


def test_without_bodies_a_file_has_the_log_and_little_else(path):
    store = opened(path, bodies=False)
    store.learn(b"", [PETS])
    assert path.stat().st_size < 3 * MIB


puts = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 200_000)), max_size=80)


@UNHURRIED
@given(puts, st.data())
def test_whatever_is_put_a_value_is_the_last_of_its_key_or_none(tmp_path_factory, puts, data):
    path = tmp_path_factory.mktemp("cache") / "cache"
    stores = [opened(path), opened(path)]
    put = {}
    for number, size in puts:
        value = bytes([len(put) % 256, number]) * (size // 2)
        store = data.draw(st.sampled_from(stores))
        store.put(key(number), value, 60)
        put[number] = value
        if size <= store.max_item_bytes:
            assert stores[0].get(key(number), b"").value == value
        for other, last in put.items():
            assert stores[1].get(key(other), b"").value in {last, None} or size > store.max_item_bytes
    assert path.stat().st_size <= 4 * MIB if puts else True


# ---- the log


def test_what_one_invalidates_the_other_sees_at_once(path):
    one, other = Process(opened(path)), Process(opened(path))
    other.told()
    for number in range(10):
        one.wire.invalidate(Invalidation("scope", f"tag:{number}"), 0)
        assert other.told()[-1] == ("scope", f"tag:{number}")
    assert one.told() == other.told()


def test_a_record_that_another_process_is_told_of_late_is_told_once_its_ring_has_turned(path):
    one, other = Process(opened(path)), Process(opened(path))
    other.told()
    for _ in range(3):
        one.store.learn(b"", [PETS] * (RECORDS - 1))
        assert len(other.told()) % (RECORDS - 1) == 1
    one.store.learn(b"", [PETS] * (RECORDS + 1))
    assert other.told().count(FLUSH) == 2


def test_texts_of_every_kind_come_through(path):
    one, other = opened(path), opened(path)
    records = [
        Invalidation("scope", "x" * 480),
        Invalidation("prefix", "/é\udc80"),
        Invalidation("scope", ""),
        EVERYTHING,
    ]
    one.learn(b"", records)
    assert [each.record for each in other.learn(b"").records] == records


def test_a_text_that_is_too_long_is_refused(path):
    with pytest.raises(StoreError, match="481 bytes"):
        opened(path).learn(b"", [Invalidation("scope", "x" * 481)])


def test_the_log_survives_a_restart_of_all(path):
    opened(path).learn(b"", [PETS])
    assert [each.record for each in opened(path).learn(b"").records] == [PETS]


# ---- what may become of a file


def test_a_file_is_for_its_owner_only(path):
    opened(path).learn(b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_deleted_is_made_anew_and_all_is_invalid_within_a_second(path):
    one, other = Process(opened(path)), Process(opened(path))
    one.told()
    other.told()
    path.unlink()
    one.store.put(key(1), b"hello", 60)
    one.now_us = other.now_us = SECOND
    assert one.told() == other.told() == [FLUSH, FLUSH]
    one.wire.invalidate(PETS, SECOND)
    assert other.told()[-1] == tuple(PETS)
    assert other.store.get(key(1), b"").value == b"hello"


@pytest.mark.parametrize("size", [0, 10, 5_000, 100_000, 3 * MIB])
def test_a_file_that_was_cut_off_starts_anew_and_ends_nobody(path, size):
    one, other = Process(opened(path)), Process(opened(path))
    one.store.put(key(1), bytes(100_000), 60)
    one.told()
    other.told()
    os.truncate(path, size)
    one.told()
    one.store.get(key(1), b"")
    one.store.put(key(2), b"hello", 60)
    one.now_us = other.now_us = SECOND
    one.wire.invalidate(PETS, SECOND)
    assert other.told()[-2:] == [FLUSH, tuple(PETS)]
    assert other.store.get(key(2), b"").value == b"hello"


@UNHURRIED
@given(st.integers(0, 4 * MIB), st.binary(min_size=1, max_size=5_000))
def test_a_file_that_was_spoilt_anywhere_gives_no_value_that_was_not_put(tmp_path_factory, at, garbage):
    path = tmp_path_factory.mktemp("cache") / "cache"
    store, process = opened(path), Process(opened(path))
    put = {number: bytes([number]) * 20_000 for number in range(20)}
    for number, value in put.items():
        store.put(key(number), value, 60)
    process.wire.invalidate(PETS, 0)
    with path.open("r+b") as file:
        file.seek(min(at, path.stat().st_size - len(garbage)))
        file.write(garbage)
    process.now_us = SECOND
    process.told()
    for number, value in put.items():
        assert store.get(key(number), b"").value in {value, None}
    store.put(key(1), b"again", 60)
    assert opened(path).get(key(1), b"").value == b"again"
    process.wire.invalidate(PETS, SECOND)
    other = Process(opened(path))
    assert other.told()[0] == FLUSH
    process.wire.invalidate(PETS, SECOND)
    assert other.told()[-1] == tuple(PETS)


def test_a_log_that_has_lost_what_was_told_begins_anew(path):
    process = Process(opened(path))
    process.wire.invalidate(PETS, 0)
    before = process.wire.known
    with path.open("r+b") as file:
        file.seek(MARK + 16)
        file.write(bytes(8))
    assert process.told()[-1] == FLUSH
    assert log_of(process.wire.known) != log_of(before)


def test_a_file_too_small_starts_anew_and_whoever_has_it_open_agrees(path):
    one = Process(opened(path, bodies=False))
    one.wire.invalidate(PETS, 0)
    other = Process(opened(path))
    other.store.put(key(1), b"hello", 60)
    assert one.told()[-1] == other.told()[-1] == FLUSH
    assert one.store.get(key(1), b"").value == b"hello"
    one.wire.invalidate(PETS, 0)
    assert other.told()[-1] == tuple(PETS)
    assert path.stat().st_size > 3 * MIB


def test_a_look_into_a_file_too_small_has_it_start_anew(path):
    opened(path, bodies=False).learn(b"")
    assert opened(path).get(key(1), b"").value is None
    assert path.stat().st_size > 3 * MIB


def test_a_file_that_is_larger_stays_as_it_is(path):
    one = Process(FileResponses(path, name="shop:prod", max_bytes=8 * MIB))
    one.store.put(key(1), b"hello", 60)
    one.told()
    smaller = [Process(opened(path)), Process(opened(path, bodies=False))]
    for process in smaller:
        process.wire.invalidate(PETS, 0)
        assert process.store.get(key(1), b"").value == b"hello"
    assert one.told() == [FLUSH, tuple(PETS), tuple(PETS)]


def test_a_file_that_cannot_get_larger_keeps_what_it_has(path, monkeypatch):
    one = Process(opened(path, bodies=False))
    one.wire.invalidate(PETS, 0)

    def allocate(fd, size):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr("apigate.stores.cache_layout.allocate", allocate)
    with pytest.raises(StoreError, match="No space left"):
        opened(path).learn(b"")
    one.wire.invalidate(PETS, 0)
    assert one.told() == [FLUSH, tuple(PETS), tuple(PETS)]


def make_foreign(path):
    path.write_bytes(b"SQLite format 3\0" + bytes(10_000))


def make_buckets(path):
    store = FileStore(path, max_keys=10)
    store.open([], 0).acquire([], [], 0)


FAULTS = {
    "somebody's file": (make_foreign, "holds something else"),
    "a file of buckets": (make_buckets, "holds something else"),
    "a directory": (lambda path: path.mkdir(), "is no regular file"),
    "a link": (lambda path: path.symlink_to(path.with_name("other")), "symbolic link"),
    "no directory": (lambda path: path.parent.rmdir(), "there is no directory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_seen_when_the_store_is_built_and_left_as_it_is(tmp_path, fault):
    path = tmp_path / "run" / "cache"
    path.parent.mkdir()
    spoil, message = FAULTS[fault]
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError, match=f"^cache: '.*': .*{message}"):
        opened(path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_file_that_others_may_use_is_refused(path):
    opened(path).learn(b"")
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="could put any response into the cache"):
        opened(path)


def test_a_file_that_became_somebody_elses_while_it_was_used_is_left_as_it_is(path):
    store = opened(path)
    store.put(key(1), b"hello", 60)
    path.unlink()
    make_foreign(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="holds something else"):
        store.put(key(1), b"hello", 60)
    assert path.read_bytes() == before


@pytest.mark.parametrize("max_bytes", [0, MIB, 1 << 50, True, "1MB"])
def test_a_size_out_of_bounds_is_an_error(path, max_bytes):
    with pytest.raises(ConfigurationError, match=r"FileResponses max_bytes: .* is not a whole number from 4,194,304"):
        FileResponses(path, name="shop", max_bytes=max_bytes)


def test_a_full_disk_costs_the_value_and_is_no_outage(path, monkeypatch):
    store = opened(path)
    store.put(key(1), b"hello", 60)

    def write(self, at, raw):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(SharedFile, "write", write)
    with pytest.raises(StoreError, match="No space left") as error:
        store.put(key(2), b"hello", 60)
    assert not error.value.blames_store
    assert store.get(key(1), b"").value == b"hello"


def test_a_process_that_keeps_the_file_locked_is_waited_for_until_the_deadline_and_not_by_who_reads(path):
    store, other = FileResponses(path, name="shop", deadline_ms=50), opened(path, "shop")
    store.put(key(1), b"hello", 60)
    with other._held("put"):
        assert store.get(key(1), b"").value == b"hello"
        with pytest.raises(StoreTimeoutError, match="locked for 50 ms"):
            store.put(key(1), b"later", 60)
    store.put(key(1), b"later", 60)


def worker(path, shared):
    """A client of one worker, whose gateway has its store in a file and the cache's beside it."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    cache = ResponseCache(shared=shared)
    store = f"file://{path}?deadline_ms=20000"
    gateway = Gateway(name="shop", store=store, throttle="1000/s", cache=cache, methods={"*": Method(cache=60)})
    return httpx.Client(transport=httpx.WSGITransport(GatewayMiddleware(app, gateway)), base_url="http://shop")


def test_responses_are_shared_where_only_invalidations_were_before_and_the_reverse(path):
    def looked(client, method="GET"):
        return client.request(method, "/pets").headers["Cache-Status"].split("; ")[1]

    before = [worker(path, None), worker(path, None)]
    assert [looked(client) for client in (*before, *before)] == ["fwd=uri-miss"] * 2 + ["hit"] * 2
    shared = [worker(path, True), worker(path, True)]
    assert [looked(client) for client in shared] == ["fwd=uri-miss", "hit"]
    looked(before[0], "DELETE")
    assert [looked(client) for client in (*shared, *before)] == ["fwd=uri-miss", "hit", "fwd=uri-miss", "fwd=uri-miss"]
    after = [worker(path, None), worker(path, None)]
    assert [looked(client) for client in after] == ["fwd=uri-miss"] * 2
    looked(after[0], "DELETE")
    assert [looked(client) for client in (*after, *shared)] == ["fwd=uri-miss"] * 3 + ["hit"]


# ---- processes


def in_child(work):
    """Whether some work told True in a child."""
    child = os.fork()
    if child == 0:
        told = False
        try:
            told = bool(work())
        finally:
            os._exit(0 if told else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_parent_and_child_exclude_each_other_and_see_what_either_does(path):
    process = Process(opened(path))
    process.told()
    process.store.put(key(1), b"hello", 60)

    def work():
        is_there = process.store.get(key(1), b"").value == b"hello"
        process.wire.invalidate(PETS, 0)
        process.store.put(key(2), b"from the child", 60)
        return is_there and process.told() == [FLUSH, tuple(PETS)]

    assert in_child(work)
    assert process.told() == [FLUSH, tuple(PETS)]
    assert process.store.get(key(2), b"").value == b"from the child"


def test_a_child_forked_while_a_thread_held_the_file_can_use_it(path):
    store = opened(path)
    store.put(key(1), b"hello", 60)
    holds, ends = threading.Event(), threading.Event()

    def hold():
        with store._held("put"):
            holds.set()
            ends.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(20)
    try:
        assert in_child(lambda: store.get(key(1), b"").value == b"hello")
    finally:
        ends.set()
        thread.join()


MOST_WRITTEN = RECORDS // 2 - 1  # by each of two, so that the log keeps it all, however slowly a third process reads
WRITER = """
import sys
from apigate.caching.store import Invalidation
from apigate.stores.cache_file import FileResponses
store = FileResponses(sys.argv[1], name="shop:prod", max_bytes=4 << 20, deadline_ms=20_000)
number = 0
while number < int(sys.argv[2]):
    number += 1
    store.put((number % 50).to_bytes(32, "big"), (number % 50).to_bytes(1, "big") * 50_000, 60)
    store.learn(b"", [Invalidation("scope", f"tag:{number}")])
    print(number, flush=True)
"""


def writer(path):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(MOST_WRITTEN)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


def test_who_is_killed_while_writing_leaves_whole_values_and_a_log_in_order(path):
    opened(path).learn(b"")
    for _ in range(5):
        with writer(path) as process:
            for _ in range(50):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        store = opened(path)
        values = [store.get(key(number), b"").value for number in range(50)]
        assert all(value in {None, bytes([number]) * 50_000} for number, value in enumerate(values))
        assert sum(value is None for value in values) <= 1 or len(values) == 50
        positions = [each.position for each in store.learn(b"").records]
        assert positions == list(range(positions[0], positions[0] + len(positions)))


def test_two_processes_write_and_a_third_misses_no_invalidation_and_reads_no_torn_value(path):
    process = Process(opened(path))
    process.told()
    seen = 0
    with writer(path) as one, writer(path) as other:
        for number in range(200):
            for each in (one, other):
                assert int(each.stdout.readline()) == number + 1
                assert process.told().count(("scope", f"tag:{number + 1}")) >= 1
            value = process.store.get(key(number % 50), b"").value
            assert value in {None, bytes([number % 50]) * 50_000}
            seen += value is not None
        one.kill()
        other.kill()
    assert seen > 100
    told = [text for kind, text in process.told() if kind == "scope"]
    assert FLUSH not in process.told()[1:]
    assert {told.count(f"tag:{number}") for number in range(1, 200)} == {2}


def test_threads_of_one_process_put_and_find_at_once(path):
    store = opened(path)
    faults = []

    def work(first):
        try:
            for number in range(first, first + 100):
                store.put(key(number), bytes([first % 256]) * 1_000, 60)
                if store.get(key(number), b"").value != bytes([first % 256]) * 1_000:
                    faults.append(number)
                store.learn(b"", [PETS])
        except StoreError as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(1_000 * each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(store.learn(b"").records) == 800
