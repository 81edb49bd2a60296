"""What the pipeline is made of: a policy, its three moments, and the fixed phases it may stand in.

Rule: the order of phases is a security property (nothing is counted before it is authorized, nothing is read from a
cache before both), so it is an enumeration and not the order in which somebody registered things.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar, cast, final

from apigate.core.context import RequestContext
from apigate.core.counters import Counters
from apigate.core.endpoints import Mark
from apigate.core.errors import ConfigurationError, ProtocolError
from apigate.core.message import Response, ResponseHead
from apigate.core.steps import block, let_go

__all__ = [
    "CompiledMethod",
    "Completion",
    "OnComplete",
    "OnRequest",
    "OnResponse",
    "Outcome",
    "Phase",
    "Policy",
    "block_on",
    "refuse_awaitable",
    "require_done",
]

T = TypeVar("T")

Outcome: TypeAlias = Response | Awaitable[Response | None] | None
"""What `on_request` answers: None to go on, the refusal, or an awaitable of either where it has to wait."""

Completion: TypeAlias = Awaitable[None] | None
"""What `on_complete` answers: None, or an awaitable where a store has to be waited for."""

OnRequest: TypeAlias = Callable[[RequestContext], Outcome]
"""A hook before the app, see `Policy`."""

OnResponse: TypeAlias = Callable[[RequestContext, ResponseHead], None]
"""A hook when the app's response starts, see `Policy`."""

OnComplete: TypeAlias = Callable[[RequestContext, int | None], Completion]
"""A hook when the response has ended, see `Policy`."""

HOOKS = ("on_request", "on_response", "on_complete")


class Phase(IntEnum):
    """Where in a request's pass a policy runs; lower first, within a phase in the order of registration."""

    ROUTE = 1
    GUARD = 2
    AUTHORIZE = 3
    THROTTLE = 4
    CACHE = 5


class Policy(Protocol):
    """One gate of the gateway: a phase, and at least one of three hooks. A hook it does not have costs nothing.

    - `on_request(context) -> Outcome`: before the app, in phase order; the first `Response` ends the pass.
    - `on_response(context, head) -> None`: when the app's response starts, in reverse order; never waits.
    - `on_complete(context, status) -> Completion`: once, in reverse order, when the response has ended, was given up
      or was refused by any policy; `status` is None where the app never started a response.
    """

    @property
    def phase(self) -> Phase:
        """Where it runs."""
        ...


@final
class CompiledMethod:
    """One method of one stage with its policies flattened into tuples of bound hooks: where a request is routed to.

    Attributes:
        stage: The stage's name.
        method: Verb and template, or None for the requests that match no method.
        variables: The stage's variables.
        identify: Who is counted, see `RequestContext.client`.
        counters: Requests by kind; they outlive a change of settings.
        admitted: The counter of those that no gate refused.
        policies: In phase order.
        on_request: Hooks in phase order.
        on_response: Hooks in reverse phase order.
        on_complete: Hooks in reverse phase order.
        marks: The decorators of the endpoint that this pipeline carries out.
    """

    __slots__ = (
        "admitted",
        "counters",
        "identify",
        "marks",
        "method",
        "on_complete",
        "on_request",
        "on_response",
        "policies",
        "stage",
        "variables",
    )

    def __init__(
        self,
        stage: str,
        method: str | None,
        policies: Iterable[Policy],
        identify: Callable[[RequestContext], str],
        counters: Counters,
        variables: Mapping[str, str] = MappingProxyType({}),
        marks: Sequence[Mark] = (),
    ) -> None:
        """Sort the policies by phase and take out their hooks.

        Raises:
            ConfigurationError: A policy has no `phase`, or none of the hooks.
        """
        self.stage: str = stage
        self.method: str | None = method
        self.identify: Callable[[RequestContext], str] = identify
        self.counters: Counters = counters
        self.admitted: Iterator[int] = counters.counter("admitted")
        self.variables: Mapping[str, str] = variables
        self.marks: frozenset[Mark] = frozenset(marks)
        self.policies: tuple[Policy, ...] = tuple(
            sorted((_checked(policy) for policy in policies), key=attrgetter("phase"))
        )
        self.on_request: tuple[OnRequest, ...] = _hooks(self.policies, "on_request")
        self.on_response: tuple[OnResponse, ...] = _hooks(self.policies[::-1], "on_response")
        self.on_complete: tuple[OnComplete, ...] = _hooks(self.policies[::-1], "on_complete")


def refuse_awaitable(answer: object) -> NoReturn:
    """Say that what has to be awaited cannot be used by a synchronous gate.

    Raises:
        ProtocolError: Always.
    """
    let_go(answer)
    raise ProtocolError(
        "a policy or the store has to be awaited, which a synchronous gate cannot do; put the gateway around the app "
        "with apigate.asgi, or use a store that does not wait"
    )


def block_on(answer: Awaitable[T]) -> T:
    """The outcome of steps, for which a thread waits where it can.

    Args:
        answer: What `run` has answered.

    Raises:
        ProtocolError: It has to be awaited after all.
    """
    outcome = block(answer)
    if isinstance(outcome, Awaitable):
        refuse_awaitable(cast("object", outcome))
    return outcome


def require_done(answer: Awaitable[object] | None) -> None:
    """See that nothing is left to be awaited, where nobody could.

    Raises:
        ProtocolError: Something is.
    """
    if answer is not None:
        refuse_awaitable(answer)


def _checked(policy: Policy) -> Policy:
    """The policy, if it can stand in a pipeline."""
    if not isinstance(getattr(policy, "phase", None), Phase):
        raise ConfigurationError(f"policies: {policy!r} needs a `phase`, one of {', '.join(Phase.__members__)}")
    if not any(callable(getattr(policy, hook, None)) for hook in HOOKS):
        raise ConfigurationError(f"policies: {policy!r} needs one of the hooks {', '.join(HOOKS)}")
    return policy


def _hooks(policies: Iterable[Policy], name: str) -> tuple[Any, ...]:
    """The bound hooks of this name, of those policies that have it. Any: each hook has its own signature."""
    return tuple(getattr(policy, name) for policy in policies if getattr(policy, name, None) is not None)
