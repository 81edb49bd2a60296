"""How buckets lie in the file: a write that is cut short anywhere, and buckets that limits have to share."""

import pytest

from apigate import Rate
from apigate.stores.file_header import JOURNAL, TABLE, Header
from apigate.stores.file_table import Table
from apigate.throttling.algorithms import FRESH, decide, owed_at, written
from apigate.throttling.limit import limits_of

HOUR_US = 3_600_000_000
HEADER = Header(sets=1, era=1, began=0, salt=bytes(16), machine=bytes(16))


class KilledError(Exception):
    """Stands for the end of the process."""


class Memory(bytearray):
    """A mapped file whose process is killed in its write of this number, after so many bytes of it."""

    def __init__(self, size, write=None, written_bytes=0):
        super().__init__(size)
        self.write, self.bytes, self.writes = write, written_bytes, 0

    def __getitem__(self, where):
        return bytes(super().__getitem__(where))

    def __setitem__(self, where, raw):
        if self.writes == self.write:
            super().__setitem__(slice(where.start, where.start + self.bytes), raw[: self.bytes])
            raise KilledError
        self.writes += 1
        super().__setitem__(where, raw)


def no_damage():
    raise AssertionError("nothing was damaged")


def limit(name, rate):
    return limits_of(name, name, [rate])[0]


def table(data, header=HEADER, on_damage=no_damage):
    if not any(data[:64]):
        data[:64] = header.pack()
    return Table(data, header, on_damage)


def take(table, limits, keys, now=0, cost=1):
    shelves = [table.shelf(limit) for limit in limits]
    states, found = table.read(shelves, keys, now)
    decision = decide(limits, states, [cost] * len(keys), now)
    table.keep(shelves, keys, found, written(decision, states, now), now)
    return decision.allowed


