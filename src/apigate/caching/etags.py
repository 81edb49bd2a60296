"""Entity tags: the names of representations, and the two ways to compare them.

Source: RFC 9110, sections 8.8.3, 13.1.1 and 13.1.2.
"""

import re
from typing import Literal, NamedTuple

__all__ = ["EntityTag", "matches_strongly", "matches_weakly", "parse_entity_tag", "parse_entity_tags"]

# Texts, compiled at first use. `W` is case-sensitive; obs-text is allowed, as fields are Latin-1 here.
_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_MEMBER = rf"[ \t]*+(?:{_TAG}[ \t]*+)?(?:,|\Z)"


class EntityTag(NamedTuple):
    """The validator of one representation.

    Attributes:
        opaque: What stands between the quotes.
        weak: Whether representations that are only equivalent may share it.

    Source: RFC 9110, section 8.8.3.

    >>> str(EntityTag("v1", weak=True))
    'W/"v1"'
    """

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        """As it is sent."""
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


def parse_entity_tag(text: str) -> EntityTag | None:
    """The entity tag that a field is: ETag, or If-Range where it is no date.

    Returns:
        The tag; None where the text is none, as one without quotes.

    Source: RFC 9110, section 8.8.3.

    >>> parse_entity_tag('W/"v1"'), parse_entity_tag("v1")
    (EntityTag(opaque='v1', weak=True), None)
    """
    match = re.fullmatch(_TAG, text.strip(" \t"))
    return EntityTag(match[2], bool(match[1])) if match else None


def parse_entity_tags(text: str) -> tuple[EntityTag, ...] | Literal["*"] | None:
    """The entity tags of If-None-Match or If-Match.

    Args:
        text: The field value; lines joined by a comma.

    Returns:
        The tags in order; `"*"`, which stands for any representation; None where the text is neither, and so the
        field no condition.

    Source: RFC 9110, sections 13.1.1 and 13.1.2.

    >>> parse_entity_tags('"a,b", W/"c"')
    (EntityTag(opaque='a,b', weak=False), EntityTag(opaque='c', weak=True))
    """
    if text.strip(" \t") == "*":
        return "*"
    member = re.compile(_MEMBER)
    tags: list[EntityTag] = []
    at = 0
    while at < len(text):
        match = member.match(text, at)
        if match is None:
            return None
        if match[2] is not None:  # else an empty member, which a recipient passes over
            tags.append(EntityTag(match[2], bool(match[1])))
        at = match.end()
    return tuple(tags) or None


def matches_weakly(one: EntityTag, other: EntityTag) -> bool:
    """Whether both name equivalent representations: the comparison of If-None-Match.

    Source: RFC 9110, section 8.8.3.2.
    """
    return one.opaque == other.opaque


def matches_strongly(one: EntityTag, other: EntityTag) -> bool:
    """Whether both name the same octets: the comparison of If-Match and If-Range.

    Source: RFC 9110, section 8.8.3.2.
    """
    return one.opaque == other.opaque and not one.weak and not other.weak
