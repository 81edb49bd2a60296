"""Random programs against the memory tier, beside a model that has no order but a list and counts everything anew."""

from dataclasses import dataclass, field
from functools import partial
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apigate.caching.entry import CacheKey, StoredResponse
from apigate.caching.generations import Generations
from apigate.caching.memory import MemoryTier, key_bytes
from tests.stored import stored
from tests.strategies import UNHURRIED
from tests.threads import in_threads

CHANCES = 8
LOOKED_AT = 4


@dataclass(eq=False)
class Place:
    """A key and its responses, the latest first."""

    key: CacheKey
    responses: list[StoredResponse] = field(default_factory=list)
    used: bool = False

    @property
    def size(self) -> int:
        return key_bytes(self.key) + sum(response.size for response in self.responses)


class Model:
    """The tier as its documentation has it; nothing is remembered that can be counted."""

    def __init__(self, max_bytes: int, max_entries: int, max_item: int, max_variants: int) -> None:
        self.max_bytes, self.max_entries = max_bytes, max_entries
        self.max_item, self.max_variants = max_item, max_variants
        self.order: list[Place] = []  # who goes first, unless used
        self.turns: list[Place] = []  # who is looked at first
        self.evictions = self.expirations = 0
        self.dropped: dict[int, StoredResponse] = {}  # the invalidated, by id

    def place(self, key: CacheKey) -> Place | None:
        return next((place for place in self.order if place.key == key), None)

    def taken(self) -> int:
        return sum(place.size for place in self.order)

    def number(self) -> int:
        return sum(len(place.responses) for place in self.order)

    def get(self, key: CacheKey) -> tuple[StoredResponse, ...]:
        place = self.place(key)
        if place is None:
            return ()
        place.used = True
        return tuple(place.responses)

    def settle(self) -> None:
        self.order = [place for place in self.order if place.responses]

    def sweep(self, now: int) -> None:
        for _ in range(min(LOOKED_AT, len(self.turns))):
            place = self.turns.pop(0)
            if place not in self.order:
                continue
            for response in list(place.responses):
                age = response.initial_age * 1_000_000 + now - response.received_us
                if age >= (response.lifetime + response.grace) * 1_000_000 or id(response) in self.dropped:
                    place.responses.remove(response)
                    self.expirations += 1
            if place.responses:
                self.turns.append(place)
        self.settle()

    def put(self, key: CacheKey, response: StoredResponse, now: int) -> bool:
        self.sweep(now)
        place = self.place(key) or Place(key)
        others = [other for other in place.responses if other.vary != response.vary]
        if response.size > self.max_item or key_bytes(key) + response.size > self.max_bytes:
            place.responses = others
            self.settle()
            return False
        chosen = [response, *others]
        while len(chosen) > min(self.max_variants, self.max_entries) or Place(key, chosen).size > self.max_bytes:
            chosen.pop()
            self.evictions += 1
        if place in self.order:
            self.order.remove(place)
        else:
            self.turns.append(place)
        mine = Place(key, chosen)
        self.make_room(self.max_bytes - mine.size, self.max_entries - len(chosen))
        place.responses = chosen
        self.order.append(place)
        return True

    def make_room(self, most: int, number: int) -> None:
        chances = CHANCES
        while self.taken() > most or self.number() > number:
            place = self.order.pop(0)
            if place.used and chances:
                chances -= 1
                place.used = False
                self.order.append(place)
            else:
                chances = CHANCES
                self.evictions += len(place.responses)


KEYS = st.sampled_from([("GET", f"/{name}") for name in "abcde"] + [("GET", "/ä"), ("G",), ()])
VARIES = st.sampled_from([(), (("accept", None),), (("accept", "a"),), (("accept", "a"), ("cookie", "b"))])
SECONDS = st.integers(0, 5) | st.integers(10, 60)
BODIES = st.integers(0, 300) | st.integers(0, 5_000)
ONE = stored(scopes=("path:/a",), vary=(("accept", "a"),)).size + key_bytes(("GET", "/a"))


