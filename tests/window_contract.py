"""What every store of windows promises, as tests that each of them runs; times are handed in, as to `apigate.testing`'s
contract for buckets.
"""

import asyncio
from collections.abc import Awaitable

import pytest

from apigate.throttling.limit import Limit
from apigate.throttling.tallies import Standing
from apigate.throttling.window import KINDS, Window

START_US = 1_000_000_000_000
SECOND = 1_000_000

each_kind = pytest.mark.parametrize("kind", KINDS)


def limit(text="5/minute", kind="fixed", name="shop:client"):
    return Limit(name, "client", "client", Window(text, kind=kind))


class WindowStoreContract:
    """Derive a class, and give it a `windows` fixture; `in_loop` says whether it is asked under an event loop."""

    in_loop = False

    @pytest.fixture
    def ask(self, windows):
        """Speaks to the store; one event loop for each test that needs one."""
        if not self.in_loop:
            yield _Asking(windows, lambda answer: answer())
            return
        with asyncio.Runner() as runner:

            async def awaited(call):
                answer = call()
                assert isinstance(answer, Awaitable)
                return await answer

            yield _Asking(windows, lambda call: runner.run(awaited(call)))

    # ---- how much

    @each_kind
    def test_admits_the_count_and_no_more(self, ask, kind):
        assert [ask.admits(limit(kind=kind)) for _ in range(7)] == [True] * 5 + [False] * 2

    @each_kind
    def test_tells_what_it_has_counted_and_until_when(self, ask, kind):
        asked = limit("2/minute", kind)
        later = 60_001_000 if kind == "sliding" else 60_000_000  # the millisecond in which the last count weighs less
        assert ask.acquire(asked)[:4] == (True, 0, 0, later)
        assert ask.acquire(asked, at=1)[:4] == (True, 1, 0, later - SECOND)
        assert ask.acquire(asked, at=2)[:4] == (False, 2, later - 2 * SECOND, later - 2 * SECOND)

    @each_kind
    def test_counts_costs(self, ask, kind):
        asked = limit("10/minute", kind)
        assert ask.admits(asked, cost=7)
        assert not ask.admits(asked, cost=4)
        assert ask.admits(asked, cost=3)
        assert ask.peek(asked).used == 10

    @each_kind
    def test_says_never_where_the_cost_is_above_the_count(self, ask, kind):
        standing = ask.acquire(limit(kind=kind), cost=6)
        assert (standing.allowed, standing.wait_us, standing.used) == (False, None, 0)

    @each_kind
    def test_what_costs_nothing_is_admitted_and_begins_no_window(self, ask, kind):
        asked = limit("1/minute", kind)
        assert ask.admits(asked, cost=0)
        ask.acquire(asked, at=30)
        assert ask.admits(asked, cost=0, at=30)
        assert not ask.admits(asked, at=89.9)
        assert ask.admits(asked, at=90 if kind != "sliding" else 90.001)

    @each_kind
    def test_a_refusal_counts_nothing(self, ask, kind):
        """In peers, a refused cost of 10 on a limit of 5 blocks a cost of 1 until the window ends."""
        asked = limit(kind=kind)
        assert ask.admits(asked, cost=3)
        for _ in range(3):
            assert not ask.admits(asked, cost=3)
        assert not ask.admits(asked, cost=10)
        assert ask.admits(asked, cost=2)

    @each_kind
    def test_a_look_counts_nothing(self, ask, kind):
        asked = limit("2/minute", kind)
        ask.acquire(asked)
        assert [ask.peek(asked).allowed for _ in range(3)] == [True] * 3
        assert ask.admits(asked)
        assert not ask.peek(asked).allowed

    # ---- until when

    @each_kind
    def test_admits_again_exactly_when_it_said(self, ask, kind):
        asked = limit("5/10 seconds", kind)
        for at in (0, 0.25, 3.123456, 3.5, 9):
            assert ask.admits(asked, at=at)
        wait = ask.acquire(asked, cost=2, at=9.5).wait_us
        again = 9.5 + wait / SECOND
        assert not ask.admits(asked, cost=2, at=again - 0.000001)
        assert ask.admits(asked, cost=2, at=again)

    def test_a_fixed_window_begins_with_the_first_and_ends_for_all(self, ask):
        asked = limit("2/minute")
        ask.acquire(asked, at=10)
        ask.acquire(asked, at=69)
        assert not ask.admits(asked, at=69.999999)
        assert [ask.admits(asked, at=70) for _ in range(3)] == [True, True, False]
        assert not ask.admits(asked, at=129.999999)
        assert ask.admits(asked, at=130)

    def test_a_moving_window_lets_each_go_a_period_after_it_came(self, ask):
        asked = limit("2/minute", "moving")
        ask.acquire(asked, at=10)
        ask.acquire(asked, at=69)
        assert [ask.admits(asked, at=70) for _ in range(2)] == [True, False]
        assert not ask.admits(asked, at=128.999999)
        assert ask.admits(asked, at=129)

    def test_a_sliding_window_weighs_the_last_count_by_what_is_left_of_it(self, ask):
        asked = limit("10/minute", "sliding")
        for _ in range(8):
            ask.acquire(asked)
        assert ask.peek(asked, at=60).used == 8
        assert ask.peek(asked, at=75).used == 6
        assert [ask.admits(asked, at=75) for _ in range(5)] == [True] * 4 + [False]
        assert ask.peek(asked, at=90).used == 8  # half of 8, and 4
        assert ask.peek(asked, at=120).used == 4
        assert ask.peek(asked, at=180).used == 0

    @each_kind
    def test_counts_nothing_of_long_ago(self, ask, kind):
        asked = limit(kind=kind)
        ask.acquire(asked, cost=5)
        assert ask.peek(asked, at=365 * 86_400).used == 0
        assert ask.admits(asked, cost=5, at=365 * 86_400)

    def test_a_moving_window_counts_what_comes_in_one_microsecond(self, ask):
        asked = limit("3/minute", "moving")
        assert [ask.admits(asked) for _ in range(4)] == [True, True, True, False]
        assert ask.acquire(asked, cost=3, at=59).wait_us == SECOND

    # ---- whose

    @each_kind
    def test_keeps_keys_apart(self, ask, kind):
        """Texts, digests, and keys with every sign that stands between the parts of a name."""
        keys = (
            "a",
            "b",
            "a ",
            "A",
            "",
            b"a",
            b"0123456789abcdef",
            "0123456789abcdef",
            "a/b",
            "a:b",
            "a%3Ab",
            "!61",
            "*",
        )
        asked = limit("1/minute", kind)
        assert [ask.admits(asked, key) for key in keys] == [True] * len(keys)
        assert [ask.admits(asked, key) for key in keys] == [False] * len(keys)

    @each_kind
    def test_no_key_can_be_made_to_look_like_another_limits(self, ask, kind):
        """In peers, ("u/1", "x") and ("u", "1/x") share a key."""
        asked = [
            (limit("1/minute", kind, "shop:u"), f"1@{kind}:x"),
            (limit("1/minute", kind, f"shop:u@{kind}:1"), "x"),
            (limit("1/minute", kind, "shop:u/1"), "x"),
            (limit("1/minute", kind, "shop:u"), "1/x"),
            (limit("1/minute", kind, "shop"), "u:1:x"),
            (limit("1/minute", kind, "shop:u:1"), "x"),
        ]
        assert [ask.admits(*each) for each in asked] == [True] * len(asked)

    def test_kinds_are_kept_apart(self, ask):
        assert [ask.admits(limit("1/minute", kind)) for kind in KINDS] == [True] * 3

    def test_names_may_be_long(self, ask):
        first, second = (limit("1/minute", name=f"shop:method:prod:GET /{'long/' * 80}{end}") for end in "ab")
        assert [ask.admits(first), ask.admits(first), ask.admits(second)] == [True, False, True]

    # ---- giving back, changing, forgetting

    @each_kind
    def test_gives_back_what_was_counted(self, ask, kind):
        asked = limit(kind=kind)
        ask.acquire(asked, cost=2)
        taken = ask.acquire(asked, cost=3, at=1)
        ask.adjust(asked, -2, taken.at, at=2)
        assert ask.peek(asked, at=2).used == 3
        ask.adjust(asked, -1, taken.at, at=2)
        assert ask.peek(asked, at=2).used == 2
        assert ask.admits(asked, cost=3, at=2)

    @each_kind
    def test_gives_nothing_back_that_has_left_the_window(self, ask, kind):
        """Or a slow request that is refunded would let others in above the count."""
        asked = limit(kind=kind)
        taken = ask.acquire(asked, cost=5)
        assert ask.admits(asked, cost=5, at=121)
        ask.adjust(asked, -5, taken.at, at=122)
        assert ask.peek(asked, at=122).used == 5

    def test_a_sliding_window_gives_back_to_the_window_it_came_in(self, ask):
        asked = limit("10/minute", "sliding")
        taken = ask.acquire(asked, cost=8)
        ask.acquire(asked, cost=2, at=90)
        ask.adjust(asked, -4, taken.at, at=90)
        assert ask.peek(asked, at=90).used == 4  # half of 4, and 2

    @each_kind
    def test_gives_nothing_back_where_nobody_knows_when_it_was_counted(self, ask, kind):
        asked = limit(kind=kind)
        ask.acquire(asked, cost=5)
        ask.adjust(asked, -5, None)
        assert not ask.admits(asked)

    @each_kind
    def test_gives_nothing_back_to_a_fresh_window(self, ask, kind):
        """In peers, a count below zero lets more in."""
        asked = limit(kind=kind)
        ask.adjust(asked, -5, START_US)
        assert [ask.admits(asked) for _ in range(6)] == [True] * 5 + [False]

    @each_kind
    def test_counts_more_where_it_is_told_up_to_a_debt_of_the_count(self, ask, kind):
        asked = limit(kind=kind)
        ask.acquire(asked)
        ask.adjust(asked, 3, None)
        assert ask.peek(asked).used == 4
        ask.adjust(asked, 1_000, None)
        assert ask.peek(asked).used == 10
        assert not ask.admits(asked, cost=0)

    @each_kind
    def test_a_changed_count_forgets_nothing(self, ask, kind):
        """In peers, the limit is in the key."""
        ask.acquire(limit("5/minute", kind), cost=4)
        assert ask.peek(limit("10/minute", kind)).used == 4
        assert not ask.admits(limit("3/minute", kind))
        assert ask.admits(limit("5/minute", kind))

    def test_a_changed_period_reads_the_same_counts(self, ask):
        ask.acquire(limit("5/minute", "moving"), cost=4)
        assert ask.peek(limit("5/hour", "moving"), at=59).used == 4
        assert ask.peek(limit("5/10 seconds", "moving"), at=59).used == 0

    @each_kind
    def test_forgets_a_key(self, ask, kind):
        asked = limit("1/minute", kind)
        ask.acquire(asked, "a")
        ask.acquire(asked, "b")
        ask.reset(asked, "a")
        assert [ask.admits(asked, "a"), ask.admits(asked, "b")] == [True, False]

    @each_kind
    def test_forgets_all_keys_of_a_limit_and_no_others(self, ask, kind):
        mine, theirs = limit("1/minute", kind, "shop:a"), limit("1/minute", kind, "shop:a:b")
        for key in ("a", "b"):
            ask.acquire(mine, key)
        ask.acquire(theirs)
        ask.reset(mine, None)
        assert [ask.admits(mine, "a"), ask.admits(mine, "b"), ask.admits(theirs)] == [True, True, False]

    # ---- clocks that are wrong

    @each_kind
    def test_heals_when_the_clock_was_set_back_and_forgets_nothing(self, ask, kind):
        """In peers, a spent limit stays so until the old time comes again."""
        asked = limit("3/minute", kind)
        ask.acquire(asked, cost=3)
        back = -3_600
        assert not ask.admits(asked, at=back)
        again = ask.peek(asked, at=back).wait_us / SECOND
        assert again == (60.001 if kind == "sliding" else 60)
        assert not ask.admits(asked, at=back + again - 0.000001)
        assert ask.admits(asked, at=back + again)

    @each_kind
    def test_a_clock_that_is_a_little_behind_earns_nothing(self, ask, kind):
        asked = limit("3/minute", kind)
        ask.acquire(asked, cost=3)
        assert not ask.admits(asked, at=-1)
        assert not ask.admits(asked, at=59.999999)
        assert ask.admits(asked, at=60 if kind != "sliding" else 60.001)


class _Asking:
    """Speaks to a store of windows; times in seconds from the start."""

    def __init__(self, windows, answer):
        self._windows = windows
        self._answer = answer

    def acquire(self, asked, key="a", cost=1, at=0.0) -> Standing:
        return self._answer(lambda: self._windows.acquire(asked, key, cost, _us(at)))

    def peek(self, asked, key="a", cost=1, at=0.0) -> Standing:
        return self._answer(lambda: self._windows.peek(asked, key, cost, _us(at)))

    def adjust(self, asked, units, counted_at, key="a", at=0.0):
        self._answer(lambda: self._windows.adjust(asked, key, units, counted_at, _us(at)))

    def reset(self, asked, key):
        self._answer(lambda: self._windows.reset(asked, key))

    def admits(self, asked, key="a", cost=1, at=0.0) -> bool:
        return self.acquire(asked, key, cost, at).allowed


def _us(seconds):
    return START_US + round(seconds * SECOND)