def owed(table, limits, keys, now=0):
    """Tokens, rounded up."""
    states, _ = table.read([table.shelf(limit) for limit in limits], keys, now)
    return [-(-owed_at(state, limit.n, now) // limit.p) for state, limit in zip(states, limits, strict=True)]


LIMITS = [limit(name, Rate(10, per=3_600)) for name in ("global", "method", "client")]
KEYS = ["", "GET /", "alice"]


def test_whoever_is_killed_while_the_journal_is_cleared_has_made_the_decision():
    for written_bytes in range(5):
        data, killed = decide_until_killed(4, written_bytes)
        assert killed
        buckets = table(data)
        buckets.recover()
        assert owed(buckets, LIMITS, KEYS) == [2, 2, 2]


def decide_until_killed(write, written_bytes):
    data = Memory(HEADER.size)
    buckets = table(data)
    take(buckets, LIMITS, KEYS)
    data.write, data.bytes, data.writes = write, written_bytes, 0
    try:
        take(buckets, LIMITS, KEYS)
    except KilledError:
        data.write = None
        return data, True
    data.write = None
    return data, False


def test_whoever_is_killed_in_any_write_leaves_all_of_the_decision_or_nothing():
    outcomes = set()
    for write in range(4):  # the journal, three slots
        for written_bytes in range(1 + (212 if write == 0 else 64)):
            data, killed = decide_until_killed(write, written_bytes)
            assert killed
            buckets = table(data)
            if not buckets.is_sound():
                buckets.recover()
            left = owed(buckets, LIMITS, KEYS)
            assert left in ([1, 1, 1], [2, 2, 2])
            outcomes.add((write, left[0]))
            assert buckets.is_sound()
    assert outcomes == {(0, 1), (0, 2), (1, 2), (2, 2), (3, 2)}
    assert not decide_until_killed(5, 0)[1]  # the last of five clears the journal


def test_what_is_no_whole_entry_of_the_journal_is_dropped():
    data = Memory(HEADER.size)
    buckets = table(data)
    take(buckets, LIMITS, KEYS)
    before = bytes(data)
    for garbage in (b"\xff" * 4_096, b"\x01\x00\x00\x00" + bytes(300), b"\x00\x01" * 2_000):
        data[JOURNAL : JOURNAL + len(garbage)] = garbage
        buckets.recover()
        assert bytes(data[TABLE:]) == before[TABLE:]
        assert buckets.is_sound()


def test_a_decision_for_new_keys_gives_each_a_slot_of_its_own():
    """Of 16 slots 15 owe and one is as good as fresh: only one of the two may have that."""
    buckets = table(Memory(HEADER.size))
    slow, fast = limit("slow", Rate(9, per=3_600)), limit("fast", Rate(1, per=1))
    taken = 0
    while taken < 15:
        taken += take(buckets, [slow], [f"first {taken}"])
    assert take(buckets, [fast], ["soon fresh"])
    now = 2_000_000
    assert take(buckets, [slow, fast], ["new", "newer"], now)
    assert owed(buckets, [slow, fast], ["new", "newer"], now) == [1, 1]
    assert [owed(buckets, [slow], [f"first {number}"], now) for number in range(15)] == [[1]] * 15


def full_table():
    """Every slot of the one set owes something, for years."""
    buckets = table(Memory(HEADER.size))
    ever = limit("ever", Rate(1, per=300 * 86_400))
    for number in range(16):
        assert take(buckets, [ever], [f"{number}"])
    return buckets


@pytest.mark.parametrize("key", ["a", b"b", "ip:2001:db8::/64"])
def test_where_there_is_no_room_keys_share_and_nobody_gets_more_than_one_key_may(key):
    buckets = full_table()
    client = limit("client", Rate(3, per=3_600))
    assert [take(buckets, [client], [key]) for _ in range(5)] == [True] * 3 + [False] * 2
    assert not take(buckets, [client], [key], HOUR_US // 3 - 1)
    assert take(buckets, [client], [key], HOUR_US // 3)


def test_subscribers_of_one_network_share_one_overflow_bucket():
    buckets = full_table()
    client = limit("client", Rate(3, per=3_600))
    admitted = [take(buckets, [client], [f"ip:2001:db8:7:{number:x}::/64"]) for number in range(100)]
    assert admitted.count(True) == 3


def two_that_meet(buckets, first, second):
    """Keys of two limits that fall into the same overflow bucket."""
    shelves = buckets.shelf(first), buckets.shelf(second)
    places = {buckets._overflow_at(shelves[0], f"{number}"): f"{number}" for number in range(20_000)}
    for number in range(20_000):
        place = buckets._overflow_at(shelves[1], f"{number}")
        if place in places:
            return places[place], f"{number}"
    raise AssertionError("the limits are in different groups")


def limits_that_meet(buckets, one, other):
    """Two limits of one group of overflow buckets: their names are tried out."""
    first = limit("first", one)
    for number in range(1_000):
        second = limit(f"second {number}", other)
        if buckets.shelf(first).tag[0] % 15 == buckets.shelf(second).tag[0] % 15:
            return first, second
    raise AssertionError("no name was found")


@pytest.mark.parametrize(("one", "other"), [(Rate(2, per=3_600), Rate(5, per=1)), (Rate(5, per=1), Rate(2, per=3_600))])
def test_where_limits_meet_nobody_refused_by_one_is_let_in_by_the_other(one, other):
    buckets = full_table()
    limits = limits_that_meet(buckets, one, other)
    keys = two_that_meet(buckets, *limits)
    slow = 0 if one.per == 3_600 else 1
    while take(buckets, [limits[slow]], [keys[slow]]):
        pass
    for second in range(1, 1_000):  # the fast one gets five a second back, but not what the slow one is owed
        take(buckets, [limits[1 - slow]], [keys[1 - slow]], second * 1_000_000)
        assert not take(buckets, [limits[slow]], [keys[slow]], second * 1_000_000)
    assert take(buckets, [limits[slow]], [keys[slow]], 4 * HOUR_US)


def test_two_new_keys_of_one_decision_that_meet_are_both_charged():
    buckets = full_table()
    limits = limits_that_meet(buckets, Rate(5, per=3_600), Rate(5, per=7_200))
    keys = two_that_meet(buckets, *limits)
    assert take(buckets, limits, keys)
    assert owed(buckets, limits, keys) == [1, 1]
    for _ in range(10):
        take(buckets, limits, keys)
    assert not take(buckets, [limits[0]], [keys[0]], cost=1)
    assert not take(buckets, [limits[1]], [keys[1]], cost=1)


def test_what_another_clock_wrote_is_owed_as_it_was_and_paid_off_from_the_takeover_on():
    data = Memory(HEADER.size)
    client = limit("client", Rate(2, per=3_600))
    buckets = table(data)
    assert take(buckets, [client], ["a"], 5 * HOUR_US)
    assert take(buckets, [client], ["a"], 5 * HOUR_US)
    for began in (60_000_000, 500 * HOUR_US):  # after a restart the clock begins anew; that of another may be far ahead
        later = HEADER._replace(era=2, began=began)
        data[:64] = later.pack()
        buckets = table(data, later)
        assert owed(buckets, [client], ["a"], began) == [2]
        assert owed(buckets, [client], ["a"], began + HOUR_US // 2) == [1]


def test_a_damaged_bucket_starts_anew_and_that_is_told():
    data, told = Memory(HEADER.size), []
    buckets = table(data, on_damage=lambda: told.append(True))
    client = limit("client", Rate(1, per=3_600))
    assert take(buckets, [client], ["a"])
    at = buckets.read([buckets.shelf(client)], ["a"], 0)[1][0][1]
    data[at + 30 : at + 31] = b"\xff"
    states, _ = buckets.read([buckets.shelf(client)], ["a"], 0)
    assert (states, told) == ([FRESH], [True])
    assert take(buckets, [client], ["a"])
    assert told == [True]
