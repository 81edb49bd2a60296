"""Which client a request is counted for."""

from types import SimpleNamespace

import pytest

from apigate import ConfigurationError
from apigate.core.message import Headers, Reader, Request
from apigate.throttling.identity import ClientIdentity

READER = Reader(headers=lambda native: Headers(native["headers"]), query=lambda native: "")


def request(peer="10.0.0.1", *fields):
    return Request("GET", "/", peer, {"headers": fields}, READER)


def named(identity, peer="10.0.0.1", *fields, api_key=None, principal=None):
    return identity(SimpleNamespace(request=request(peer, *fields), api_key=api_key, principal=principal))


def forwarded(*values):
    return [("X-Forwarded-For", value) for value in values]


# ---- kinds


@pytest.mark.parametrize(
    ("verified", "name"),
    [
        ({}, "ip:10.0.0.1"),
        ({"principal": "issuer|alice"}, "principal:issuer|alice"),
        ({"api_key": "k1"}, "key:k1"),
        ({"api_key": "k1", "principal": "issuer|alice"}, "key:k1"),
    ],
)
def test_the_key_goes_before_the_principal_and_both_before_the_address(verified, name):
    assert named(ClientIdentity(), **verified) == name


def test_a_rule_of_ones_own_goes_first_and_may_leave_it_to_the_usual_one():
    identity = ClientIdentity(rule=lambda request: request.headers.get("x-tenant"))
    assert named(identity, "10.0.0.1", ("X-Tenant", "acme"), api_key="k1") == "client:acme"
    assert named(identity, "10.0.0.1", api_key="k1") == "key:k1"


def test_nobody_can_take_the_name_of_another_kind():
    identity = ClientIdentity(rule=lambda request: request.headers.get("x-tenant"))
    names = {
        named(identity, "10.0.0.1", ("X-Tenant", "key:k1")),
        named(identity, "key:k1"),
        named(identity, api_key="k1"),
        named(identity, principal="key:k1"),
    }
    assert len(names) == 4


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("192.0.2.1", "ip:192.0.2.1"),
        ("::ffff:192.0.2.1", "ip:192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "ip:fe80::/64"),
        ("testclient", "ip:testclient"),
        ("", "ip:unknown"),
        (None, "ip:unknown"),
    ],
)
def test_a_peer_without_an_address_is_counted_too(peer, name):
    assert named(ClientIdentity(), peer) == name
    assert named(ClientIdentity(trusted_hops=1), peer) == name


# ---- proxies


def test_no_forwarding_field_is_believed_by_default():
    assert named(ClientIdentity(), "10.0.0.1", *forwarded("1.1.1.1"), ("Forwarded", "for=1.1.1.1")) == "ip:10.0.0.1"


@pytest.mark.parametrize(
    ("values", "hops", "name"),
    [
        (["1.1.1.1"], 1, "ip:1.1.1.1"),
        (["6.6.6.6, 1.1.1.1"], 1, "ip:1.1.1.1"),
        (["6.6.6.6", "1.1.1.1"], 1, "ip:1.1.1.1"),
        (["6.6.6.6,1.1.1.1,10.0.0.2"], 2, "ip:1.1.1.1"),
        (["6.6.6.6", "1.1.1.1", "10.0.0.2"], 2, "ip:1.1.1.1"),
        (["1.1.1.1:55000"], 1, "ip:1.1.1.1"),
        (["[2001:db8:1:2::3]:55000"], 1, "ip:2001:db8:1:2::/64"),
        (["2001:db8:1:2::3"], 1, "ip:2001:db8:1:2::/64"),
        (["6.6.6.6, garbage"], 1, "ip:10.0.0.1"),
        (["6.6.6.6, "], 1, "ip:10.0.0.1"),
        ([""], 1, "ip:10.0.0.1"),
        ([], 1, "ip:10.0.0.1"),
    ],
)
def test_as_many_proxies_are_believed_as_are_trusted(values, hops, name):
    assert named(ClientIdentity(trusted_hops=hops), "10.0.0.1", *forwarded(*values)) == name


def test_only_the_one_field_that_the_proxies_write_is_read():
    both = [*forwarded("6.6.6.6"), ("Forwarded", 'for="[2001:db8::1]:80"')]
    assert named(ClientIdentity(1, "forwarded"), "10.0.0.1", *both) == "ip:2001:db8::/64"
    assert named(ClientIdentity(1, "Forwarded"), "10.0.0.1", *forwarded("6.6.6.6")) == "ip:10.0.0.1"
    assert named(ClientIdentity(1), "10.0.0.1", *both) == "ip:6.6.6.6"


def test_the_same_answer_when_asked_again():
    identity = ClientIdentity(trusted_hops=1)
    asked = [
        ("10.0.0.1", "1.1.1.1"),
        ("10.0.0.1", "2.2.2.2"),
        ("10.0.0.2", "1.1.1.1, garbage"),
        ("10.0.0.1", "1.1.1.1"),
    ]
    expected = ["ip:1.1.1.1", "ip:2.2.2.2", "ip:10.0.0.2", "ip:1.1.1.1"]
    for _ in range(3):
        assert [named(identity, peer, *forwarded(value)) for peer, value in asked] == expected


def test_no_number_and_no_length_of_what_clients_write_is_remembered():
    identity = ClientIdentity(trusted_hops=1)
    for number in range(10_000):
        named(identity, "10.0.0.1", *forwarded(f"{number}, 1.1.1.1"))
    named(identity, "10.0.0.1", *forwarded("6" * 100_000 + ", 1.1.1.1"))
    assert len(identity._names) <= 4_096
    assert max(len(value) for _, value in identity._names) < 200


# ---- settings and hints


@pytest.mark.parametrize(
    ("peer", "fields", "noticed"),
    [
        ("10.0.0.1", [("X-Forwarded-For", "1.1.1.1")], True),
        ("127.0.0.1", [("Forwarded", "for=1.1.1.1")], True),
        (None, [("X-Forwarded-For", "1.1.1.1")], True),
        ("10.0.0.1", [], False),
        ("8.8.8.8", [("X-Forwarded-For", "1.1.1.1")], False),
    ],
)
def test_a_proxy_that_nobody_declared_is_noticed(peer, fields, noticed):
    identity = ClientIdentity()
    named(identity, peer, *fields)
    assert identity.untrusted_forwarding is noticed


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"trusted_hops": -1}, "trusted_hops"),
        ({"trusted_hops": 1.0}, "trusted_hops"),
        ({"trusted_hops": True}, "trusted_hops"),
        ({"forwarding_header": "x-real-ip"}, "allowed are x-forwarded-for, forwarded"),
        ({"forwarding_header": None}, "forwarding_header"),
        ({"rule": "x-tenant"}, "not a function"),
    ],
)
def test_settings_are_checked(settings, why):
    with pytest.raises(ConfigurationError, match=why):
        ClientIdentity(**settings)
