"""The contract is worth something only if it finds out stores that break it: here are the usual ways to."""

import pytest

from apigate.stores.memory import MemoryStore
from apigate.testing import ThrottleStoreContract
from apigate.throttling.decision import Decision
from apigate.throttling.limit import Limit


class Buckets:
    """Does everything right; each of those below gets one thing wrong."""

    def __init__(self, store, limits, now):
        self.store = store
        self.limits = limits
        self.inner = store.open(limits, now)

    def acquire(self, keys, costs, now, patience=0):
        return self.inner.acquire(keys, costs, now, patience)

    def peek(self, keys, costs, now):
        return self.inner.peek(keys, costs, now)

    def adjust(self, keys, tokens, now):
        self.inner.adjust(keys, tokens, now)

    def reset(self, keys):
        self.inner.reset(keys)


class TakesLevelByLevel(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        decision = self.inner.peek(keys, costs, now)
        for place, limit in enumerate(self.limits):
            self.store.open([limit], now).acquire(keys[place : place + 1], costs[place : place + 1], now, patience)
        return decision


class StopsAtTheFirstRefusal(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        for place, limit in enumerate(self.limits):
            one = self.store.open([limit], now).acquire(
                keys[place : place + 1], costs[place : place + 1], now, patience
            )
            if not one.allowed:
                break
        return one


class CountsRefusals(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        decision = self.inner.acquire(keys, costs, now, patience)
        if not decision.allowed:
            self.inner.adjust(keys, costs, now)
        return decision


class RoundsDownToSeconds(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        return self.inner.acquire(keys, costs, now // 1_000_000 * 1_000_000, patience)


class SharesABucket(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        return self.inner.acquire(["everybody"] * len(keys), costs, now, patience)


class TakesAtALook(Buckets):
    def peek(self, keys, costs, now):
        return self.inner.acquire(keys, costs, now)


class GivesNothingBack(Buckets):
    def adjust(self, keys, tokens, now):
        self.inner.adjust(keys, [max(0, number) for number in tokens], now)


class MakesDebtsWithoutEnd(Buckets):
    def adjust(self, keys, tokens, now):
        for _ in range(3):
            self.inner.adjust(keys, tokens, now)
        if tokens[0] > 5:
            self.inner.acquire(keys, [1] * len(keys), now, 10**9)


class MakesNoDebts(Buckets):
    def adjust(self, keys, tokens, now):
        if not self.inner.acquire(keys, [max(0, number) for number in tokens], now).allowed:
            return
        self.inner.adjust(keys, [min(0, number) for number in tokens], now)


class ForgetsEverything(Buckets):
    def reset(self, keys):
        self.inner.reset(None)


class ForgetsNothing(Buckets):
    def reset(self, keys):
        pass


class KnowsNoPatience(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        return self.inner.acquire(keys, costs, now)


class HasEndlessPatience(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        return self.inner.acquire(keys, costs, now, 10**12 if patience else 0)


class FreezesWhenTheClockIsSetBack(Buckets):
    latest = 0

    def acquire(self, keys, costs, now, patience=0):
        self.latest = max(self.latest, now)
        return self.inner.acquire(keys, costs, self.latest, patience)


class ForgetsWhenTheClockIsSetBack(Buckets):
    latest = 0

    def acquire(self, keys, costs, now, patience=0):
        if now < self.latest:
            self.inner.reset(None)
        self.latest = now
        return self.inner.acquire(keys, costs, now, patience)


class EnforcesShadows(Buckets):
    def __init__(self, store, limits, now):
        super().__init__(store, [Limit(limit.name, limit.level, limit.policy, limit.rate) for limit in limits], now)


class LosesStateWithTheRate(Buckets):
    def __init__(self, store, limits, now):
        renamed = [
            Limit(f"{limit.name} {limit.rate}", limit.level, limit.policy, limit.rate, enforced=limit.enforced)
            for limit in limits
        ]
        super().__init__(store, renamed, now)


class NamesOneRefusal(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        decision = self.inner.acquire(keys, costs, now, patience)
        if decision.allowed or len(decision.violated) < 2:
            return decision
        first = next(place for place, limit in enumerate(self.limits) if limit.level == decision.violated[0])
        alone = self.store.open([self.limits[first]], now)
        return alone.peek([keys[first]], [costs[first]], now)


class SaysHowLongNeverIs(Buckets):
    def acquire(self, keys, costs, now, patience=0):
        decision = self.inner.acquire(keys, costs, now, patience)
        return (
            decision
            if decision.retry_after is not None
            else Decision(False, self.limits, [0] * len(keys), [10**12] * len(keys))
        )


BROKEN = Buckets.__subclasses__()


class Store:
    def __init__(self, kind):
        self.kind = kind
        self.store = MemoryStore()

    def open(self, limits, now):
        return self.kind(self.store, limits, now)


def failures(kind: type[Buckets]) -> list[str]:
    """The promises that a store with such buckets was seen to break."""

    class Contract(ThrottleStoreContract):
        def make_store(self):
            return Store(kind)

    contract, found = Contract(), []
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)()
            except AssertionError:
                found.append(name)
    return found


def test_an_honest_store_breaks_no_promise():
    assert failures(Buckets) == []


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_store_is_found_out(kind):
    assert failures(kind)


@pytest.mark.parametrize("skew_us", [0, 10**12])
def test_a_store_that_heals_too_eagerly_or_never_is_found_out(skew_us, monkeypatch):
    monkeypatch.setattr("apigate.throttling.algorithms.SKEW_US", skew_us)
    assert failures(Buckets)


def test_a_contract_without_a_store_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="make_store"):
        ThrottleStoreContract().make_store()
