"""`lint --connect`: a store that nobody answers at, or that refuses, is found before a request is served without it."""

import asyncio

import pytest

from apigate import Gateway, ProtocolError, ResponseCache
from apigate.cli import main
from tests.outages import WAYS, FailingStore
from tests.servers import reserved_port

PATIENT = "deadline_ms=5000"


@pytest.fixture
def nobody():
    """The address of a port that is taken, at which nobody listens."""
    port, holders = reserved_port()
    yield f"127.0.0.1:{port}"
    for holder in holders:
        holder.close()


def found(gateway):
    return [(finding.setting, finding.check) for finding in gateway.lint(connect=True)]


def gateway(store, **settings):
    return Gateway(
        **{"name": "shop", "store": store, "workers": 1, "client_throttle": "10/second", "cors": None, **settings}
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_fails_is_found_where_it_is_asked(way):
    store = FailingStore(way)
    gate = gateway(store)
    assert found(gate) == []
    store.fail()
    assert gate.lint() == []
    assert found(gate) == [("store", "store-unreachable")]


def test_memory_is_not_asked():
    assert found(Gateway(client_throttle="10/second", cors=None)) == []


def test_an_event_loop_is_not_held_up():
    async def ask():
        gateway(FailingStore()).lint(connect=True)

    with pytest.raises(ProtocolError, match="to_thread"):
        asyncio.run(ask())


def test_what_a_cache_alone_shares_is_asked_too(nobody, redis_server):
    cache = ResponseCache(shared=f"redis://{nobody}?{PATIENT}", policy=60)
    assert found(gateway(f"{redis_server.uri}?{PATIENT}", cache=cache)) == [
        ("stages.default.cache.shared", "store-unreachable")
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("redis://", "redis://:hunter2@"), "AuthenticationError: "),
        (("/0", "/99"), "DB index is out of range"),
    ],
    ids=["password", "database"],
)
def test_the_command_exits_with_1_and_names_what_the_server_said(change, told, redis_server, tmp_path, capsys):
    file = tmp_path / "apigate.toml"
    written = f'name = "shop"\nstore = "{redis_server.uri.removesuffix("/0")}/0?{PATIENT}"\nworkers = 1\n'
    file.write_text(written)
    assert main(["lint", "--connect", str(file)]) == 0
    file.write_text(written.replace(*change))
    assert main(["lint", str(file)]) == 0
    capsys.readouterr()
    assert main(["lint", "--connect", str(file)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("store: <RedisStore redis://")
    assert told in out
    assert "hunter2" not in out


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_a_sentinel_that_cannot_be_asked_is_named_by_its_address_alone(library, nobody):
    (finding,) = gateway(f"{library}+sentinel://:hunter2@{nobody}/mymaster?{PATIENT}").lint(connect=True)
    assert f"(MasterNotFoundError: No master found for 'mymaster' : {nobody} - " in finding.message
    assert "<" not in finding.message.partition("(")[2]
