"""Several processes, one store: no trace of theirs has anybody find what was invalidated before it was asked for.

The model knows nothing of logs or epochs: it counts moments, and compares when a response was asked for with when
something that concerns it was invalidated.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from apigate.caching.shared import SharedGenerations, SharedResponses
from apigate.caching.store import EVERYTHING, Invalidation
from apigate.stores.cache_file import FileResponses
from tests.response_stores import ListedGenerations, LoggedStore, a_response, concerns, nothing_varies
from tests.strategies import UNHURRIED

SECOND = 1_000_000
PROCESSES = 3

paths = st.sampled_from(["/pets", "/pets/1", "/pets/2", "/toys"])
tags = st.sampled_from(["tag:a", "tag:b"])
records = st.one_of(
    st.just(EVERYTHING),
    st.builds(Invalidation, st.just("prefix"), st.sampled_from(["/pets", "/pets/", "/t"])),
    st.builds(Invalidation, st.just("scope"), tags | paths.map(lambda path: f"path:{path}")),
)
processes = st.integers(0, PROCESSES - 1)


class Process:
    def __init__(self, store):
        self.generations = ListedGenerations()
        self.wire = SharedGenerations(store, self.generations)
        self.shared = SharedResponses(store, self.wire)
        self.on_their_way = []


class SharedCache(RuleBasedStateMachine):
    lag_us = 0

    def __init__(self):
        super().__init__()
        self.now_us = 0
        self.moment = 0
        self.invalidated = []
        self.asked = {}  # when each body was asked for, and with which scopes
        self.is_lossy = False

    def store(self):
        raise NotImplementedError

    def lose(self):
        raise NotImplementedError

    @initialize()
    def begin(self):
        self.processes = [Process(self.store()) for _ in range(PROCESSES)]

    def tick(self):
        self.moment += 1
        return self.moment

    @rule(seconds=st.sampled_from([0.0001, 0.1, 0.5, 1.5]))
    def wait(self, seconds):
        self.now_us += round(seconds * SECOND)

    @rule(process=processes, path=paths, tag=tags)
    def ask_the_app(self, process, path, tag):
        one = self.processes[process]
        one.wire.synchronise(self.now_us)
        body = b"%d" % self.tick()
        response = a_response(one.generations.epoch, body=body, scopes=(f"path:{path}", tag), lifetime=1e6)
        self.asked[body] = self.moment, response
        one.on_their_way.append((path, response))

    @precondition(lambda self: any(each.on_their_way for each in self.processes))
    @rule(data=st.data())
    def put(self, data):
        one = data.draw(st.sampled_from([each for each in self.processes if each.on_their_way]))
        path, response = one.on_their_way.pop(data.draw(st.integers(0, len(one.on_their_way) - 1)))
        one.shared.put(("GET", path), response, 0.0, self.now_us)
        found = one.shared.get(("GET", path), nothing_varies, 0.0, self.now_us)
        if not self.lag_us and not self.is_lossy and not self.is_invalid(response.body):
            # With a lag, what was asked for before an earlier invalidation was known is taken for invalid too.
            assert found.body == response.body
            assert one.generations.is_valid(found)

    @rule(process=processes, record=records)
    def invalidate(self, process, record):
        self.processes[process].wire.invalidate(record, self.now_us)
        self.invalidated.append((self.tick(), record))

    @rule(process=processes, path=paths)
    def look(self, process, path):
        one = self.processes[process]
        found = one.shared.get(("GET", path), nothing_varies, 0.0, self.now_us)
        if found is not None and one.generations.is_valid(found):
            assert not self.is_invalid(found.body)

    @rule(process=processes)
    def start_anew(self, process):
        self.processes[process] = Process(self.store())

    @rule()
    def lose_the_log(self):
        self.lose()
        self.is_lossy = True

    def is_invalid(self, body):
        """Whether what was asked for then has been invalidated since."""
        asked, response = self.asked[body]
        return any(moment > asked and concerns(record, response) for moment, record in self.invalidated)


class InMemory(SharedCache):
    def __init__(self):
        super().__init__()
        self.logged = LoggedStore(max_lag_us=self.lag_us)
        self.logged.most = 6

    def store(self):
        return self.logged

    def lose(self):
        self.logged.forget()
        self.logged.values.clear()


class WithLag(InMemory):
    lag_us = SECOND


class InFile(SharedCache):
    def __init__(self):
        super().__init__()
        self.home = TemporaryDirectory()
        self.path = Path(self.home.name) / "cache"

    def store(self):
        return FileResponses(self.path, name="shop", max_bytes=4 << 20, deadline_ms=20_000)

    def lose(self):
        self.path.unlink(missing_ok=True)
        self.now_us += SECOND  # by when everybody has noticed

    def teardown(self):
        self.home.cleanup()


@pytest.mark.parametrize("machine", [InMemory, WithLag, InFile], ids=lambda machine: machine.__name__)
def test_nobody_finds_what_was_invalidated_after_it_was_asked_for(machine):
    run_state_machine_as_test(machine, settings=UNHURRIED)
