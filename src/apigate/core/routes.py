"""The method table: which method of a stage a request is for.

Rules: matching uses the decoded path that the app itself will route on. A literal segment goes before a parameter,
a parameter before a greedy one. HEAD is matched as GET. Doubled and trailing slashes are looked up as they were sent
and collapsed; where both match something, both results count, so that an app which cleans paths is not entered past
a limit. Dot segments have no place in a request (RFC 3986, section 5.2.4 has clients remove them) and are refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar, final

from apigate.core.errors import ConfigurationError

__all__ = [
    "ANY",
    "MethodTable",
    "has_control_character",
    "has_dot_segment",
    "is_no_path",
    "method_key",
    "shape_of",
    "unbraced",
]

ANY = "*"
"""Any verb; alone, the requests that match no other method."""

# Texts, compiled at first use: compiling them here would cost every import a millisecond.
_KEY = r"(?:(?P<verb>[A-Z]+|\*)\s+)?(?P<path>/\S*)"
_PARAMETER = r"\{(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P<greedy>\+)?\}"
_SLASHES = r"//+"

T = TypeVar("T")


def method_key(text: str) -> tuple[str, str]:
    """Verb and path template of a method's name such as `GET /pets/{id}`, `* /pets` or `/files/{proxy+}`.

    Raises:
        ConfigurationError: It is not such a name.

    >>> method_key("GET /pets/{id}"), method_key("/files/{proxy+}")
    (('GET', '/pets/{id}'), ('*', '/files/{proxy+}'))
    """
    match = re.fullmatch(_KEY, text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ConfigurationError(
            f"methods: {text!r} is not a method; write a verb in capitals and a path, as in 'GET /pets/{{id}}', "
            f"or '*' alone for the default"
        )
    verb, path = match["verb"] or ANY, match["path"]
    verb = ANY if verb == "ANY" else verb  # as Amazon API Gateway writes it
    if verb == "HEAD":
        raise ConfigurationError(f"methods: {text!r} cannot be set; HEAD counts as GET of the same path")
    if has_dot_segment(path):
        raise ConfigurationError(f"methods: {text!r} has a dot segment; such requests are always refused")
    if instead := unbraced(path):
        raise ConfigurationError(f"methods: in {text!r} {instead}")
    names: list[str] = []
    for number, segment in enumerate(segments := path.split("/")[1:], start=1):
        if "{" not in segment and "}" not in segment:
            continue
        parameter = re.fullmatch(_PARAMETER, segment)
        if parameter is None:
            raise ConfigurationError(
                f"methods: in {text!r} the segment {segment!r} must be a whole parameter, as {{id}}"
            )
        if parameter["greedy"] and number != len(segments):
            raise ConfigurationError(f"methods: in {text!r} the greedy parameter {segment!r} must come last")
        names.append(parameter["name"])
    if len(set(names)) != len(names):
        raise ConfigurationError(f"methods: {text!r} names a parameter twice")
    return verb, path


def unbraced(path: str) -> str | None:
    """What to write where a template has a parameter as others write it, None where it has none.

    >>> unbraced("/pets/<int:id>"), unbraced("/pets/{id}")
    ("write the parameter '<int:id>' with braces, as {id}", None)
    """
    for segment in path.split("/"):
        if segment.startswith(":") or (segment.startswith("<") and segment.endswith(">")):
            return f"write the parameter {segment!r} with braces, as {{id}}"
        if segment.startswith("*") and not segment.strip("*"):
            instead = "{id} for any one segment or, at the end, {rest+} for one or more"
            return f"write {segment!r} with braces, as {instead}"
    return None


def shape_of(path: str) -> str:
    """A template, or a method's name, without the names of its parameters: those of one shape match the same.

    >>> shape_of("GET /pets/{id}"), shape_of("/files/{proxy+}")
    ('GET /pets/{}', '/files/{+}')
    """
    return re.sub(_PARAMETER, lambda found: "{+}" if found["greedy"] else "{}", path)


def has_dot_segment(path: str) -> bool:
    """Tell whether a segment of the decoded path is `.` or `..`.

    >>> has_dot_segment("/a/../b"), has_dot_segment("/a..b/.well-known")
    (True, False)
    """
    return ("/." in path or path.startswith(".")) and any(segment in (".", "..") for segment in path.split("/"))


def is_no_path(verb: str, path: str) -> bool:
    """Tell whether this is no path that a method can have: in absolute form, or without its first slash.

    Some routers find their way even so. The empty path is that of an app's mount; `*` is for OPTIONS alone (RFC 9112,
    section 3.2.4).

    >>> is_no_path("GET", "pets"), is_no_path("GET", "http://shop.example/pets"), is_no_path("GET", "*")
    (True, True, True)
    >>> is_no_path("GET", ""), is_no_path("OPTIONS", "*")
    (False, False)
    """
    return not path.startswith("/") and bool(path) and not (path == "*" and verb == "OPTIONS")


def has_control_character(path: str) -> bool:
    r"""Tell whether the decoded path has a character that no path needs and some routers stumble over.

    Such as a newline at its end, which a regular expression's `$` lets pass.

    >>> has_control_character("/orders\n"), has_control_character("/bücher")
    (True, False)
    """
    return not path.isprintable() and any(character < " " or character == "\x7f" for character in path)


@final
class _Node(Generic[T]):
    """One segment's place in the tree of templates."""

    __slots__ = ("greedy", "here", "literals", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.greedy: dict[str, T] = {}
        self.here: dict[str, T] = {}


@final
class MethodTable(Generic[T]):
    """Finds the values of the methods that a request matches.

    >>> table = MethodTable({"GET /pets": "list", "GET /pets/{id}": "one", "* /pets/{id}": "other"})
    >>> (
    ...     table.find("GET", "/pets/7"),
    ...     table.find("PUT", "/pets/7"),
    ...     table.find("GET", "/cats"),
    ...     table.find("HEAD", "/pets/"),
    ... )
    (('one',), ('other',), (), ('list',))
    """

    __slots__ = ("_root", "static")

    def __init__(self, methods: Mapping[str, T]) -> None:
        """Build the table.

        Args:
            methods: Values by the method's name; `*` alone is not one of them.

        Raises:
            ConfigurationError: A name is not one, or two names match exactly the same requests.
        """
        self._root: _Node[T] = _Node()
        self.static: dict[tuple[str, str], tuple[T, ...]] = {}
        names: dict[tuple[str, str], str] = {}
        for name, value in methods.items():
            verb, path = method_key(name)
            same = names.setdefault((verb, shape_of(path)), name)
            if same != name:
                raise ConfigurationError(f"methods: {name!r} and {same!r} match the same requests; keep one of them")
            self._insert(verb, path, value)
        for verb, path in names:
            if "{" not in path:
                for asked in ("GET", "HEAD") if verb == "GET" else (verb,):
                    if asked != ANY:
                        self.static[asked, path] = self.find(asked, path)

    def _insert(self, verb: str, path: str, value: T) -> None:
        node = self._root
        for segment in path.split("/")[1:]:
            parameter = re.fullmatch(_PARAMETER, segment)
            if parameter is None:
                node = node.literals.setdefault(segment, _Node())
            elif parameter["greedy"]:
                node.greedy[verb] = value
                return
            else:
                node.parameter = node.parameter or _Node()
                node = node.parameter
        node.here[verb] = value

    def find(self, verb: str, path: str) -> tuple[T, ...]:
        """The value of the method matched; several where the path as sent and cleaned match different ones; or none.

        Args:
            verb: The request's method; letter case does not matter, as some frameworks ignore it.
            path: The decoded path, without dot segments.
        """
        verb = verb.upper()
        if verb == "HEAD":
            verb = "GET"
        if "\ufffd" in path:  # bytes that are no UTF-8, which some frameworks leave out
            return tuple(dict.fromkeys((*self._cleaned(verb, path), *self._cleaned(verb, path.replace("\ufffd", "")))))
        return self._cleaned(verb, path or "/")

    def _cleaned(self, verb: str, path: str) -> tuple[T, ...]:
        """What the path as sent matches, and what it matches without doubled and trailing slashes."""
        sent = self._match(verb, path)
        if path == "/" or not (path.endswith("/") or "//" in path):
            return sent
        merged = re.sub(_SLASHES, "/", path)
        found = (*sent, *self._match(verb, merged), *self._match(verb, merged.rstrip("/") or "/"))
        return tuple(dict.fromkeys(found))

    def _match(self, verb: str, path: str) -> tuple[T, ...]:
        if not path.startswith("/"):
            return ()
        found = _descend(self._root, path.split("/"), 1, verb)
        return () if found is None else (found[0],)


def _descend(node: _Node[T], segments: Sequence[str], place: int, verb: str) -> tuple[T] | None:
    """The best match at or below a node. Each node is visited at most once, so no path can make this expensive."""
    if place == len(segments):
        return _of_verb(node.here, verb)
    segment = segments[place]
    literal = node.literals.get(segment)
    found = None if literal is None else _descend(literal, segments, place + 1, verb)
    if found is None and node.parameter is not None and segment:
        found = _descend(node.parameter, segments, place + 1, verb)
    if found is None and node.greedy and (segment or place + 1 < len(segments)):
        found = _of_verb(node.greedy, verb)
    return found


def _of_verb(values: Mapping[str, T], verb: str) -> tuple[T] | None:
    """The value for this verb, else for any, in a tuple as a value may be anything."""
    if verb in values:
        return (values[verb],)
    return (values[ANY],) if ANY in values else None
