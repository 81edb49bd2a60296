"""The memory tier: what is kept, what goes, and what it is accounted with."""

import os
import subprocess
import sys
import tracemalloc

import pytest

from apigate.caching.entry import StoredResponse
from apigate.caching.generations import Generations
from apigate.caching.memory import MemoryTier, is_useless, key_bytes
from apigate.core.errors import ConfigurationError
from tests.stored import stored

A, B, C, D = (("GET", f"/{letter}") for letter in "abcd")
SIZE = stored().size + key_bytes(A)
GZIP, PLAIN = ((("accept-encoding", value),) for value in ("gzip", None))


def tier(max_bytes=10**6, max_entries=1_000, max_item_bytes=10**5, **settings):
    return MemoryTier(max_bytes, max_entries, max_item_bytes, **settings)


def test_what_was_put_is_got_and_accounted_for():
    kept, response = tier(), stored(b"body")
    assert kept.get(A) == ()
    assert kept.put(A, response, 0)
    assert kept.get(A) == (response,)
    assert (kept.bytes, kept.entries) == (SIZE + 4, 1)


def test_a_variant_takes_the_place_of_the_one_selected_alike_and_stands_first():
    kept = tier()
    plain, zipped, newer = stored(b"1", vary=PLAIN), stored(b"22", vary=GZIP), stored(b"333", vary=PLAIN)
    for response in (plain, zipped, newer):
        kept.put(A, response, 0)
    assert kept.get(A) == (newer, zipped)
    assert (kept.bytes, kept.entries, kept.evictions) == (key_bytes(A) + newer.size + zipped.size, 2, 0)


def test_the_variant_stored_first_goes_when_there_are_too_many():
    kept = tier(max_variants=2)
    first, second, third = (stored(vary=(("x", value),)) for value in "123")
    for response in (first, second, third):
        kept.put(A, response, 0)
    assert kept.get(A) == (third, second)
    assert kept.evictions == 1


def test_variants_of_one_key_are_entries_too():
    kept = tier(max_entries=2)
    for value in "123":
        kept.put(A, stored(vary=(("x", value),)), 0)
    assert (len(kept.get(A)), kept.entries, kept.evictions) == (2, 2, 1)


@pytest.mark.parametrize(("room", "number"), [(0, 2), (-1, 1)])
def test_variants_of_one_key_do_not_exceed_the_budget_together(room, number):
    kept = tier(max_bytes=key_bytes(A) + 2 * stored(vary=GZIP).size + room)
    for value in "12345":
        kept.put(A, stored(vary=(("accept-encoding", f"gzi{value}"),)), 0)
    assert kept.entries == number
    assert kept.evictions == 5 - number


def test_what_was_used_since_it_was_stored_is_passed_over():
    kept = tier(max_entries=2)
    kept.put(A, stored(), 0)
    kept.put(B, stored(), 0)
    kept.get(A)
    kept.put(C, stored(), 0)
    assert [bool(kept.get(key)) for key in (A, B, C)] == [True, False, True]
    assert (kept.entries, kept.evictions) == (2, 1)


def test_what_was_used_only_before_it_was_passed_over_goes():
    kept = tier(max_entries=2)
    kept.put(A, stored(), 0)
    kept.get(A)
    for key in (B, C, D):
        kept.put(key, stored(), 0)
    assert not kept.get(A)


def test_what_is_asked_for_all_the_time_outlives_a_scan():
    kept = tier(max_entries=20)
    kept.put(A, stored(), 0)
    for number in range(1_000):
        assert kept.get(A)
        kept.put(("GET", f"/{number}"), stored(), 0)


def test_no_more_than_eight_are_passed_over_where_everything_is_used():
    kept = tier(max_entries=100)
    keys = [("GET", f"/{number}") for number in range(100)]
    for key in keys:
        kept.put(key, stored(), 0)
        kept.get(key)
    kept.put(A, stored(), 0)
    assert kept.get(A)
    assert [key for key in keys if not kept.get(key)] == [keys[8]]


