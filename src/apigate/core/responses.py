"""The responses that a gateway gives itself, by type: `THROTTLED` and its kin, each of them customisable.

Types are named as Amazon API Gateway names them where it has the same one. The body is a problem document (RFC 9457)
by default, or Amazon's `{"message": ...}`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal, final

from apigate.core.context import RequestContext
from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_function
from apigate.core.message import Field, Response, field
from apigate.core.names import known_keywords

__all__ = ["KINDS", "ErrorFormat", "GatewayResponse", "GatewayResponses"]

ErrorFormat = Literal["problem", "amazon"]
"""`problem` is application/problem+json (RFC 9457).

`amazon` is `{"message": "Too Many Requests"}`, with the type in x-amzn-ErrorType.
"""

_REGISTRY = "https://iana.org/assignments/http-problem-types#"  # problem types of draft-ietf-httpapi-ratelimit-headers

KINDS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "THROTTLED": (429, f"{_REGISTRY}quota-exceeded"),
        "OVERLOADED": (503, f"{_REGISTRY}temporary-reduced-capacity"),
        "STORE_UNAVAILABLE": (503, f"{_REGISTRY}temporary-reduced-capacity"),
        "BAD_REQUEST_PARAMETERS": (400, "about:blank"),
        "RESOURCE_NOT_FOUND": (404, "about:blank"),
        "ACCESS_DENIED": (403, "about:blank"),
        "NOT_CACHED": (504, "about:blank"),
    }
)
"""Each type with its status and its problem type."""

DEFAULTS = ("DEFAULT_4XX", "DEFAULT_5XX")
"""Types that stand in for those that are not customised themselves."""

Body = str | Callable[[RequestContext], str]
"""A custom body: a text, or a function of the request's context that returns one."""


@final
@known_keywords()
@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayResponse:
    """How responses of one type look instead; what is left out stays as it is.

    Args:
        status: The HTTP status code, 400 to 599.
        headers: Fields to add; they replace the gateway's own of the same name.
        body: A text, or a function from the request's context to one.
        content_type: The body's media type, if `body` is given.

    Raises:
        ConfigurationError: A part cannot be sent.

    Source: Amazon API Gateway, "Gateway responses for REST APIs".

    >>> GatewayResponse(status=420, body="Enhance your calm", content_type="text/plain").status
    420
    """

    status: int | None = None
    headers: Mapping[str, str] = dataclass_field(default_factory=dict[str, str])
    body: Body | None = None
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        """Check what a client would choke on."""
        if self.status is not None and not (isinstance(self.status, int) and 400 <= self.status <= 599):
            raise ConfigurationError(f"GatewayResponse status: {self.status!r} is not a status from 400 to 599")
        if not (self.body is None or isinstance(self.body, str) or is_function(self.body, "GatewayResponse body")):
            raise ConfigurationError(
                f"GatewayResponse body: {self.body!r} is neither a text nor a function of the request's context"
            )
        if not isinstance(self.headers, Mapping):
            raise ConfigurationError(f"GatewayResponse headers: {self.headers!r} is not a mapping from name to value")
        for name, value in {**self.headers, "content-type": self.content_type}.items():
            if not (isinstance(value, str) and _sendable(f"{name}{value}")) or not _is_token(name):
                raise ConfigurationError(f"GatewayResponse headers: {name!r}: {value!r} cannot be sent as a field")


