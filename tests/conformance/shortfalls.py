"""Every case in which apigate falls short, and why. The tests allow no other; and one that goes well has to leave."""

from collections.abc import Mapping

from tests.conformance.grading import GOOD

NO_INTERIM = "neither WSGI nor plain ASGI hands on interim answers"

NO_PARTS = "a response is stored whole or not at all, so that what is served is what the app once sent"

# Of the cases that are required or optimal.
EVERYWHERE = {
    "interim-103": NO_INTERIM,
    "interim-not-cached": NO_INTERIM,
    "interim-no-header-reuse": NO_INTERIM,
    "partial-store-partial-reuse-partial": NO_PARTS,
    "partial-store-partial-reuse-partial-byterange": NO_PARTS,
}
BY_DEFAULT = {
    "other-set-cookie": "an answer that sets a cookie is not stored unless the policy names the cookie",
}
OVER_HTTP = {
    "headers-store-Transfer-Encoding": "the client library of the forwarding app rejects an unknown transfer coding",
}

EARLY_HINTS = {"interim-not-cached"}  # goes well under a server with the extension `http.response.early_hint` of ASGI

# Of the cases that are questions, those that apigate answers by no.
FIRST_COUNTS = "of two lifetimes the first counts (RFC 9111, section 4.2.1)"
NO_TAG = "an entity tag without quotes is none (RFC 9110, section 8.8.3)"
DESCRIBES = "what describes the content stays with the content that is kept (RFC 9111, section 3.2)"
ANSWERED_NO = {
    "304-etag-update-response-Content-Encoding": DESCRIBES,
    "304-etag-update-response-Content-Range": "a response with Content-Range is a part, and is not stored",
    "304-etag-update-response-Content-Type": DESCRIBES,
    "age-parse-numeric-parameter": "an Age that is no number is ignored (RFC 9111, section 5.1)",
    "conditional-etag-forward-unquoted": NO_TAG,
    "conditional-etag-strong-generate-unquoted": NO_TAG,
    "conditional-etag-unquoted-respond-quoted": NO_TAG,
    "conditional-etag-unquoted-respond-unquoted": NO_TAG,
    "freshness-max-age-decimal-five": "a lifetime that is no whole number is 0 (RFC 9111, section 4.2.1)",
    "freshness-max-age-two-stale-fresh-sameline": FIRST_COUNTS,
    "freshness-max-age-two-stale-fresh-sepline": FIRST_COUNTS,
    "head-200-freshness-update": "a response to HEAD changes nothing that is stored",
    "heuristic-delta-10": "a tenth of ten seconds is less than the pause",
    "other-age-delay": "the app's own response is passed on without an Age",
    "stale-warning-stored": "Warning is obsolete (RFC 9111, section 5.5)",
}


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