def test_a_variant_makes_room_for_itself_without_its_own_key():
    """The key under which is stored stands first in the order, unused, and all others are used."""
    kept = tier(max_bytes=3 * SIZE + 50)
    for key in (A, B, C):
        kept.put(key, stored(), 0)
    kept.get(B)
    kept.get(C)
    grown = stored(b"x" * 60)
    assert kept.put(A, grown, 0)
    assert kept.get(A) == (grown,)
    assert (kept.bytes, kept.entries) == (2 * SIZE + 60, 2)


@pytest.mark.parametrize("settings", [{"max_item_bytes": stored().size + 9}, {"max_bytes": SIZE + 9}])
def test_what_is_too_large_is_refused_and_what_it_would_have_replaced_is_gone(settings):
    kept = tier(**settings)
    assert kept.put(A, stored(b"x" * 9), 0)
    assert not kept.put(A, stored(b"x" * 10), 0)
    assert not kept.get(A)
    assert (kept.bytes, kept.entries, kept.evictions) == (0, 0, 0)
    assert not kept.put(B, stored(b"x" * 10), 0)


def test_one_too_large_leaves_the_other_variants():
    kept, plain = tier(max_item_bytes=2_000), stored(vary=PLAIN)
    kept.put(A, plain, 0)
    assert not kept.put(A, stored(b"x" * 2_000, vary=GZIP), 0)
    assert kept.get(A) == (plain,)


def test_one_response_or_all_of_a_key_can_be_removed():
    kept = tier()
    plain, zipped = stored(vary=PLAIN), stored(vary=GZIP)
    kept.put(A, plain, 0)
    kept.put(A, zipped, 0)
    assert not kept.remove(A, stored(vary=PLAIN))  # alike, but another
    assert not kept.remove(B)
    assert kept.remove(A, plain)
    assert kept.get(A) == (zipped,)
    assert kept.remove(A)
    assert not kept.remove(A)
    assert (kept.get(A), kept.bytes, kept.entries, kept.evictions) == ((), 0, 0, 0)


def test_everything_can_be_cleared():
    kept = tier()
    kept.put(A, stored(), 0)
    kept.clear()
    assert (kept.get(A), kept.bytes, kept.entries) == ((), 0, 0)
    assert kept.put(A, stored(), 0)
    assert kept.entries == 1


