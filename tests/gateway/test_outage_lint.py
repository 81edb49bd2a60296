"""What `lint` says of outages: that a share is the whole limit, as nobody told of how many processes, and the like."""

import pytest

from apigate import Gateway, Rate
from tests.gateway.asking import built
from tests.outages import FailingStore

SERVER = "gunicorn.arbiter"


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)


def shared(**settings):
    return Gateway(**{"client_throttle": Rate(10), "store": FailingStore(), "name": "shop", "cors": None, **settings})


def found(gateway):
    return [(finding.setting, finding.check) for finding in gateway.lint()]


MULTIPLIED = [("workers", "multiplied-in-outage")]


def test_a_share_that_is_the_whole_limit_is_found_and_named():
    (finding,) = shared(throttle=Rate(100), outage={"global": "open"}).lint()
    assert str(finding) == (
        "workers: while the store cannot be reached, each process admits the whole limit at the levels client, as "
        "nobody says how many processes share it; set workers= to their number over all hosts, 1 if there is one, or "
        "another outage= for these levels [multiplied-in-outage]"
    )


NOTHING_MULTIPLIED = {
    "it was said": {"workers": 4},
    "it was said that there is one": {"workers": 1},
    "no level has shares": {"outage": "closed"},
    "the level has none": {"outage": {"client": "open"}},
    "nothing is refused": {"modes": {"client": "shadow"}},
    "nothing is limited": {"client_throttle": None},
}


@pytest.mark.parametrize("settings", NOTHING_MULTIPLIED.values(), ids=NOTHING_MULTIPLIED)
def test_nothing_is_found_where_nothing_is_multiplied(settings):
    assert found(shared(**settings)) == []


@pytest.mark.parametrize("environment", [("WEB_CONCURRENCY", "1"), ("GUNICORN_CMD_ARGS", "-w 3")], ids=str)
def test_what_the_environment_asks_for_is_said(environment, monkeypatch):
    gateway = shared()
    assert found(gateway) == MULTIPLIED
    monkeypatch.setenv(*environment)
    assert found(gateway) == found(shared()) == []


def test_decorated_functions_are_multiplied_too():
    gateway = shared(client_throttle=None)
    gateway.throttle(Rate(10), key=lambda name: name)(lambda name: name)
    assert found(gateway) == MULTIPLIED


def within(module, function, **known):
    """A gateway that is built while a function of another program runs."""
    space = {"__name__": module, "shared": shared, "known": known}
    exec(f"def {function}({', '.join(known)}):\n return shared()\ngateway = {function}(**known)", space)
    return space["gateway"]


class Arbiter:
    def __init__(self, workers):
        self.num_workers = workers


def test_the_workers_that_a_server_runs_share_the_limit():
    gateway = within(SERVER, "spawn_worker", self=Arbiter(4))
    assert gateway.store.workers == 4
    assert found(gateway) == []


def test_the_one_worker_of_a_server_is_no_word_on_other_hosts(monkeypatch):
    assert found(within(SERVER, "spawn_worker", self=Arbiter(1))) == MULTIPLIED
    assert found(within("apigate.cli", "main")) == MULTIPLIED
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert within(SERVER, "spawn_worker", self=Arbiter(1)).store.workers is None
    assert found(within("apigate.cli", "main")) == []


def test_a_number_that_is_set_goes_before_that_of_the_running_server():
    space = {"__name__": SERVER, "shared": shared, "self": Arbiter(4)}
    exec("def spawn_worker(self):\n return shared(workers=12)\ngateway = spawn_worker(self)", space)
    assert space["gateway"].store.workers == 12


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"outage": "closed"}, ["outage"]),
        ({"outage": {"client": "open"}}, ["outage"]),
        ({"workers": 4}, ["workers"]),
        ({"outage": "open", "workers": 1}, ["outage", "workers"]),
        ({"outage": "local"}, []),
        ({}, []),
    ],
    ids=str,
)
def test_what_is_set_for_outages_has_no_effect_in_memory(settings, named):
    gateway = built(client_throttle=Rate(10), cors=None, **settings)
    assert found(gateway) == [(setting, "without-effect") for setting in named]
    for finding in gateway.lint():
        assert "no effect, as memory has no outages" in finding.message
    assert found(shared(workers=2, outage="closed")) == []
