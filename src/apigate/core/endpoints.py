"""Endpoints of a framework, as the gate around the app knows them before the framework runs.

A decorator of the gateway is a mark: it does nothing by itself, but is found here, through the framework's own route,
so that the gate carries out all marks of a request in one pipeline with everything else. Rule: what a route cannot
tell is never a way around a limit. A mark that no gate has carried out is carried out where the endpoint is called.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from inspect import unwrap
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast, final, runtime_checkable
from weakref import WeakKeyDictionary, ref

from apigate.core.message import Request, Response

if TYPE_CHECKING:
    from apigate.core.context import RequestContext

__all__ = [
    "VERBS",
    "Carrier",
    "Decorated",
    "Endpoint",
    "FindEndpoint",
    "Mark",
    "Routing",
    "Served",
    "is_partial",
    "marks_of_class",
    "marks_on",
    "method_name",
    "place_of",
    "set_mark",
    "status_of",
]

VERBS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "QUERY"})
"""Verbs that may name a method; any other counts as `*`, or a client could make names without end."""

_MARK = "_self_mark"  # wrapt keeps what starts so at the wrapper itself


@runtime_checkable
class Mark(Protocol):
    """What a decorator asks of the gate; a policy's domain says what else it holds.

    Attributes:
        owner: What all marks of one gateway have in common: its rule of who is counted.
        refusal: Status and OpenAPI Response Object of its refusals, for the documentation of the endpoint; None where
            it refuses nobody.
    """

    @property
    def owner(self) -> object:
        """See the class."""
        ...

    @property
    def refusal(self) -> tuple[int, dict[str, Any]] | None:
        """See the class."""
        ...


@final
class Endpoint:
    """Where a framework sends a request; one object for each route and verb, compared by identity.

    Attributes:
        method: Verb and canonical template, such as `GET /pets/{id}`.
        marks: What its decorators ask of the gate.
        view: What the framework calls, None where that is not known.
    """

    __slots__ = ("marks", "method", "view")

    def __init__(self, method: str, marks: tuple[Mark, ...] = (), view: object = None) -> None:
        """Keep all three."""
        self.method: str = method
        self.marks: tuple[Mark, ...] = marks
        self.view: object = view

    def __repr__(self) -> str:
        """The method, and how many marks it has."""
        return f"<Endpoint {self.method}{f', {len(self.marks)} marks' if self.marks else ''}>"


FindEndpoint: TypeAlias = Callable[[Request], Endpoint | None]
"""Tells where the app's framework will send a request."""


class Routing(Protocol):
    """The routes of one app, read by the framework's own rules."""

    def find(self, request: Request) -> Endpoint | None:
        """The endpoint that the framework will call, or None where it will answer 404, 405 or a redirect itself."""
        ...

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint there is, for listing."""
        ...

    @property
    def has_cors(self) -> bool:
        """Whether the app adds CORS fields, so that `with_cors` has something to ask."""
        ...

    def with_cors(self, request: Request, response: Response) -> Response:
        """A refusal with the fields that the app's own CORS layer adds to a response to this request."""
        ...


def status_of(outcome: object) -> int:
    """The status of a response, or of what most frameworks will make of an exception."""
    status = getattr(outcome, "status_code", None)
    if isinstance(status, int):
        return status
    return 500 if isinstance(outcome, BaseException) else 200


class Carrier(Protocol):
    """Between the cache and a view of some framework, where the view is its own gate. Any: the core knows no domain."""

    def put_questions(self, exchange: Any) -> Callable[[], None]:
        """Set for the view the request fields that an exchange asks by; gives what takes that back."""
        ...

    def answer(self, answer: Any) -> Any:
        """What the cache answers, as the framework's own kind of response."""
        ...

    def carry(self, exchange: Any, returned: Any) -> Any:
        """Have an exchange hear what the view returned, and give what the framework gets in its place."""
        ...

    def read_content(self, most: int) -> bytes | None:
        """The whole content of the request, which the view can read again; None if it is longer than `most` bytes."""
        ...


class Served(NamedTuple):
    """A request that a framework is serving by a view of its own, found at the view and not by a gate.

    Attributes:
        request: The request.
        method: Verb and canonical template.
        marks: Those of the view that the framework called.
        respond: Makes the framework's own kind of response of one of ours.
        status: Tells the status of what the view returned or raised.
        carrier: How responses pass the cache; None where a view cannot be its own gate for that.
        app: The app that the view is of, where a process may have several of its framework.
        outer: The context at a gate of another gateway further out, if there is one.
    """

    request: Request
    method: str
    marks: tuple[Mark, ...]
    respond: Callable[[Response], Any]  # Any: each framework has its own kind
    status: Callable[[object], int] = status_of
    carrier: Carrier | None = None
    app: object = None
    outer: "RequestContext | None" = None


def method_name(verb: str, template: str) -> str:
    """The name of a method, as the method table has it.

    >>> method_name("head", "/pets/{id}"), method_name("BREW", "/pots")
    ('GET /pets/{id}', '* /pots')
    """
    verb = verb.upper()
    if verb == "HEAD":
        verb = "GET"
    return f"{verb if verb in VERBS else '*'} {template}"


