"""How a request's stage is found: by the path's first segment, by host, or by a header.

Rule: what names no stage gets none. A request that matches nothing is a 404, never another stage.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol, cast, final

from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_function
from apigate.core.message import Request

__all__ = ["Header", "Host", "PathPrefix", "StageSelector", "parse_selector"]


class StageSelector(Protocol):
    """Finds a stage's name."""

    def select(self, request: Request) -> tuple[str, str] | None:
        """The stage's name, and the start of the path that names it and is taken off; None if there is none."""
        ...

    def names(self) -> frozenset[str] | None:
        """Every name it may give, or None where only the request can tell."""
        ...


@final
class PathPrefix:
    """The first segment of the path is the stage's name: `/prod/pets` is `/pets` of `prod`.

    The app finds the segment in `root_path` (ASGI) or `SCRIPT_NAME` (WSGI), so that it builds right links.
    """

    def select(self, request: Request) -> tuple[str, str] | None:
        """The first segment."""
        if not request.path.startswith("/"):
            return None
        name = request.path[1:].partition("/")[0]
        return (name, f"/{name}") if name else None

    def names(self) -> None:
        """Any segment may be one."""
        return

    def __repr__(self) -> str:
        """As it is written."""
        return "PathPrefix()"


@final
class Host:
    """The `Host` field names the stage, without its port and without regard to case.

    Args:
        stages: Stage by host name.

    Raises:
        ConfigurationError: It is empty, or not a mapping of texts.

    >>> Host({"api.example": "prod", "beta.api.example": "beta"})
    Host({'api.example': 'prod', 'beta.api.example': 'beta'})
    """

    def __init__(self, stages: Mapping[str, str]) -> None:
        """Take hosts in lower case."""
        if not isinstance(stages, Mapping) or not stages or not all(isinstance(host, str) for host in stages):
            raise ConfigurationError(f"stage_by Host: {stages!r} is not a mapping from host to stage")
        self._stages = {host.lower(): stage for host, stage in stages.items()}

    def select(self, request: Request) -> tuple[str, str] | None:
        """The stage of the one Host field; several are nobody's."""
        hosts = request.headers.get_all("host")
        if len(hosts) != 1:
            return None
        host = hosts[0].strip().lower()
        name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
        stage = self._stages.get(name.rstrip("."))
        return None if stage is None else (stage, "")

    def names(self) -> frozenset[str]:
        """The stages of all hosts."""
        return frozenset(self._stages.values())

    def __repr__(self) -> str:
        """As it is written."""
        return f"Host({self._stages!r})"


@final
class Header:
    """A request header names the stage: the client's choice, so no way to separate who may do what.

    Args:
        name: The header.
        default: The stage where it is not sent; without one that is a 404.

    Raises:
        ConfigurationError: The name is empty.
    """

    def __init__(self, name: str, default: str | None = None) -> None:
        """Keep both."""
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"stage_by Header: {name!r} is not the name of a header")
        self._name = name
        self._default = default

    def select(self, request: Request) -> tuple[str, str] | None:
        """The stage named once."""
        values = request.headers.get_all(self._name)
        if len(values) > 1:
            return None
        stage = values[0].strip() if values else self._default
        return None if stage is None else (stage, "")

    def names(self) -> frozenset[str]:
        """What is certain to be asked for."""
        return frozenset() if self._default is None else frozenset({self._default})

    def __repr__(self) -> str:
        """As it is written."""
        return f"Header({self._name!r}, default={self._default!r})"


def parse_selector(selector: object, stages: Collection[str]) -> StageSelector | None:
    """The selector itself, or the one that a configuration file describes.

    Args:
        selector: A selector, `"path-prefix"`, `{"host": {...}}`, `{"header": "x-stage", "default": "prod"}` or None.
        stages: The names of the stages there are.

    Raises:
        ConfigurationError: It is none of these, or it names a stage that is not there.
    """
    found = _described(selector)
    for name in (found.names() if found is not None else None) or ():
        if name not in stages:
            raise ConfigurationError(f"stage_by: {name!r} is no stage; stages are {', '.join(stages)}")
    return found


def _described(selector: Any) -> StageSelector | None:  # Any: whatever a user wrote
    if selector is None or isinstance(selector, Host | Header | PathPrefix):
        return selector
    if selector == "path-prefix":
        return PathPrefix()
    if isinstance(selector, Mapping):
        table = cast("Mapping[str, Any]", selector)
        if set(table) == {"host"}:
            return Host(table["host"])
        if "header" in table and set(table) <= {"header", "default"}:
            return Header(table["header"], table.get("default"))
    if not isinstance(selector, type) and is_function(getattr(cast("object", selector), "select", None), "stage_by"):
        return selector  # type: ignore[no-any-return]  # one of the user's own
    raise ConfigurationError(
        f"stage_by: {selector!r} is unknown; allowed are PathPrefix(), Host({{...}}) and Header(...), in a file "
        f"'path-prefix', {{ host = {{...}} }} and {{ header = '...' }}"
    )
