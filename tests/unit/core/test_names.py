"""Names of gateways, throttles and stages: none can be taken for a part of another one's."""

import pytest

from apigate import ConfigurationError, Gateway, Stage, Throttle
from apigate.core.names import checked_name

OWNERS = {
    "Gateway name": lambda name: Gateway(name=name),
    "Throttle name": lambda name: Throttle({"client": "1/minute"}, name=name),  # may have a part after a colon
    "Stage name": Stage,
}


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("name", ["", "a b", "{a}", "a#2", "a/b", "\u00e4", "a\n", 5, b"shop", ["a"]], ids=repr)
def test_what_is_no_name_is_refused_in_the_same_words(owner, name):
    with pytest.raises(ConfigurationError) as raised:
        OWNERS[owner](name)
    assert str(raised.value) == f"{owner}: {name!r} is no name; give a text of letters, digits, '-', '_' and '.'"


@pytest.mark.parametrize("owner", ["Gateway name", "Stage name"])
def test_only_a_throttle_may_have_a_colon_in_its_name(owner):
    Throttle({"client": "1/minute"}, name="a:b")
    with pytest.raises(ConfigurationError, match=f"{owner}: 'a:b' is no name"):
        OWNERS[owner]("a:b")


@pytest.mark.parametrize("name", ["shop", "Shop-2", "v1.0_beta", "-"])
def test_a_name_is_as_it_was_given(name):
    assert checked_name(name, "Stage name") == name
    assert Gateway(name=name).name == name