@final
class GatewayResponses:
    """Makes the gateway's own responses."""

    def __init__(
        self, custom: Mapping[str, GatewayResponse] = MappingProxyType({}), error_format: ErrorFormat = "problem"
    ) -> None:
        """Check the types.

        Raises:
            ConfigurationError: A type or the format is unknown.
        """
        known = (*KINDS, *DEFAULTS)
        if not isinstance(custom, Mapping):
            raise ConfigurationError(f"responses: {custom!r} is not a mapping from type to GatewayResponse")
        for kind, response in custom.items():
            if kind not in known:
                raise ConfigurationError(f"responses: {kind!r} is no type of response; allowed are {', '.join(known)}")
            if not isinstance(response, GatewayResponse):
                raise ConfigurationError(f"responses[{kind!r}]: {response!r} is not a GatewayResponse")
        if error_format not in ("problem", "amazon"):
            raise ConfigurationError(f"error_format: {error_format!r} is unknown; allowed are 'problem', 'amazon'")
        self._custom = dict(custom)
        self._format = error_format

    @property
    def is_standard(self) -> bool:
        """Whether nothing is customised, so that equal refusals are equal for every request."""
        return not self._custom

    def make(
        self,
        kind: str,
        context: RequestContext,
        detail: str,
        fields: Sequence[Field] = (),
        violated: tuple[str, ...] = (),
        status: int | None = None,
    ) -> Response:
        """A response of this type.

        Args:
            kind: The type.
            context: The request that is answered.
            detail: One sentence for people.
            fields: Fields of this one response, such as Retry-After.
            violated: Names of the policies that refused, for events, and for the problem's `violated-policies`.
            status: Instead of the type's own status.
        """
        status = status or KINDS[kind][0]
        custom = None
        if self._custom:
            custom = self._custom.get(kind) or self._custom.get(f"DEFAULT_{status // 100}XX")
        if custom is None:
            body, own = _standard(self._format, kind, status, detail, violated)
            return Response(kind, status, [*own, *fields], body, violated)
        return self._customised(custom, kind, status, context, detail, fields, violated)

    def described(self, kind: str) -> tuple[int, dict[str, Any]]:
        """Status and Response Object (OpenAPI 3.1, section 4.8.17) of this type, for the app's own documentation."""
        status = KINDS[kind][0]
        custom = self._custom.get(kind) or self._custom.get(f"DEFAULT_{status // 100}XX")
        body: dict[str, Any] = _BODIES[self._format]
        headers: dict[str, Any] = dict(_HEADERS)
        if custom is not None:
            status = custom.status or status
            body = body if custom.body is None else {custom.content_type: {}}
            headers |= {name: {"schema": {"type": "string"}} for name in custom.headers}
        description = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else kind
        return status, {"description": description, "headers": headers, "content": body}

    def _customised(
        self,
        custom: GatewayResponse,
        kind: str,
        status: int,
        context: RequestContext,
        detail: str,
        fields: Sequence[Field],
        violated: tuple[str, ...],
    ) -> Response:
        status = custom.status or status
        body, own = _standard(self._format, kind, status, detail, violated)
        if custom.body is not None:
            text = custom.body if isinstance(custom.body, str) else custom.body(context)
            body = text.encode()
            own = _content(custom.content_type, body)
        replaced = {name.lower() for name in custom.headers} - {"content-length"}
        kept = [f for f in (*own, *fields) if f.text[0].lower() not in replaced]
        added = [field(name, value) for name, value in custom.headers.items() if name.lower() in replaced]
        return Response(kind, status, kept + added, body, violated)


_BODIES: Mapping[str, dict[str, Any]] = {
    "problem": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "title": "Problem",
                "properties": {
                    "type": {"type": "string", "format": "uri-reference"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "violated-policies": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["type", "title", "status", "detail"],
            }
        }
    },
    "amazon": {
        "application/json": {
            "schema": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
        }
    },
}
"""The bodies as OpenAPI describes them, by format."""

_AMAZON: Mapping[str, str] = {
    "THROTTLED": "TooManyRequestsException",
    "OVERLOADED": "ServiceUnavailableException",
    "STORE_UNAVAILABLE": "ServiceUnavailableException",
    "BAD_REQUEST_PARAMETERS": "BadRequestException",
    "RESOURCE_NOT_FOUND": "NotFoundException",
    "ACCESS_DENIED": "AccessDeniedException",
    "NOT_CACHED": "GatewayTimeoutException",
}
"""What Amazon's clients know a type by: their retry modes go by this field and not by the body."""

_HEADERS: Mapping[str, Any] = {
    "Retry-After": {"description": "Seconds to wait (RFC 9110, section 10.2.3)", "schema": {"type": "integer"}},
    "RateLimit": {"description": "What is left of each limit that refused", "schema": {"type": "string"}},
}


@lru_cache(maxsize=1024)  # a refusal must cost less than a request: its body is rendered once for each combination
def _standard(
    error_format: ErrorFormat, kind: str, status: int, detail: str, violated: tuple[str, ...]
) -> tuple[bytes, tuple[Field, ...]]:
    """Body and content fields of a response that nobody customised."""
    import json

    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else kind
    if error_format == "amazon":
        body = json.dumps({"message": title}).encode()
        return body, (*_content("application/json", body), field("x-amzn-ErrorType", _AMAZON[kind]))
    problem: dict[str, object] = {"type": KINDS[kind][1], "title": title, "status": status, "detail": detail}
    if violated and kind != "STORE_UNAVAILABLE":  # which could not be asked, so that nobody knows of a violation
        problem["violated-policies"] = list(violated)
    body = json.dumps(problem).encode()
    return body, _content("application/problem+json", body)


def _content(media_type: str, body: bytes) -> tuple[Field, ...]:
    return field("Content-Type", media_type), field("Content-Length", str(len(body)))


def _is_token(name: object) -> bool:
    """Tell whether this may be a field's name (RFC 9110, section 5.6.2)."""
    return isinstance(name, str) and bool(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name))


def _sendable(text: str) -> bool:
    """Tell whether text may stand in a field (RFC 9110, section 5.5): Latin-1 without control characters."""
    return all(" " <= character <= "ÿ" and character != "\x7f" for character in text)