@pytest.mark.parametrize("setting", ["max_bytes", "max_entries", "max_item_bytes", "max_variants"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_a_bound_is_a_whole_number_of_at_least_one(setting, value):
    with pytest.raises(ConfigurationError, match=f"MemoryTier {setting}: .* is not a whole number of at least 1"):
        tier(**{setting: value})


@pytest.mark.parametrize(
    ("lifetime", "grace", "age", "useless_after"),
    [(60, 0, 0, 60), (60, 30, 0, 90), (60, 30, 20, 70), (0, 0, 0, 0), (0, 5, 0, 5), (10, 0, 20, -10)],
)
def test_a_response_is_of_no_use_when_its_grace_is_over(lifetime, grace, age, useless_after):
    response = stored(received=100, lifetime=lifetime, grace=grace, age=age)
    end = (100 + useless_after) * 1_000_000
    assert is_useless(response, end)
    assert not is_useless(response, end - 1)


def test_what_is_of_no_use_goes_when_others_are_put():
    kept = tier()
    for number in range(100):
        kept.put(("GET", f"/{number}"), stored(lifetime=60), 0)
    for number in range(40):
        kept.put(("GET", f"/later/{number}"), stored(received=60), 60_000_000)
    assert (kept.entries, kept.expirations, kept.evictions) == (40, 100, 0)


def test_what_is_of_use_for_long_does_not_hide_what_is_not():
    kept = tier()
    for number in range(50):
        kept.put(("GET", f"/long/{number}"), stored(lifetime=10**6), 0)
    for number in range(50):
        kept.put(("GET", f"/short/{number}"), stored(lifetime=1), 0)
    for _ in range(30):
        kept.put(A, stored(received=1), 1_000_000)
    assert kept.entries == 51
    assert kept.get(("GET", "/long/0"))


def test_only_the_useless_variants_of_a_key_go():
    kept = tier()
    long, short = stored(vary=PLAIN, lifetime=100), stored(vary=GZIP, lifetime=1)
    kept.put(A, long, 0)
    kept.put(A, short, 0)
    kept.put(B, stored(received=2), 2_000_000)
    assert kept.get(A) == (long,)
    assert kept.expirations == 1


def test_what_was_invalidated_goes_when_others_are_put():
    generations = Generations()
    kept = tier(generations=generations)
    kept.put(A, stored(scopes=("path:/a",)), 0)
    kept.put(B, stored(scopes=("path:/b",)), 0)
    generations.invalidate("path:/a")
    kept.put(C, stored(), 0)
    assert [bool(kept.get(key)) for key in (A, B, C)] == [False, True, True]
    assert kept.expirations == 1


def test_keys_that_come_and_go_leave_nothing_behind():
    """The ring of what is looked at holds the places of those that have gone for a while."""
    kept = tier(max_entries=10)
    for number in range(2_000):
        kept.put(("GET", f"/{number}"), stored(), 0)
        kept.put(A, stored(), 0)
        kept.remove(A)
    assert len(kept._ring) <= 20


def response_of(number, lines, body):
    fields = [(f"X-Field-{line}", f"value {number} of {line}") for line in range(lines)]
    return StoredResponse(
        status=200,
        fields=fields,
        body=os.urandom(body),
        initial_age=number / 7,
        received_us=10**12 + number,
        lifetime=60 + number / 7,
        grace=number / 3,
        vary=((f"accept-{number}", "gzip"),),
        scopes=(f"path:/{number}", f"tag:{number}"),
        epoch=10**6 + number,
    )


@pytest.mark.parametrize(("lines", "body", "texts"), [(0, 0, 1), (1, 100, 4), (4, 1_000, 6), (20, 5_000, 12)])
def test_no_more_memory_is_taken_than_is_accounted(lines, body, texts):
    """At any moment, right after a table has grown too, and nothing shared between entries is counted on."""
    kept, late = tier(max_bytes=10**9, max_entries=10**6), []
    tracemalloc.start()
    try:
        for number in range(3_000):
            key = tuple(f"/items/{number}/{text}" for text in range(texts))
            kept.put(key, response_of(number, lines, body), 0)
            if number > 300 and tracemalloc.get_traced_memory()[0] > kept.bytes:
                late.append(number)
    finally:
        tracemalloc.stop()
    assert not late


@pytest.mark.parametrize("texts", [1, 6, 12])
def test_a_key_is_accounted_with_little_more_than_it_takes(texts):
    responses, most = [stored() for _ in range(3_000)], 0.0
    kept = tier(max_bytes=10**9, max_entries=10**6)
    tracemalloc.start()
    try:
        for number, response in enumerate(responses):
            kept.put(tuple(f"{number:08}/{text:03}" for text in range(texts)), response, 0)
            if number > 300:
                most = max(most, tracemalloc.get_traced_memory()[0] / (number + 1))
    finally:
        tracemalloc.stop()
    accounted = key_bytes(("00000000/000",) * texts)
    assert 0.7 * accounted < most <= accounted


FORK = """
import os, signal, sys, threading
sys.path[:0] = {path!r}
from apigate.caching.generations import Generations
from apigate.caching.memory import MemoryTier
from tests.stored import stored

generations = Generations()
tier = MemoryTier(10**6, 100, 10**5, generations=generations)
tier.put(("kept",), stored(), 0)
held, is_over = threading.Event(), threading.Event()

def hold():
    with {lock}:
        held.set()
        is_over.wait(20)

thread = threading.Thread(target=hold)
if {holds}:
    thread.start()
    held.wait(20)
child = os.fork()
if not child:
    signal.alarm(10)  # ends it where it hangs
    found = len(tier.get(("kept",)))
    tier.put(("new",), stored(epoch=generations.invalidate("tag:x")), 0)
    exact = (tier.entries, len(tier.get(("new",)))) == (found + 1, 1)
    os._exit(found + 10 if exact else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
is_over.set()
os._exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("lock", "holds", "found"),
    [("tier._lock", False, 1), ("tier._lock", True, 0), ("generations._lock", True, 1)],
    ids=["none is held", "the tier's is held", "the invalidations' is held"],
)
def test_a_child_keeps_what_was_whole_and_waits_for_no_thread_of_its_parent(lock, holds, found):
    program = FORK.format(path=sys.path, lock=lock, holds=holds)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, check=False)
    assert done.returncode == 10 + found
