"""The fields that let a page of another origin read a refusal (Fetch standard, section 3.3).

Without them a browser reports a network error where the gateway said 429. Frameworks have CORS layers of their own,
which the gateway asks; this is for apps that have none it can find.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from apigate.core.errors import ConfigurationError
from apigate.core.message import Field, Response, field
from apigate.core.names import known_keywords

__all__ = ["CORS"]

_LONGEST = 300  # a host name has at most 253 characters
_READABLE = ("Retry-After", "RateLimit", "RateLimit-Policy")


@final
@known_keywords()
@dataclass(frozen=True, slots=True, kw_only=True)
class CORS:
    """Which origins may read the gateway's own responses. Preflights are the app's to answer.

    Args:
        allow_origins: Origins such as `https://shop.example`, or `*` for all.
        allow_origin_regex: A regular expression that matches the whole of further ones.
        allow_credentials: Whether requests may carry cookies or credentials.
        expose_headers: Fields that the page may read.

    Raises:
        ConfigurationError: A part cannot be used.

    >>> CORS(allow_origins=["https://shop.example"]).allows("https://shop.example")
    True
    """

    allow_origins: Sequence[str] = ()
    allow_origin_regex: str | None = None
    allow_credentials: bool = False
    expose_headers: Sequence[str] = _READABLE

    def __post_init__(self) -> None:
        """Check what a browser would not understand."""
        for setting, values in (("allow_origins", self.allow_origins), ("expose_headers", self.expose_headers)):
            if isinstance(values, str) or not all(isinstance(value, str) and _is_plain(value) for value in values):
                raise ConfigurationError(f"CORS {setting}: {values!r} is not a list of texts")
        for origin in self.allow_origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+|null", origin):
                raise ConfigurationError(
                    f"CORS allow_origins: {origin!r} is no origin; write scheme and host, as 'https://shop.example'"
                )
        if not isinstance(self.allow_credentials, bool):
            raise ConfigurationError(f"CORS allow_credentials: {self.allow_credentials!r} is not True or False")
        if self.allow_origin_regex is not None:
            try:
                re.compile(self.allow_origin_regex)
            except (re.error, TypeError) as error:
                raise ConfigurationError(f"CORS allow_origin_regex: {self.allow_origin_regex!r}: {error}") from error
        if not self.allow_origins and self.allow_origin_regex is None:
            raise ConfigurationError("CORS: name allow_origins or allow_origin_regex, or no page may read anything")

    def allows(self, origin: str) -> bool:
        """Tell whether a page of this origin may read."""
        if "*" in self.allow_origins or origin in self.allow_origins:
            return True
        return self.allow_origin_regex is not None and re.fullmatch(self.allow_origin_regex, origin) is not None

    def added(self, response: Response, origin: str) -> Response:
        """The response with the fields for a page of this origin."""
        anyone = "*" in self.allow_origins and not self.allow_credentials
        fields: list[Field] = [] if anyone else [field("Vary", "Origin")]
        if _is_plain(origin) and len(origin) <= _LONGEST and self.allows(origin):
            fields.append(_allowed("*" if anyone else origin))
            if self.allow_credentials:
                fields.append(field("Access-Control-Allow-Credentials", "true"))
            if self.expose_headers:
                fields.append(field("Access-Control-Expose-Headers", ", ".join(self.expose_headers)))
        return Response(response.kind, response.status, (*response.fields, *fields), response.body, response.violated)


def _allowed(origin: str) -> Field:
    """The field that names an origin; not one that is remembered, as clients choose it."""
    name = "Access-Control-Allow-Origin"
    return Field((name, origin), (name.lower().encode(), origin.encode("ascii")))


def _is_plain(text: str) -> bool:
    """Tell whether a text may stand in a field and a list: printable ASCII without space or comma."""
    return bool(text) and all("!" <= character <= "~" and character != "," for character in text)
