"""Every case in which apigate falls short, and why. The tests allow no other; and one that goes well has to leave."""

from collections.abc import Mapping

from tests.conformance.grading import GOOD

NO_INTERIM = "neither WSGI nor plain ASGI hands on interim answers"

# Of the cases that are required or optimal.
EVERYWHERE = {
    "interim-103": NO_INTERIM,
    "interim-not-cached": NO_INTERIM,
    "interim-no-header-reuse": NO_INTERIM,
}
BY_DEFAULT = {
    "other-set-cookie": "an answer that sets a cookie is not stored unless the policy names the cookie",
}
OVER_HTTP = {
    "headers-store-Transfer-Encoding": "the client library of the forwarding app rejects an unknown transfer coding",
}

EARLY_HINTS = {"interim-not-cached"}  # goes well under a server with the extension `http.response.early_hint` of ASGI

# Of the cases that are questions, those that apigate answers by no.
ANSWERED_NO: dict[str, str] = {}


def known(profile: str, *, over_http: bool = False) -> Mapping[str, str]:
    """The cases that must not go well in a run, and why.

    Args:
        profile: Of `gateways.PROFILES`.
        over_http: Whether it is a run over sockets.
    """
    return EVERYWHERE | ANSWERED_NO | (BY_DEFAULT if profile == "default" else {}) | (OVER_HTTP if over_http else {})


def shortfall(grades: Mapping[str, str]) -> set[str]:
    """The cases that did not go well."""
    return {name for name, grade in grades.items() if grade not in GOOD}
