"""What every store of token buckets promises, as tests that any implementation runs.

Rule: the contract knows no implementation. It speaks to `open`, `acquire`, `peek`, `adjust` and `reset` alone, takes an
answer or an awaitable of it, and hands in every time itself, so it neither sleeps nor reads a clock.
"""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast, final

from apigate.throttling.decision import Decision
from apigate.throttling.keys import Key
from apigate.throttling.limit import Limit, Mode, limits_of
from apigate.throttling.rate import parse_rates
from apigate.throttling.store import Buckets, ThrottleStore

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["ThrottleStoreContract"]

T = TypeVar("T")

_START_US = 1_000_000_000_000
_HOUR = 3_600


class ThrottleStoreContract:
    """Derive a test class from it, and say how an empty store is made; pytest finds the tests.

    A store that goes by a clock of its own (a server's) must be made so that it goes by the `now` it is handed. What
    has to be awaited is awaited on one event loop for each test.

    >>> from apigate.stores.memory import MemoryStore
    >>> class TestMemoryStore(ThrottleStoreContract):
    ...     def make_store(self):
    ...         return MemoryStore()
    """

    _loop: "AbstractEventLoop | None" = None

    def make_store(self) -> ThrottleStore:
        """A new store with no buckets in it."""
        raise NotImplementedError("derive a class from ThrottleStoreContract, and let its make_store make your store")

    def teardown_method(self) -> None:
        """Close the event loop, if there was need of one; extend it to close your store before that."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def answer(self, answer: T | Awaitable[T]) -> T:
        """The answer itself, waited for where it has to be."""
        if isinstance(answer, Awaitable):
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
            answer = self._loop.run_until_complete(_awaited(cast("Awaitable[T]", answer)))
        return answer

    # ---- rate and burst

    def test_admits_a_burst_and_no_more(self) -> None:
        """A fresh bucket is full."""
        opened = self._open("2/minute; burst=3")
        _same([opened.admits("a") for _ in range(5)], [True, True, True, False, False], "five at once of a burst of 3")

    def test_admits_again_exactly_when_it_said(self) -> None:
        """Three tokens flow back in 10 s: a third of 10 s is no whole number of microseconds."""
        opened = self._open("3/10 second; burst=1")
        opened.take("a")
        wait = opened.refused("a").wait_us
        _same(wait, 3_333_334, "the wait in microseconds, rounded up")
        opened.refused("a", at=3.333333)
        opened.take("a", at=3.333334)

    def test_refills_up_to_the_burst_however_long_it_was_idle(self) -> None:
        """A bucket never holds more than its burst."""
        opened = self._open("100/second; burst=2")
        opened.take("a", cost=2)
        later = 365 * 24 * _HOUR
        _same([opened.admits("a", at=later) for _ in range(3)], [True, True, False], "three after an idle year")

    def test_takes_what_a_request_costs(self) -> None:
        """Cost is counted in tokens, and asked for as a whole."""
        opened = self._open("1/second; burst=10")
        _same(opened.remaining("a", cost=7), [3], "left of 10 after 7")
        opened.refused("a", cost=4)
        opened.take("a", cost=3)

    def test_costs_nothing_where_the_cost_is_0(self) -> None:
        """It is admitted by an empty bucket too."""
        opened = self._open("1/minute")
        opened.take("a")
        _same([opened.admits("a", cost=0) for _ in range(3)], [True, True, True], "what costs nothing")
        _same(opened.refused("a").wait_us, 60_000_000, "the wait after that")

    def test_says_never_where_the_cost_is_above_the_burst(self) -> None:
        """Waiting cannot help, so there is no time to wait."""
        opened = self._open("1/second; burst=10")
        _same(opened.refused("a", cost=11).retry_after, None, "when 11 of a burst of 10 can be had")
        opened.take("a", cost=10)

    # ---- all or nothing

    def test_takes_at_every_level_or_at_none(self) -> None:
        """A narrow limit that refuses must not drain the broad ones, wherever it stands."""
        for narrow in (0, 1, 2):
            opened = self._open(*("1/hour" if place == narrow else "100/hour" for place in range(3)))
            decisions = [opened.acquire(["a", "a", "a"]).allowed for _ in range(50)]
            _same(decisions.count(True), 1, f"admitted of 50 with the narrow limit at place {narrow}")
            left = opened.peek(["a", "a", "a"], cost=0).buckets
            _same([state.remaining for state in left], [0 if place == narrow else 99 for place in range(3)], "left")

    def test_a_refusal_leaves_every_bucket_as_it_was(self) -> None:
        """Whoever keeps asking does not wait longer for it."""
        opened = self._open("1/minute", "5/minute")
        opened.take("a", "b")
        for second in range(60):
            opened.refused("a", "b", at=second)
        opened.take("a", "b", at=60)

    def test_a_refusal_names_the_limits_that_refused_and_the_longest_wait(self) -> None:
        """Also those that refused beside another one, not those that had enough."""
        opened = self._open("1/minute", "10/minute", "1/hour")
        opened.take("a", "a", "a")
        refused = opened.refused("a", "a", "a")
        _same(refused.violated, ("level-0", "level-2"), "what refused")
        _same(refused.retry_after, 3_600.0, "the longer of two waits")

    def test_the_order_of_the_levels_changes_nothing(self) -> None:
        """The same trace, asked in both orders."""
        rates = ("3/minute; burst=2", "5/minute; burst=4")
        forth, back = self._open(*rates), self._open(*rates[::-1])
        trace = [(0.0, 1), (0.0, 2), (7.5, 1), (20.0, 2), (20.0, 1), (41.0, 2), (41.5, 1), (300.0, 3)]
        for at, cost in trace:
            decisions = forth.acquire(["a", "a"], cost, at), back.acquire(["a", "a"], cost, at)
            _same(decisions[0].allowed, decisions[1].allowed, f"admitted at {at} s")
            _same(decisions[0].wait_us, decisions[1].wait_us, f"the wait at {at} s")

    # ---- whose bucket

    def test_keeps_keys_apart(self) -> None:
        """Whoever uses up their own takes nothing from others: texts, digests, and the one bucket that all share."""
        opened = self._open("1/minute")
        keys: tuple[Key, ...] = ("a", "b", "a ", "A", "ab", b"a", b"0123456789abcdef", "0123456789abcdef", "")
        _same([opened.admits(key) for key in keys], [True] * len(keys), f"the first of each of {keys}")
        _same([opened.admits(key) for key in keys], [False] * len(keys), f"the second of each of {keys}")

    def test_limits_of_one_name_share_buckets_and_others_do_not(self) -> None:
        """A name is what a bucket is kept under."""
        store = self.make_store()
        first, same, other = (
            _Opened(self, store, _limits(rate="1/minute", name=name)) for name in ("one", "one", "other")
        )
        first.take("a")
        same.refused("a")
        other.take("a")

    def test_some_limits_of_many_can_be_asked(self) -> None:
        """Two methods share the bucket of their stage, and have one of their own."""
        store = self.make_store()
        stage, one, other = (_limits(rate="3/minute", name=name) for name in ("stage", "one", "other"))
        first, second = _Opened(self, store, stage + one), _Opened(self, store, stage + other)
        first.take("", "")
        _same(second.remaining("", ""), [1, 2], "left of the stage's and of the other's own")

    # ---- looking, giving back, forgetting

    def test_peek_takes_nothing(self) -> None:
        """It answers what `acquire` would, as often as it is asked."""
        opened = self._open("2/minute")
        opened.take("a")
        _same([opened.peek(["a"]).allowed for _ in range(3)], [True] * 3, "a look at one that is left")
        _same([opened.peek(["a"], cost=2).wait_us for _ in range(3)], [30_000_000] * 3, "a look at two")
        opened.take("a")
        _same([opened.peek(["a"]).allowed for _ in range(3)], [False] * 3, "a look at none that is left")

    def test_gives_back_what_was_taken(self) -> None:
        """At the levels it is told, at once."""
        opened = self._open("2/minute", "2/minute")
        opened.take("a", "a", cost=2)
        opened.adjust(["a", "a"], [-2, -1])
        _same(opened.remaining("a", "a", cost=0), [2, 1], "left after a refund of 2 and of 1")

    def test_settles_several_keys_of_one_limit_at_once(self) -> None:
        """The limit is opened once for each of them."""
        store = self.make_store()
        limits = _limits(rate="1/minute; burst=9")
        opened = _Opened(self, store, limits)
        opened.take("a")
        several = _Opened(self, store, limits * 3)
        several.adjust(["a", "b", "c"], [-1, 2, 3])
        _same([opened.remaining(key, cost=0) for key in "abc"], [[9], [7], [6]], "left of 9 of each of three keys")

    def test_gives_nothing_back_to_a_full_bucket(self) -> None:
        """A refund never makes more than a burst of it."""
        opened = self._open("1/minute; burst=3")
        opened.take("a")
        opened.adjust(["a"], [-3])
        opened.adjust(["nobody"], [-3])
        for key in ("a", "nobody"):
            _same([opened.admits(key) for _ in range(4)], [True, True, True, False], f"four of {key!r}, burst 3")

    def test_takes_more_than_there_is_where_it_is_told(self) -> None:
        """What turned out dearer leaves a debt, which time pays off."""
        opened = self._open("1/second; burst=5")
        opened.take("a")
        opened.adjust(["a"], [7])
        _same(opened.refused("a").wait_us, 4_000_000, "the wait with a debt of 3")
        opened.take("a", at=4)

    def test_a_debt_is_at_most_one_burst(self) -> None:
        """However dear it was, one's turn comes."""
        opened = self._open("1/second; burst=5")
        opened.adjust(["a"], [1_000_000])
        opened.adjust(["a"], [1_000_000])
        _same(opened.refused("a").wait_us, 6_000_000, "the wait with the largest debt")

    def test_forgets_the_bucket_it_is_told(self) -> None:
        """And no other one: limits whose key is None are left out."""
        opened = self._open("1/minute", "5/minute")
        opened.take("a", "a")
        opened.take("b", "b")
        opened.reset(["a", None])
        _same(opened.remaining("a", "a"), [0, 3], "left of the forgotten bucket and of the other limit's")
        opened.refused("b", "b")

    def test_forgets_every_bucket_of_its_limits(self) -> None:
        """But none of another limit in the same store."""
        store = self.make_store()
        mine, theirs = (_Opened(self, store, _limits(rate="1/minute", name=name)) for name in ("mine", "theirs"))
        for opened in (mine, theirs):
            opened.take("a")
            opened.take("b")
        mine.reset(None)
        _same([mine.admits("a"), mine.admits("b")], [True, True], "admitted after all was forgotten")
        theirs.refused("a")

    # ---- modes and changes

    def test_a_shadow_limit_refuses_nothing_and_says_what_it_would_have(self) -> None:
        """It stands beside one that is enforced."""
        opened = self._open("5/minute", shadow="1/minute")
        _same(opened.acquire(["a", "a"]).shadowed, (), "what the shadow would have refused at first")
        decision = opened.take("a", "a")
        _same([limit.level for limit in decision.shadowed], ["shadow"], "what would have refused")
        _same(decision.violated, (), "what refused")

    def test_a_shadow_limit_takes_only_what_it_has(self) -> None:
        """It counts as it would if it were enforced."""
        opened = self._open("50/minute", shadow="1/minute")
        for second in range(60):
            would_deny = opened.acquire(["a", "a"], at=second).shadowed
            _same(bool(would_deny), second > 0, f"whether it would have refused after {second} s")
        _same(opened.acquire(["a", "a"], at=60).shadowed, (), "what would have refused after 60 s")

    def test_a_refusal_takes_nothing_from_a_shadow_limit(self) -> None:
        """All or nothing holds for it too."""
        opened = self._open("1/minute", shadow="5/minute")
        opened.take("a", "a")
        for _ in range(9):
            opened.refused("a", "a")
        _same(opened.peek(["a", "a"], cost=0).buckets[1].remaining, 4, "left of the shadow limit")

    def test_a_changed_rate_keeps_what_is_owed(self) -> None:
        """For whoever opened the limit before, too."""
        store = self.make_store()
        before = _Opened(self, store, _limits(rate="10/minute; burst=10"))
        before.take("a", cost=6)
        after = _Opened(self, store, _limits(rate="10/second; burst=8"))
        _same(after.remaining("a", cost=0), [2], "left of 8 after 6")
        _same(before.remaining("a", cost=2), [0], "left of 8 for whoever opened it before")
        _same(after.refused("a").wait_us, 100_000, "the wait at the new rate")

    def test_a_look_sees_the_changed_rate(self) -> None:
        """For whoever opened the limit before, at once."""
        store = self.make_store()
        before = _Opened(self, store, _limits(rate="1/minute; burst=2"))
        before.take("a", cost=2)
        _Opened(self, store, _limits(rate="3/7 second; burst=2"))
        _same(before.peek(["a"]).wait_us, 2_333_334, "the wait at the new rate")

    def test_a_smaller_burst_cuts_what_is_owed(self) -> None:
        """Nobody waits longer than the new bucket takes to fill."""
        store = self.make_store()
        _Opened(self, store, _limits(rate="1/minute; burst=100")).take("a", cost=100)
        after = _Opened(self, store, _limits(rate="1/second; burst=3"))
        _same(after.refused("a", cost=3).wait_us, 3_000_000, "the wait for a whole new burst")

    def test_a_changed_rate_pays_off_until_then_at_the_old_one(self) -> None:
        """Half a minute at one a minute is half a token."""
        store = self.make_store()
        _Opened(self, store, _limits(rate="1/minute; burst=2")).take("a", cost=2)
        after = _Opened(self, store, _limits(rate="3/7 second; burst=2"), at=30)
        _same(after.refused("a", at=30).wait_us, 1_166_667, "the wait for half a token at 3 in 7 s")

    def test_the_same_rate_opened_again_changes_nothing(self) -> None:
        """As each worker that starts does."""
        store = self.make_store()
        before = _Opened(self, store, _limits(rate="1/minute; burst=2"))
        before.take("a", cost=2)
        after = _Opened(self, store, _limits(rate="1/minute; burst=2"), at=30)
        _same([after.admits("a", at=59.999999), after.admits("a", at=60)], [False, True], "the token of 60 s")

    # ---- waiting for one's turn

    def test_books_tokens_ahead_for_those_who_wait(self) -> None:
        """In the order they came, up to what each has patience for."""
        opened = self._open("1/second; burst=1")
        waits = [opened.acquire(["a"], patience=2.0).wait_us for _ in range(3)]
        _same(waits, [0, 1_000_000, 2_000_000], "the turns of three who have 2 s")
        opened.refused("a", patience=2.0)
        opened.refused("a", patience=2.999999)
        _same(opened.acquire(["a"], patience=3.0).wait_us, 3_000_000, "the turn of whoever has just enough patience")

    def test_nobody_overtakes_those_who_wait(self) -> None:
        """Tokens booked ahead are gone for who comes later without patience."""
        opened = self._open("1/second; burst=1")
        opened.take("a")
        opened.acquire(["a"], patience=5.0)
        opened.refused("a", at=1)
        opened.take("a", at=2)

    def test_gives_a_booked_turn_back(self) -> None:
        """Whoever stops waiting lets the next one in."""
        opened = self._open("1/second; burst=1")
        opened.take("a")
        opened.acquire(["a"], patience=5.0)
        opened.adjust(["a"], [-1])
        opened.take("a", at=1)

    def test_turns_of_others_stay_booked_when_one_is_given_back_or_turns_out_dearer(self) -> None:
        """The most that may be owed by settling does not cut what was booked ahead."""
        opened = self._open("1/second; burst=1")
        for _ in range(7):
            opened.acquire(["a"], patience=10.0)
        opened.adjust(["a"], [-1])
        _same(opened.refused("a").wait_us, 6_000_000, "the wait behind six, one of which is served")
        opened.adjust(["a"], [5])
        _same(opened.refused("a").wait_us, 6_000_000, "the wait where a debt of a burst is long exceeded")

    def test_patience_does_not_help_above_the_burst(self) -> None:
        """Never stays never."""
        opened = self._open("1/second; burst=2")
        _same(opened.acquire(["a"], cost=3, patience=3_600.0).retry_after, None, "when 3 of a burst of 2 can be had")

    def test_waits_for_every_level_or_books_none(self) -> None:
        """The level that takes too long keeps the others free."""
        opened = self._open("1/second; burst=1", "1/hour; burst=1")
        opened.take("a", "a")
        opened.refused("a", "a", patience=60.0)
        opened.take("a", "b", at=1)

    # ---- clocks that are wrong

    def test_heals_when_the_clock_was_set_back(self) -> None:
        """A bucket whose time lies in the future would freeze until then."""
        opened = self._open("3/minute; burst=3")
        opened.take("a", cost=3)
        opened.refused("a", at=-_HOUR)
        opened.refused("a", at=20 - _HOUR - 0.000001)
        opened.take("a", at=20 - _HOUR)

    def test_heals_every_level_of_a_refusal(self) -> None:
        """The narrow one refuses, the broad one's time lies in the future as well."""
        opened = self._open("1/minute", "60/hour; burst=2")
        opened.take("a", "a", cost=1)
        opened.refused("a", "a", at=-_HOUR)
        opened.take("a", "a", at=60 - _HOUR)

    def test_a_second_is_a_difference_between_clocks_and_more_is_a_clock_set_back(self) -> None:
        """The bucket keeps its time in the one case, and goes on from the new time in the other."""
        opened = self._open("1/minute")
        opened.take("a")
        opened.refused("a", at=-1)
        opened.refused("a", at=59.999999)
        opened.take("a", at=60)
        opened.refused("a", at=58.999999)
        opened.take("a", at=118.999999)

    def test_small_differences_between_clocks_earn_nothing(self) -> None:
        """Asking by turns with a clock half a second ahead and one half a second behind."""
        opened = self._open("3/minute; burst=3")
        moments = [second / 2 for second in range(599)]
        admitted = [opened.admits("a", at=at + (0.5 if index % 2 else -0.5)) for index, at in enumerate(moments)]
        _same(admitted.count(True), 17, "admitted in 299.5 s by the faster clock")

    # ---- how the tests speak to a store

    def _open(self, *rates: str, shadow: str | None = None) -> "_Opened":
        """A new store's buckets for one limit of each rate, and one in shadow mode behind them."""
        limits = [limit for number, rate in enumerate(rates) for limit in _limits(rate, f"level-{number}")]
        if shadow is not None:
            limits += _limits(shadow, "shadow", "shadow")
        return _Opened(self, self.make_store(), limits)


