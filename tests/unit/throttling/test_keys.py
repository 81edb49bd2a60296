"""Addresses, and what an identity's bucket is kept under."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apigate.throttling.keys import LONGEST_KEY, address_of, bucket_key, forwarded_for, hop_address, network_of
from tests.strategies import UNHURRIED


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("192.0.2.1:", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[192.0.2.1]:443", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_an_address_is_found_without_port_brackets_and_zone(text, address):
    assert address_of(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "localhost",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.1.1",
        "192.0.2.1/24",
        "2001:db8::1::2",
        "[]",
        "[]:80",
        "[",
        ":80",
        "/run/app.sock",
        "\u0661\u0669\u0662.0.2.1",
        "192.0.2.1, 192.0.2.2",
        "12345",
        "0x7f000001",
        "%eth0",
        "\0",
    ],
)
def test_what_is_no_address_is_none(text):
    assert address_of(text) is None


@UNHURRIED
@given(st.text() | st.from_regex(r"\[?[0-9a-f:.%]*\]?(:\d*)?"))
def test_no_text_raises(text):
    address = address_of(text)
    assert address is None or network_of(address)


@UNHURRIED
@given(st.ip_addresses())
def test_every_form_of_an_address_is_the_same_client(address):
    network = network_of(address_of(str(address)))
    forms = [address.exploded, address.exploded.upper(), f"[{address}]:80", f"[{address}]"]
    if address.version == 4:
        forms += [f"{address}:80", f"::ffff:{address}"]
    assert {network_of(address_of(form)) for form in forms} == {network}


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_client_is_an_ipv4_address_or_the_64_of_an_ipv6_address(address, network):
    assert network_of(ip_address(address)) == network


@pytest.mark.parametrize(
    ("values", "members"),
    [
        (["for=192.0.2.1"], ["192.0.2.1"]),
        (["For=192.0.2.1;Proto=https;by=10.0.0.1"], ["192.0.2.1"]),
        (["proto=https; for=192.0.2.1"], ["192.0.2.1"]),
        (["for=192.0.2.1, for=198.51.100.7"], ["192.0.2.1", "198.51.100.7"]),
        (["for=192.0.2.1", "for=198.51.100.7"], ["192.0.2.1", "198.51.100.7"]),
        (['for="[2001:db8::1]:4711"'], ["[2001:db8::1]:4711"]),
        (['for="_hidden"'], ["_hidden"]),
        (["for=unknown"], ["unknown"]),
        (["proto=https"], ["unknown"]),
        (["for=192.0.2.1, proto=https"], ["192.0.2.1", "unknown"]),
        (["forward=192.0.2.1"], ["unknown"]),
        ([""], ["unknown"]),
        ([",,"], ["unknown", "unknown", "unknown"]),
        (["for"], [""]),
        (["for="], [""]),
    ],
)
def test_the_for_parameters_of_forwarded_in_order(values, members):
    assert forwarded_for(values, 9) == members
    assert forwarded_for(values, 1) == members[-1:]


def test_an_open_quote_of_a_client_swallows_nothing_that_a_proxy_wrote_after_it():
    """RFC 7239 says quoted strings may hold commas; a proxy that appends to what a forger sent must still be read."""
    assert forwarded_for(['for="203.0.113.1', "for=198.51.100.7"], 9)[-1] == "198.51.100.7"
    assert forwarded_for(['for="203.0.113.1, for=198.51.100.7'], 9)[-1] == "198.51.100.7"


@pytest.mark.parametrize(
    ("chain", "hops", "seen"),
    [
        ([], 0, "10.0.0.1"),
        ([], 1, "10.0.0.1"),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3"], 0, "10.0.0.1"),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3"], 1, "3.3.3.3"),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3"], 2, "2.2.2.2"),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3"], 3, "1.1.1.1"),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3"], 9, "1.1.1.1"),
        (["1.1.1.1", "garbage"], 1, "10.0.0.1"),
        (["1.1.1.1", "garbage"], 2, "10.0.0.1"),
        (["1.1.1.1", "garbage", "3.3.3.3"], 3, "3.3.3.3"),
        (["1.1.1.1", ""], 1, "10.0.0.1"),
    ],
)
def test_as_many_members_are_believed_as_there_are_proxies(chain, hops, seen):
    assert hop_address("10.0.0.1", chain, hops) == ip_address(seen)


@pytest.mark.parametrize("peer", [None, "", "/run/app.sock", "testclient"])
def test_a_peer_without_an_address_has_none_but_its_proxies_word_counts(peer):
    assert hop_address(peer, ["1.1.1.1"], 0) is None
    assert hop_address(peer, ["1.1.1.1"], 1) == ip_address("1.1.1.1")


@UNHURRIED
@given(
    forged=st.lists(st.text(max_size=20) | st.ip_addresses().map(str), max_size=5),
    honest=st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=3),
)
def test_what_a_client_writes_itself_is_never_believed(forged, honest):
    assert hop_address("10.0.0.1", [*forged, *honest], len(honest)) == ip_address(honest[0])


@pytest.mark.parametrize("identity", ["a", "ip:192.0.2.1", "x" * LONGEST_KEY, ""])
def test_a_short_identity_is_its_own_key(identity):
    assert bucket_key(identity) == identity


@pytest.mark.parametrize("identity", ["x" * (LONGEST_KEY + 1), "x" * 100_000, "\u00e9", "\ud800"])
def test_any_other_is_kept_as_16_bytes(identity):
    key = bucket_key(identity)
    assert isinstance(key, bytes)
    assert len(key) == 16
    assert key == bucket_key(identity) != bucket_key(identity + "x")
