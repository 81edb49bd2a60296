"""What is told of an invalidation: the whole of it, or where that is too long, more."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate.caching.store import EVERYTHING, MOST_TEXT, Invalidation, bounded, log_of, mark_of, position_of

LOG = bytes(range(16))
texts = st.text(st.characters(), max_size=300).map(lambda text: text * 4)


@given(st.integers(0, 2**64 - 1))
def test_a_mark_has_a_log_and_a_position(position):
    mark = mark_of(LOG, position)
    assert (log_of(mark), position_of(mark), len(mark)) == (LOG, position, 24)


@given(st.sampled_from(["scope", "prefix"]), texts)
def test_what_is_told_fits_and_holds_all_of_what_was_meant(kind, text):
    told = bounded(Invalidation(kind, text))
    raw = text.encode("utf-8", "surrogatepass")
    assert len(told.text.encode("utf-8", "surrogatepass")) <= MOST_TEXT
    if len(raw) <= MOST_TEXT:
        assert told == (kind, text)
    elif kind == "prefix":
        assert told.kind == "prefix"
        assert text.startswith(told.text)
        assert len(told.text.encode("utf-8", "surrogatepass")) > MOST_TEXT - 4
    else:
        assert told == EVERYTHING


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path:/" + "a" * 474, Invalidation("scope", "path:/" + "a" * 474)),
        ("path:/" + "a" * 475, Invalidation("scope", f"path#{sha256(b'path:/' + b'a' * 475).hexdigest()}")),
        ("group:https://a.example:x" + "a" * 460, EVERYTHING),
    ],
    ids=["just fits", "a long path", "no path"],
)
def test_a_long_path_becomes_its_digest_and_what_is_no_path_everything(text, told):
    assert bounded(Invalidation("scope", text)) == told


@pytest.mark.parametrize(
    ("prefix", "cut"), [("/" + "a" * 999, "/" + "a" * 479), ("/" + "é" * 300, "/" + "é" * 239)], ids=["a", "é"]
)
def test_a_long_prefix_is_cut_between_characters(prefix, cut):
    assert bounded(Invalidation("prefix", prefix)) == Invalidation("prefix", cut)