def _limits(rate: str, name: str = "level", mode: Mode = "enforce") -> list[Limit]:
    return list(limits_of(name, name, parse_rates(rate), mode))


@final
class _Opened:
    """Limits opened in a store; every time is given in seconds from the start."""

    def __init__(
        self, contract: ThrottleStoreContract, store: ThrottleStore, limits: Sequence[Limit], at: float = 0.0
    ) -> None:
        self._answer = contract.answer
        self._count = len(limits)
        self._buckets: Buckets = store.open(limits, _us(at))

    def acquire(self, keys: Sequence[Key], cost: int = 1, at: float = 0.0, patience: float = 0.0) -> Decision:
        costs = [cost] * self._count
        return self._answer(self._buckets.acquire(keys, costs, _us(at), round(patience * 1_000_000)))

    def peek(self, keys: Sequence[Key], cost: int = 1, at: float = 0.0) -> Decision:
        return self._answer(self._buckets.peek(keys, [cost] * self._count, _us(at)))

    def adjust(self, keys: Sequence[Key], tokens: Sequence[int], at: float = 0.0) -> None:
        self._answer(self._buckets.adjust(keys, tokens, _us(at)))

    def reset(self, keys: Sequence[Key | None] | None) -> None:
        self._answer(self._buckets.reset(keys))

    def admits(self, *keys: Key, cost: int = 1, at: float = 0.0) -> bool:
        return self.acquire(keys, cost, at).allowed

    def take(self, *keys: Key, cost: int = 1, at: float = 0.0) -> Decision:
        decision = self.acquire(keys, cost, at)
        if not decision.allowed:
            raise AssertionError(f"refused {cost} of {keys} at {at} s, which should be there: {decision!r}")
        return decision

    def refused(self, *keys: Key, cost: int = 1, at: float = 0.0, patience: float = 0.0) -> Decision:
        decision = self.acquire(keys, cost, at, patience)
        if decision.allowed:
            raise AssertionError(f"admitted {cost} of {keys} at {at} s, which should not be there: {decision!r}")
        return decision

    def remaining(self, *keys: Key, cost: int = 1, at: float = 0.0) -> list[int]:
        return [state.remaining for state in self.take(*keys, cost=cost, at=at).buckets]


def _us(seconds: float) -> int:
    return _START_US + round(seconds * 1_000_000)


def _same(found: object, expected: object, what: str) -> None:
    """Fail with a sentence; `assert` would need pytest to say as much, and `python -O` leaves it out."""
    if found != expected:
        raise AssertionError(f"{what}: {found!r} instead of {expected!r}")


async def _awaited(answer: Awaitable[T]) -> T:
    return await answer
