"""Invalidation without looking for entries: by number, bounded, and seen by fills that are under way."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate.caching import generations as module
from apigate.caching.generations import Generations
from tests.stored import stored
from tests.threads import in_threads

PET = ("path:/pets/1", "method:GET /pets/{id}", "tag:pets", "group:https://example.com:pets")


def pet(epoch=0, path="/pets/1"):
    return stored(scopes=(f"path:{path}", *PET[1:]), epoch=epoch)


@pytest.mark.parametrize("scope", ["", "prefix:", "prefix:/", "prefix:/pets", "prefix:/pets/1", *PET])
def test_what_concerns_a_response_makes_it_invalid(scope):
    generations, response = Generations(), pet()
    assert generations.is_valid(response)
    assert generations.invalidate(scope) == generations.epoch == 1
    assert not generations.is_valid(response)
    assert not generations.is_valid(response)
    assert generations.is_valid(pet(epoch=1))


@pytest.mark.parametrize(
    "scope",
    ["path:/pets/2", "path:/pets", "tag:pet", "tag:", "prefix:/pets/12", "prefix:pets", "prefix:tag", "method:"],
)
def test_what_does_not_concern_it_leaves_it_valid(scope):
    generations, response = Generations(), pet()
    generations.invalidate(scope)
    assert generations.is_valid(response)
    assert response.epoch == 1


def test_a_response_that_was_under_way_is_caught():
    generations = Generations()
    epoch = generations.epoch  # taken when the request is sent
    generations.invalidate("tag:pets")
    assert not generations.is_valid(pet(epoch))


def test_a_prefix_is_one_of_decoded_paths():
    generations = Generations()
    assert generations.invalidate_prefix("/päts/") == 1
    assert not generations.is_valid(pet(path="/päts/1"))
    assert generations.is_valid(pet(path="/päts"))


def test_a_scope_that_was_invalidated_again_counts_from_then():
    generations = Generations()
    for scope in ("tag:pets", "prefix:/pets"):
        first = generations.invalidate(scope)
        response = pet(first)
        assert generations.is_valid(response)
        generations.invalidate(scope)
        assert not generations.is_valid(response)


def test_prefixes_stay_in_order_when_one_comes_again():
    generations = Generations()
    for prefix in ("/pets", "/dogs", "/pets"):
        generations.invalidate_prefix(prefix)
    assert not generations.is_valid(pet(epoch=2))
    assert generations.is_valid(pet(epoch=2, path="/dogs"))


def test_what_is_invalidated_during_the_look_is_seen_by_the_next():
    class Interrupted(tuple):
        """Scopes with an invalidation right after they were looked at."""

        __slots__ = ()

        def __iter__(self):
            yield from super().__iter__()
            if generations.epoch == 1:
                generations.invalidate("tag:pets")

    generations, response = Generations(), pet()
    generations.invalidate("tag:dogs")
    response.scopes = Interrupted(PET)
    assert generations.is_valid(response)
    assert not generations.is_valid(response)


def test_several_scopes_take_one_number_and_none_take_none():
    generations = Generations()
    assert generations.apply(["tag:a", "prefix:/b", "path:/c"]) == 1
    assert generations.apply([]) == generations.epoch == 1
    assert [generations.is_valid(stored(scopes=(s,))) for s in ("tag:a", "path:/b", "path:/c", "tag:d")] == [
        False,
        False,
        False,
        True,
    ]


def test_who_shares_a_hash_with_an_invalidated_scope_has_a_miss():
    class Twin(str):
        __slots__ = ()

        def __hash__(self):
            return 7

    generations = Generations()
    generations.invalidate(Twin("tag:a"))
    assert not generations.is_valid(stored(scopes=(Twin("tag:b"),)))


def test_what_was_forgotten_counts_as_everything_and_what_was_looked_at_since_stays():
    generations = Generations(max_scopes=8)
    cold, hot = pet(), pet()
    for number in range(9):
        generations.invalidate(f"tag:{number}")
        assert generations.is_valid(hot)
    assert not generations.is_valid(cold)  # tags 0 to 3 are forgotten
    assert generations.is_valid(pet(epoch=4))


def test_forgotten_prefixes_count_as_everything():
    generations = Generations(max_prefixes=8)
    cold, hot = pet(), pet()
    for number in range(9):
        generations.invalidate_prefix(f"/{number}")
        assert generations.is_valid(hot)
    assert not generations.is_valid(cold)
    assert generations.is_valid(pet(epoch=4))


def test_memory_is_bounded_whatever_is_invalidated():
    generations = Generations()
    for number in range(150_000):
        generations.invalidate(f"path:/{number}")
    for number in range(1_500):
        generations.invalidate_prefix(f"/{number}")
    _, young, old = generations._marks
    assert len(young) + len(old) <= module.MAX_SCOPES
    assert len(generations._prefixes[1]) <= module.MAX_PREFIXES
    assert generations.bytes <= 9_000_000
    generations.invalidate("")
    assert generations.bytes == 0


SCOPES = st.sampled_from(["", *[f"tag:{n}" for n in range(8)], *[f"path:/{a}/{b}" for a in "ab" for b in "ab"]])
PREFIXES = st.sampled_from(["prefix:/a", "prefix:/a/", "prefix:/b", "prefix:/b/a", "prefix:/c", "prefix:"])
ENTRIES = st.tuples(st.sampled_from(["/a/a", "/a/b", "/b/a", "/b/b"]), st.sets(st.integers(0, 7), max_size=2))
STEPS = st.lists(SCOPES | PREFIXES | ENTRIES | st.integers(0, 5), max_size=60)


def concerns(scope, scopes):
    prefix = scope.removeprefix("prefix:")
    return not prefix or scope in scopes or (prefix != scope and any(s.startswith(f"path:{prefix}") for s in scopes))


@given(STEPS)
def test_validity_is_that_of_a_log_of_all_invalidations(steps):
    roomy, tight, log = Generations(), Generations(max_scopes=4, max_prefixes=2), []
    entries = []
    for step in steps:
        match step:
            case str():
                log.append(step)
                assert roomy.invalidate(step) == tight.invalidate(step) == len(log)
            case int():
                for born, mine, tights in entries[step : step + 1]:
                    valid = not any(concerns(scope, mine.scopes) for scope in log[born:])
                    assert roomy.is_valid(mine) is valid
                    assert valid or not tight.is_valid(tights)
            case path, tags:
                scopes = (f"path:{path}", *(f"tag:{tag}" for tag in sorted(tags)))
                fresh = (stored(scopes=scopes, epoch=len(log)) for _ in range(2))
                entries.append((len(log), *fresh))


@pytest.mark.usefixtures("restless_interpreter")
def test_no_thread_sees_a_response_that_another_has_invalidated_before():
    generations = Generations(max_scopes=64)
    shared = [pet() for _ in range(4)]
    wrong: list[int] = []

    def invalidate(own: int):
        for number in range(1_500):
            mine = stored(scopes=(f"tag:{own}", "path:/x"), epoch=generations.epoch)
            generations.invalidate(f"tag:{own}" if number % 2 else f"prefix:/{own}/{number}")
            for response in shared:
                generations.is_valid(response)
            if number % 2 and generations.is_valid(mine):
                wrong.append(number)

    in_threads(partial(invalidate, own) for own in range(8))
    assert not wrong
    assert generations.epoch == 12_000
