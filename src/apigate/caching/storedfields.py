"""Which fields of a response are kept with it.

Rule: what belongs to one connection, one request or one client is not part of a stored response.

Source: RFC 9111, section 3.1; RFC 9110, section 7.6.1.
"""

from apigate.caching.directives import Directives, parse_directives
from apigate.core.message import FieldLines, Headers

__all__ = ["PER_REQUEST", "connection_fields", "kept_fields", "withheld_fields"]

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_GUIDES = frozenset({"cache-control", "cdn-cache-control", "apigate-cache-control", "vary"})
"""What the cache itself goes by stays, whatever names it: without Vary, one client would get what was another's."""

PER_REQUEST = frozenset(
    {
        "age",  # the cache's own counts
        "authentication-info",
        "b3",
        "cache-status",
        "cf-ray",
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "request-id",
        "retry-after",
        "server-timing",
        "traceparent",
        "tracestate",
        "x-amz-cf-id",
        "x-amz-id-2",
        "x-amz-request-id",
        "x-amzn-requestid",
        "x-amzn-trace-id",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-request-id",
        "x-trace-id",
    }
)
"""What is about one request or one client, and would mislead the next one."""

_NOTHING: frozenset[str] = frozenset()
_LISTS = frozenset({"no-cache", "private"})  # directives that may name fields
_NEVER_STORED = PER_REQUEST | {"content-length"}
_LEFT_OUT = _HOP_BY_HOP | _NEVER_STORED  # of the many responses that name no other


def connection_fields(headers: Headers) -> frozenset[str]:
    """The lower-case names of the fields that belong to a message's connection (RFC 9110, section 7.6.1)."""
    if "connection" not in headers:
        return _HOP_BY_HOP
    named = {part.strip().lower() for value in headers.get_all("connection") for part in value.split(",")}
    return (_HOP_BY_HOP | named) - _GUIDES


def withheld_fields(headers: Headers, directives: Directives) -> frozenset[str]:
    """The lower-case names of the fields that `no-cache="..."` and `private="..."` keep out of a stored response.

    Args:
        headers: The response's fields.
        directives: The directives that count; those of Cache-Control keep fields out as well.

    Source: RFC 9111, sections 5.2.2.4 and 5.2.2.7.
    """
    said = parse_directives(headers.get_all("cache-control"))
    if not (_LISTS.isdisjoint(said) and _LISTS.isdisjoint(directives)):
        named = said.fields("no-cache") | said.fields("private")
        return (named | directives.fields("no-cache") | directives.fields("private")) - _GUIDES
    return _NOTHING


def kept_fields(lines: FieldLines, headers: Headers, directives: Directives) -> tuple[tuple[str, str], ...]:
    """The field lines that are stored, without Content-Length.

    Left out is also what `no-cache="..."` and `private="..."` name: these must not be reused without asking the app.

    Args:
        lines: The field lines as they came.
        headers: The same by name.
        directives: The directives that count.
    """
    own, withheld = connection_fields(headers), withheld_fields(headers, directives)
    left_out = _LEFT_OUT if own is _HOP_BY_HOP and not withheld else own | withheld | _NEVER_STORED
    return tuple([line for line in lines if line[0].lower() not in left_out])