class TierMachine(RuleBasedStateMachine):
    """Everything that can be seen is the model's, after every step."""

    @initialize(
        room=st.integers(ONE, 14 * ONE) | st.just(10**6),
        number=st.integers(1, 4) | st.integers(5, 16),
        item=st.integers(1_500, 7_000),
        variants=st.integers(1, 3),
    )
    def build(self, room, number, item, variants):
        self.now = 0
        self.generations = Generations()
        self.tier = MemoryTier(room, number, item, variants, self.generations)
        self.model = Model(room, number, item, variants)

    @rule(several=st.lists(st.tuples(KEYS, VARIES, BODIES, SECONDS, SECONDS, SECONDS), min_size=1, max_size=8))
    def put(self, several):
        now = self.now * 1_000_000
        for key, vary, body, lifetime, grace, age in several:
            response = stored(
                bytes(body),
                vary=vary,
                lifetime=lifetime,
                grace=grace,
                age=age,
                received=self.now,
                scopes=(f"path:{key}",),
                epoch=self.generations.epoch,
            )
            assert self.tier.put(key, response, now) is self.model.put(key, response, now)
            self.counts_are_exact()

    @rule(key=KEYS)
    def put_again(self, key):
        """What comes again on being found is the very object that is kept."""
        for response in self.model.get(key)[-1:]:
            assert self.tier.get(key)[-1] is response
            assert self.tier.put(key, response, self.now * 1_000_000) is self.model.put(
                key, response, self.now * 1_000_000
            )

    @rule(keys=st.lists(KEYS, min_size=1, max_size=6))
    def get(self, keys):
        for key in keys:
            assert self.tier.get(key) == self.model.get(key)

    @rule(key=KEYS, which=st.integers(0, 2))
    def remove_one(self, key, which):
        place = self.model.place(key)
        for response in (place.responses if place else [])[which : which + 1]:
            assert self.tier.remove(key, response)
            assert not self.tier.remove(key, response)
            place.responses.remove(response)
            self.model.settle()

    @rule(key=KEYS)
    def remove_all(self, key):
        place = self.model.place(key)
        assert self.tier.remove(key) is (place is not None)
        if place:
            place.responses.clear()
            self.model.settle()

    @rule(key=KEYS)
    def invalidate(self, key):
        self.generations.invalidate(f"path:{key}")
        place = self.model.place(key)
        self.model.dropped |= {id(response): response for response in (place.responses if place else [])}

    @rule()
    def clear(self):
        self.tier.clear()
        self.model.order.clear()
        self.model.turns.clear()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds):
        self.now += seconds

    @invariant()
    def counts_are_exact(self):
        if not hasattr(self, "tier"):
            return
        assert self.tier.bytes == self.model.taken() <= self.model.max_bytes
        assert self.tier.entries == self.model.number() <= self.model.max_entries
        assert self.tier.evictions == self.model.evictions
        assert self.tier.expirations == self.model.expirations

    def teardown(self):
        if hasattr(self, "tier"):
            for place in self.model.order:
                assert self.tier.get(place.key) == tuple(place.responses)


TestTierMachine = TierMachine.TestCase
TestTierMachine.settings = settings(UNHURRIED, max_examples=150, stateful_step_count=60)


def recount(tier: MemoryTier) -> tuple[int, int]:
    order = tier._order
    sizes = [key_bytes(key) + sum(one.size for one in kept.responses) for key, kept in order.items()]
    assert all(kept.responses and kept.key == key for key, kept in order.items())
    return sum(sizes), sum(len(kept.responses) for kept in order.values())


def test_random_keys_take_no_more_than_the_budget():
    random = Random(7)
    tier = MemoryTier(60 * ONE, 10_000, 10 * ONE)
    for number in range(20_000):
        key = ("GET", f"/{random.getrandbits(64):x}")
        assert tier.put(key, stored(bytes(random.randrange(3_000)), received=number / 100), number * 10_000)
        assert tier.bytes <= 60 * ONE
    assert (tier.bytes, tier.entries) == recount(tier)
    assert tier.evictions + tier.expirations == 20_000 - tier.entries
    assert len(tier._ring) <= 2 * 60


@pytest.mark.usefixtures("restless_interpreter")
def test_eight_threads_lose_no_byte():
    """With readers that check the bounds all the time, and a key in use that is never missed while it is replaced."""
    tier = MemoryTier(40 * ONE, 50, 20 * ONE, 3, Generations())
    names = [("GET", f"/{number}") for number in range(60)]
    hot = ("GET", "/hot")
    tier.put(hot, stored(lifetime=10**6), 0)
    wrong: list[object] = []

    def work(seed: int) -> None:
        random = Random(seed)
        for step in range(4_000):
            key, kind = random.choice(names), random.randrange(12)
            if kind < 6:
                tier.put(key, stored(bytes(random.randrange(2_000)), vary=random.choice(((), (("a", "b"),)))), step)
            elif kind == 6:
                tier.remove(key)
            elif kind == 7:
                for response in tier.get(names[step % 4]):  # fewer than may be passed over for one
                    tier.remove(names[step % 4], response)
            elif kind == 8:
                tier.put(key, stored(bytes(random.randrange(10 * ONE))), step)  # many go for it
            else:
                tier.put(hot, stored(b"x" * random.randrange(9), lifetime=10**6), step)
            if not tier.get(hot):
                wrong.append("missed")
            if not (0 <= tier.bytes <= 40 * ONE and 0 <= tier.entries <= 50):
                wrong.append((tier.bytes, tier.entries))

    in_threads(partial(work, seed) for seed in range(8))
    assert not wrong
    assert (tier.bytes, tier.entries) == recount(tier)
    assert len({id(kept) for kept in tier._ring if kept.responses}) == len(tier._order)