def set_mark(wrapper: Any, mark: Mark) -> None:  # Any: a wrapper of any kind of function
    """Leave a mark on what a decorator returns."""
    setattr(wrapper, _MARK, mark)


def marks_on(function: object, place: str = "") -> tuple[Mark, ...]:
    """The marks on a function, outermost first, also below decorators of others that use `functools.wraps`.

    Args:
        function: The function.
        place: Where it stands, if that is in a class.
    """
    return tuple(dict.fromkeys(_marks(function, place)))


def _marks(function: object, place: str) -> Iterator[Mark]:
    """Follow what decorators leave behind: `__wrapped__`, partials, bound methods."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        mark = getattr(function, _MARK, None)
        if isinstance(mark, Mark):
            yield mark
        else:  # a bound method of a decorated function knows whose it is
            yield from _marks_at(getattr(function, "_self_parent", None))
        if place:
            yield from _applied_later(function, place)
        within = "func" if is_partial(function) else "__wrapped__"
        function = getattr(function, within, None) or getattr(function, "__func__", None)


@final
class Decorated:
    """What decorators have last made of each function; keeps neither of the two."""

    def __init__(self) -> None:
        """Nothing is decorated yet."""
        self._made: WeakKeyDictionary[object, ref[object]] = WeakKeyDictionary()

    def note(self, function: object, made: object) -> None:
        """Note what was made of a function; wrappers of `wrapt` and what they wrap are one and the same here."""
        with suppress(TypeError):  # it cannot be hashed, or not be referred to without being kept
            self._made[function] = ref(made)

    def is_passed_over(self, view: object, views: Sequence[object]) -> bool:
        """Tell whether a view was decorated, and what was made of it is called by none of the views there are."""
        try:
            made = self._made.get(view)
        except TypeError:
            return False
        return made is not None and not any(_has_layer(each, made()) for each in (view, *views))


def _has_layer(view: object, layer: object) -> bool:
    """Tell whether a view is a function, or was made of it by decorators that say so."""
    return layer is not None and unwrap(cast("Any", view), stop=lambda each: each is layer) is layer


def is_partial(function: object) -> bool:
    """Tell whether this is a `functools.partial`."""
    return isinstance(function, partial)


def _marks_at(parent: object) -> Iterator[Mark]:
    mark = getattr(parent, _MARK, None)
    if isinstance(mark, Mark):
        yield mark


def _applied_later(function: object, place: str) -> Iterator[Mark]:
    """The marks of decorators that are only applied at each call, as Django's `method_decorator` does."""
    decorators, _ = _decorators_of(function)
    for decorator in decorators:
        mark_of: Callable[[str], Mark | None] | None = getattr(decorator, "mark_of", None)
        mark = mark_of(place) if callable(mark_of) else None
        if mark is not None:
            yield mark


def _decorators_of(function: object) -> tuple[Sequence[object], object]:
    """The decorators that a function applies at each call, and the method that it applies them to."""
    code = getattr(function, "__code__", None)
    names: tuple[str, ...] = getattr(code, "co_freevars", ())
    if "decorators" not in names or "method" not in names:
        return (), None
    cells = dict(zip(names, getattr(function, "__closure__", None) or (), strict=False))
    try:
        decorators, method = cells["decorators"].cell_contents, cells["method"].cell_contents
    except (KeyError, ValueError):
        return (), None
    return cast("Sequence[object]", decorators if isinstance(decorators, (list, tuple)) else ()), method


def place_of(function: Any) -> str | None:  # Any: whatever is decorated
    """Where a method stands that Django's `method_decorator` decorates for one call; None for all else."""
    while not (is_partial(function) and hasattr(function, "__wrapped__")):
        function = getattr(function, "__wrapped__", None)
        if function is None:
            return None
    method = function.__wrapped__
    name = getattr(method, "__name__", "")
    for base in type(getattr(function.func, "__self__", None)).__mro__:
        attribute: object = vars(base).get(name)
        while attribute is not None:
            if _decorators_of(attribute)[1] is method:
                return _place(base, name)
            attribute = getattr(attribute, "__wrapped__", None)
    return None


def _place(base: type, name: str) -> str:
    return f"{base.__module__}.{base.__qualname__}.{name}"


def marks_of_class(view_class: object, verb: str, names: Mapping[str, str] | None = None) -> tuple[Mark, ...]:
    """The marks of a class-based view: on the method for this verb, and on `dispatch`, through which all go.

    Args:
        view_class: The class.
        verb: The request's verb.
        names: Which method serves which verb in lower case, where it is not the one of that name.
    """
    asked = verb.lower()
    names = names or {}
    name = names.get(asked, asked)
    if asked == "head" and not hasattr(view_class, name):
        name = names.get("get", "get")
    names_asked = ("dispatch", "dispatch_request", name)
    return tuple(dict.fromkeys([mark for each in names_asked for mark in marks_on(*_attribute(view_class, each))]))


def _attribute(view_class: object, name: str) -> tuple[object, str]:
    """An attribute as it stands in the class, and where: asked through the class, a wrapper hands out a bound one."""
    for base in getattr(view_class, "__mro__", ()):
        attributes = cast("Mapping[str, object]", vars(base))
        if name in attributes:
            return attributes[name], _place(base, name)
    return None, ""
