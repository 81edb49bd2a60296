"""Token buckets in Redis or Valkey: one limit for all processes of all machines.

Rule: one round trip decides all levels of a request, by the server's clock, in one script that takes every token or
none. The same script and the same arithmetic serve threads and tasks: where an event loop runs in the calling thread
the answers have to be awaited, elsewhere they are there at once. What is done is written once, as generators that yield
what they have to ask the server.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import add
from struct import pack
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar, cast, final

from apigate.core.errors import ConfigurationError, StoreError
from apigate.core.forks import renew_after_fork
from apigate.core.loops import running_loop
from apigate.stores.deadline import DEFAULT_DEADLINE_MS, checked_deadline_ms
from apigate.stores.redis_connection import Command, Connections, load_script
from apigate.stores.redis_denials import Denials
from apigate.stores.redis_leases import Leases, Taking
from apigate.stores.redis_names import named, parts, pattern, tag
from apigate.stores.redis_windows import RedisWindows
from apigate.throttling.algorithms import judged
from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["RedisBuckets", "RedisStore"]

_T = TypeVar("_T")
_LARGEST_LEASE = 10_000
_TEXTS = 256
_ENDLESS = 2**53  # tokens: more than any bucket holds, and what a double can tell from one more
_KINDS = {"acquire": 0, "peek": 1, "adjust": 2}


class _Trip(NamedTuple):
    """A command, what decides its slot in a cluster, the time (empty for the server's own), and the places it is of."""

    slot: bytes
    command: Command
    now: bytes
    places: Sequence[int]


_Steps: TypeAlias = Generator[_Trip, list[int], _T]
"""What an operation asks the server, what it is told, and what comes of it."""


@final
class RedisStore:
    """Buckets in Redis or Valkey, shared by all processes that have its address.

    Args:
        uri: `redis://`, `rediss://`, `redis+unix://`, `redis+cluster://`, `redis+sentinel://` with what follows, or the
            same with `valkey`, as the `limits` package takes them.
        deadline_ms: Milliseconds within which the server has to answer, a whole number from 1 to 60,000, making a
            connection included where one is needed. Past that the call is given up with a `StoreTimeoutError`.
        lease: How many tokens a process takes at once, 1 to 10,000; with more than 1 it asks the server less often,
            and a level may admit `lease - 1` tokens more for each process in an interval, see `Decision.tolerance`.
        spread: In a cluster, whether the buckets of each client lie in a slot of their own. Then the load is spread
            over the nodes, and a request asks two of them; if the second refuses, what the first gave is given back.
            Otherwise all buckets of a gateway lie in one slot, and one node decides all of them at once.
        denial_cache: Whether refusals are remembered for up to a second, so that a flood does not reach the server.
        server_time: Whether the server's clock counts. Tests turn it off, to go by the clock of the gateway.

    Raises:
        ConfigurationError: A setting cannot be used, or the client library is not installed.
    """

    shared = True

    def __init__(
        self,
        uri: str,
        *,
        deadline_ms: int = DEFAULT_DEADLINE_MS,
        lease: int = 1,
        spread: bool = False,
        denial_cache: bool = True,
        server_time: bool = True,
    ) -> None:
        """Check the settings; the server is asked first when a bucket is."""
        if not isinstance(lease, int) or isinstance(lease, bool) or not 1 <= lease <= _LARGEST_LEASE:
            raise ConfigurationError(f"RedisStore lease: {lease!r} is not a whole number from 1 to {_LARGEST_LEASE:,}")
        self.connections: Connections = Connections(uri, checked_deadline_ms(deadline_ms, "RedisStore"))
        if spread and not self.connections.is_cluster:
            raise ConfigurationError(
                f"RedisStore spread: {self.connections.shown!r} is no cluster, so there is nothing to spread over"
            )
        self._windows = RedisWindows(self.connections, spread=spread, server_time=server_time)
        self.spread: bool = spread
        self.server_time: bool = server_time
        self._lease = lease
        self._remembers = denial_cache
        self.renew()
        renew_after_fork(self)
        self.limits: dict[str, Limit] = {}
        self.generation: int = 0  # counts changes of rates: buckets opened before then leave it to others with the new

    def renew(self) -> None:
        """Know and hold nothing: tokens in the hand of a process are not those of one that was forked off, too."""
        self.denials: Denials | None = Denials() if self._remembers else None
        self.leases: Leases | None = Leases(self._lease) if self._lease > 1 else None

    def open(self, limits: Sequence[Limit], now: int) -> "RedisBuckets":  # noqa: ARG002 - each bucket is changed when used
        """The buckets of these limits; those that had another rate are brought over when they are next used."""
        for limit in limits:
            known = self.limits.get(limit.name)
            if known is not None and not known.steady:
                limit = limit.unsteady()  # noqa: PLW2901 - others may give back to these buckets, from where they know it
            self.limits[limit.name] = limit
            if known is not None and _terms(known) != _terms(limit):
                self.generation += 1
                self.forget()
        return RedisBuckets(self, [limit.name for limit in limits])

    def windows(self) -> RedisWindows:
        """The windows that are counted beside the buckets."""
        return self._windows

    def forget(self) -> None:
        """Let go of what this process knows or holds of any bucket."""
        if self.denials is not None:
            self.denials.clear()
        if self.leases is not None:
            self.leases.clear()

    def close(self) -> None:
        """Close the connections of this process's threads; they are made anew where they are needed again."""
        self.connections.close()

    async def close_async(self) -> None:
        """Close the connections of this process's threads and of the running event loop."""
        await self.connections.close_async()

    def __repr__(self) -> str:
        """The address, without what is secret."""
        return f"<RedisStore {self.connections.shown}>"


@final
class RedisBuckets:
    """The buckets of some limits in a `RedisStore`."""

    def __init__(self, store: RedisStore, names: Sequence[str]) -> None:
        """Work out what the server is told about the limits, once: what is under way when a rate changes keeps it."""
        self._store = store
        self._names = names
        self._newer: RedisBuckets | None = None
        self.generation: int = store.generation
        self._limits = tuple(store.limits[name] for name in names)
        self._places = tuple(range(len(self._limits)))
        self._specs = tuple((limit.n, limit.p, limit.capacity, limit.enforced) for limit in self._limits)
        self._parts = tuple(parts(name, spread=store.spread) for name in names)
        self._script = load_script("redis_buckets.lua")
        self._is_leased = store.leases is not None and all(limit.enforced for limit in self._limits)
        self._texts: dict[object, bytes] = {}

    def _changed(self) -> "RedisBuckets":
        """The same buckets, under rates that have changed since these were opened."""
        newer = self._newer
        if newer is None or newer.generation != self._store.generation:
            newer = self._newer = RedisBuckets(self._store, self._names)
        return newer

    # ---- the four operations

    def acquire(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, patience: int = 0
    ) -> Decision | Awaitable[Decision]:
        """Take the costs from every bucket or from none."""
        store = self._store
        if self.generation != store.generation:
            return self._changed().acquire(keys, costs, now, patience)
        if store.denials is not None and not patience:
            known = store.denials.find(self._limits, keys, costs, now)
            if known is not None:
                return known
        leases = store.leases
        if leases is None or patience or not self._is_leased:
            return self._asked(_Asking("acquire", self._places, keys, costs, patience), now)
        taking = leases.take(tuple(zip(self._limits, keys, strict=True)), costs, now)
        if None in taking.wanted:
            late = partial(self._gain_late, keys, costs, now, leases)
            return self._run(self._leased(keys, costs, now, leases, taking), late)
        decision = judged(self._limits, costs, [wanted or 0 for wanted in taking.wanted], allowed=True)
        decision.tolerance = leases.tolerance
        return decision

    def peek(self, keys: Sequence[Key], costs: Sequence[int], now: int) -> Decision | Awaitable[Decision]:
        """What `acquire` would answer, taking nothing. Tokens that processes have taken ahead count as taken."""
        if self.generation != self._store.generation:
            return self._changed().peek(keys, costs, now)
        return self._asked(_Asking("peek", self._places, keys, costs), now)

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], now: int) -> Awaitable[None] | None:
        """Take more tokens or give some back without asking."""
        if self.generation != self._store.generation:
            return self._changed().adjust(keys, tokens, now)
        if self._store.denials is not None:
            self._store.denials.forget(self._limits, keys)
        return self._run(self._adjusted(self._places, keys, tokens, now))

    def reset(self, keys: Sequence[Key | None] | None = None) -> Awaitable[None] | None:
        """Forget these buckets, or every bucket of the limits; other processes may refuse for up to a second more."""
        store = self._store
        if keys is None:
            store.forget()
            return self._deleted([], [pattern(around) for around in self._parts])
        if store.denials is not None:
            store.denials.forget(self._limits, keys)
        if store.leases is not None:
            store.leases.drop(tuple(zip(self._limits, keys, strict=True)))
        return self._deleted([self._key(place, key) for place, key in enumerate(keys) if key is not None], [])

    # ---- one command for all buckets, as most requests need it: written out, as the steps below cost 3 us more

    def _asked(self, asking: "_Asking", now: int) -> Decision | Awaitable[Decision]:
        """Ask every bucket: by one command where one server has them all."""
        connections = self._store.connections
        if connections.is_cluster or not self._places:
            return self._run(self._acquired(asking, now))
        keys, text = list(map(named, self._parts, asking.keys)), self._text(asking.kind, self._places, asking)
        command, loop = Command(asking.kind, self._script, keys, text), running_loop()
        if loop is not None:
            return self._asked_async(asking, command, now, loop)
        connections.begin()
        return self._heard(asking, connections.call(command, self._time(now)), now)

    async def _asked_async(self, asking: "_Asking", command: Command, now: int, loop: "AbstractEventLoop") -> Decision:
        """`_asked` for tasks."""
        line = self._store.connections.line(loop)
        return self._heard(asking, await line.ask(command, self._time(now), b"", loop.time()), now)

    def _heard(self, asking: "_Asking", told: Sequence[int], now: int) -> Decision:
        """The decision behind what the server has told: the verdict, and two numbers for each bucket."""
        wanted = [
            owed + cost * limit.p for owed, cost, limit in zip(told[1::2], asking.costs, self._limits, strict=True)
        ]
        return self._decision(asking, wanted, allowed=told[0] == 1, trips=1, now=now)

    # ---- what they ask, written once for threads and tasks

    def _acquired(self, asking: "_Asking", now: int) -> _Steps[Decision]:
        """Ask every bucket."""
        answer = yield from self._answered(asking, now)
        return self._decision(asking, answer.wanted, allowed=answer.allowed, trips=answer.trips, now=now)

    def _leased(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, leases: Leases, taking: Taking
    ) -> _Steps[Decision]:
        """Ask the buckets of which not enough was in hand, for more than is needed."""
        buckets = tuple(zip(self._limits, keys, strict=True))
        places = [place for place in self._places if taking.wanted[place] is None]
        asking = _Asking("acquire", places, keys, costs, ahead=taking.ahead)
        try:
            if any(taking.back):
                yield from self._adjusted(self._places, keys, [-tokens for tokens in taking.back], now)
            answer = yield from self._answered(asking, now)
        except BaseException:
            leases.settle(buckets, costs, taking, now, None)
            raise
        more = [came * limit.p for came, limit in zip(answer.came, self._limits, strict=True)]
        given = list(zip(map(add, answer.wanted, more), answer.came, strict=True))
        leases.settle(buckets, costs, taking, now, given if answer.allowed else None)
        for place, wanted in enumerate(taking.wanted):
            if wanted is not None:
                answer.wanted[place] = wanted
        decision = self._decision(asking, answer.wanted, allowed=answer.allowed, trips=answer.trips, now=now)
        decision.tolerance = leases.tolerance
        return decision

    def _gain_late(
        self, keys: Sequence[Key], costs: Sequence[int], now: int, leases: Leases, trip: _Trip, told: Sequence[int]
    ) -> None:
        """Take in hand what was taken for a request that was given up before it was answered."""
        if trip.command.operation == "acquire" and told[0] == 1:
            for place, owed, came in zip(trip.places, told[1::2], told[2::2], strict=True):
                limit, tokens = self._limits[place], costs[place] + came
                leases.gain((limit, keys[place]), tokens, owed + tokens * limit.p, now)

    def _answered(self, asking: "_Asking", now: int) -> _Steps["_Answer"]:
        """Ask the buckets at some places: all at once; in a cluster, one slot after the other.

        Where a slot refuses, what those before it gave is given back, and those after it are only looked at.
        """
        answer = _Answer([cost * limit.p for cost, limit in zip(asking.costs, self._limits, strict=True)])
        kind = asking.kind
        taken: list[Sequence[int]] = []
        for slot, places in self._slots(asking.places, asking.keys):
            text = self._text(kind, places, asking)
            try:
                verdict, *numbers = yield self._trip(kind, slot, places, text, asking.keys, now)
            except StoreError:
                with suppress(StoreError):
                    yield from self._given_back(taken, asking, answer, now)
                raise
            answer.trips += 1
            for place, owed, came in zip(places, numbers[::2], numbers[1::2], strict=True):
                answer.wanted[place] += owed
                answer.came[place] = came
            answer.allowed = answer.allowed and verdict == 1
            if kind == "acquire" and verdict == 1:
                taken.append(places)
            elif kind == "acquire":
                kind = "peek"
        if not answer.allowed and taken:
            yield from self._given_back(taken, asking, answer, now)
        return answer

    def _given_back(
        self, taken: Sequence[Sequence[int]], asking: "_Asking", answer: "_Answer", now: int
    ) -> _Steps[None]:
        """Return what some slots gave."""
        for places in taken:
            tokens = [0] * len(asking.costs)
            for place in places:
                limit = self._limits[place]
                if limit.enforced or answer.wanted[place] <= limit.capacity:
                    tokens[place] = -asking.costs[place] - answer.came[place]
            answer.trips += 1
            yield from self._adjusted(places, asking.keys, tokens, now)

    def _adjusted(self, places: Sequence[int], keys: Sequence[Key], tokens: Sequence[int], now: int) -> _Steps[None]:
        """Take or give without asking, where there is anything to."""
        changed = [place for place in places if tokens[place]]
        for slot, group in self._slots(changed, keys):
            text = self._text("adjust", group, _Asking("adjust", group, keys, tokens))
            yield self._trip("adjust", slot, group, text, keys, now)

    def _decision(self, asking: "_Asking", wanted: Sequence[int], *, allowed: bool, trips: int, now: int) -> Decision:
        decision = judged(self._limits, asking.costs, wanted, allowed=allowed)
        decision.round_trips = trips
        if asking.kind == "acquire" and self._store.denials is not None:
            self._store.denials.note(decision, asking.keys, now)
        return decision

    # ---- how it is said

    def _slots(self, places: Sequence[int], keys: Sequence[Key]) -> Sequence[tuple[bytes, Sequence[int]]]:
        """The places by slot; in a cluster those of clients first, as they refuse most often."""
        if not self._store.connections.is_cluster:
            return ((b"", places),) if places else ()
        slots: dict[bytes, list[int]] = {}
        for place in reversed(places):
            slots.setdefault(tag(self._key(place, keys[place])), []).append(place)
        return tuple(slots.items())

    def _text(self, kind: str, places: Sequence[int], asking: "_Asking") -> bytes:
        """A command, as the script reads it; those that come again and again are kept."""
        costs, patience, ahead = asking.costs, asking.patience, asking.ahead
        known = (kind, tuple(places), tuple(costs), patience, tuple(ahead))
        text = self._texts.get(known)
        if text is None:
            asked = [
                (*self._specs[place], max(-_ENDLESS, min(costs[place], _ENDLESS)), ahead[place] if ahead else 0)
                for place in places
            ]
            text = pack(f">{2 + 6 * len(asked)}d", _KINDS[kind], patience, *chain.from_iterable(asked))
            if len(self._texts) >= _TEXTS:
                self._texts.clear()
            self._texts[known] = text
        return text

    def _trip(self, kind: str, slot: bytes, places: Sequence[int], text: bytes, keys: Sequence[Key], now: int) -> _Trip:
        command = Command(kind, self._script, [self._key(place, keys[place]) for place in places], text)
        return _Trip(slot, command, self._time(now), places)

    def _time(self, now: int) -> bytes:
        """The time, as the script reads it."""
        return b"" if self._store.server_time else b"%d" % now

    def _key(self, place: int, key: Key) -> bytes:
        """The name of a bucket on the server."""
        return named(self._parts[place], key)

    # ---- asking

    def _run(self, steps: _Steps[_T], late: Callable[[_Trip, Sequence[int]], None] | None = None) -> _T | Awaitable[_T]:
        """Carry the steps out: at once, or where an event loop runs in this thread as something to await.

        Not by `core.steps`, which would send before anybody awaits, and knows no deadline.

        Args:
            steps: The steps.
            late: Told what was answered after whoever awaited it had given up.
        """
        try:
            trip = next(steps)
            loop = running_loop()
            if loop is not None:
                return self._run_async(steps, trip, loop, late)
            connections = self._store.connections
            connections.begin()
            while True:
                try:
                    told = connections.call(trip.command, trip.now)
                except StoreError as error:
                    connections.begin()  # for what has to be given back
                    trip = steps.throw(error)
                else:
                    trip = steps.send(told)
        except StopIteration as done:
            return cast("_T", done.value)

    async def _run_async(
        self,
        steps: _Steps[_T],
        trip: _Trip,
        loop: "AbstractEventLoop",
        late: Callable[[_Trip, Sequence[int]], None] | None,
    ) -> _T:
        """`_run` for tasks. The steps have begun, so that they end properly even where nobody ever awaits this."""
        line = self._store.connections.line(loop)
        since = loop.time()
        try:
            while True:
                asked = line.ask(trip.command, trip.now, trip.slot, since)
                try:
                    told = await (asked if late is None else _heard_late(asked, partial(late, trip)))
                except StoreError as error:
                    since = loop.time()  # for what has to be given back
                    trip = steps.throw(error)
                else:
                    trip = steps.send(told)
        except StopIteration as done:
            return cast("_T", done.value)
        finally:
            steps.close()

    def _deleted(self, keys: list[bytes], patterns: list[bytes]) -> Awaitable[None] | None:
        """Delete keys, and all that the patterns match."""
        loop = running_loop()
        connections = self._store.connections
        if loop is not None:
            return connections.line(loop).delete(keys, patterns)
        connections.delete(keys, patterns)
        return None


async def _heard_late(asked: "Future[list[int]]", late: Callable[[Sequence[int]], None]) -> list[int]:
    """The answer; where whoever awaits it gives up, somebody else is told of it."""
    from asyncio import CancelledError, shield

    def hear(answered: "Future[list[int]]") -> None:
        if not answered.cancelled() and answered.exception() is None:
            late(answered.result())

    try:
        return await shield(asked)
    except CancelledError:
        asked.add_done_callback(hear)
        raise


class _Asking(NamedTuple):
    """What some buckets are asked: all lists are as long as the limits, and hold where `places` says."""

    kind: str
    places: Sequence[int]
    keys: Sequence[Key]
    costs: Sequence[int]
    patience: int = 0
    ahead: Sequence[int] = ()


class _Answer:
    """What came of it: what each bucket would be owed, in tokens times its `p`, and the tokens that came ahead."""

    def __init__(self, wanted: list[int]) -> None:
        self.wanted = wanted
        self.came = [0] * len(wanted)
        self.allowed = True
        self.trips = 0


def _terms(limit: Limit) -> tuple[int, int, int, bool, bool]:
    """What decides about its buckets, and about what is known of them."""
    return limit.n, limit.p, limit.capacity, limit.enforced, limit.steady
