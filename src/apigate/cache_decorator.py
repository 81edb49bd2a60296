"""What `Gateway.cache` returns: a decorator that has the responses of an endpoint cached.

Rule: what is cached is the HTTP response to a request, under a key of that request, by whoever sees both: the gate
around the app, or in Flask and Django the view itself. A function that no request is served by is simply called; an
endpoint that nobody can cache says so rather than being slow in silence.
"""

from collections.abc import Callable
from functools import partial
from inspect import currentframe
from sys import modules
from threading import current_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, final

from apigate.caching.mark import CacheMark
from apigate.caching.settings import CachePolicy, CacheSettings, check_policy_settings
from apigate.core.context import RequestContext, current_context
from apigate.core.endpoints import Served, set_mark
from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_coroutine_function
from apigate.decorators import name_of
from apigate.endpoint_gate import MISSING_GATE, EndpointGate

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["CacheDecorator"]

P = ParamSpec("P")
R = TypeVar("R")

_SERVING = ("starlette.routing", "fastapi.routing")  # whose frames are on the stack while they call an endpoint


@final
class CacheDecorator:
    """What `Gateway.cache` returns.

    Args:
        gateway: The gateway.
        policy: The policy, or None.
        settings: Those of a policy by name, instead.

    Raises:
        ConfigurationError: A setting cannot be used, or both are given.
    """

    def __init__(self, gateway: "Gateway", policy: CachePolicy | None, settings: CacheSettings) -> None:
        """Check the settings."""
        given: object = policy
        if given is not None and not isinstance(given, CachePolicy):
            hint = "; write @gateway.cache() with parentheses" if callable(given) else "; write ttl=60 for seconds"
            raise ConfigurationError(f"cache: {given!r} is not a CachePolicy{hint}")
        if policy is not None and settings:
            raise ConfigurationError(f"cache: give a policy or its settings ({', '.join(settings)}), not both")
        check_policy_settings(settings, "cache")
        made = policy or CachePolicy(**settings)
        self._gateway = gateway
        self._cached = _Cached(gateway, CacheMark(gateway.identity, made))

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, marked; of its own kind."""
        import wrapt

        if not callable(function):
            raise ConfigurationError(f"cache: {function!r} cannot be called, so not be decorated")
        if hasattr(function, "routes"):
            raise ConfigurationError(
                f"cache: {type(function).__name__} has routes; decorate its endpoints, or give the stage "
                f"cache=ResponseCache(policy=...)"
            )
        cached = self._cached
        wrapper: Any = cached.coroutine if is_coroutine_function(function) else cached.plain  # Any: two kinds
        wrapped = wrapt.FunctionWrapper(function, wrapper)
        set_mark(wrapped, cached.mark)
        self._gateway.mark(function, wrapped, cached.mark.policy)
        return cast("Callable[P, R]", wrapped)

    def mark_of(self, _: str) -> CacheMark:
        """The mark that the decorator will leave on any method; for decorators applied at each call."""
        return self._cached.mark


class _Cached:
    """What stands in for a decorated function, in two kinds.

    Any: `wrapt` calls these with whatever the decorated function takes, and hands back what it gives.
    """

    def __init__(self, gateway: "Gateway", mark: CacheMark) -> None:
        self._gateway = gateway
        self._gate = EndpointGate(gateway)
        self.mark = mark

    def plain(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it, or give what is cached where it is its own gate."""
        call = partial(wrapped, *args, **kwargs)
        context, served = self._found(wrapped, instance, args, kwargs)
        if served is None:
            return call()
        if context is not None:
            return self._gate.cached(served, context, call)
        return self._gate.serve(served, call, self._prove)

    async def coroutine(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`plain` for coroutines."""
        call = partial(wrapped, *args, **kwargs)
        context, served = self._found(wrapped, instance, args, kwargs)
        if served is None:
            return await call()
        if context is not None:
            return await self._gate.cached_async(served, context, call)
        return await self._gate.serve_async(served, call, self._prove_async)

    def _prove(self, context: RequestContext) -> None:
        """Take note that the mark is carried out."""
        context.prove(self.mark)

    async def _prove_async(self, context: RequestContext) -> None:
        context.prove(self.mark)

    def _found(
        self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[RequestContext | None, Served | None]:
        """The request at a gate further out, and at the view if that has to be the gate of the cache.

        Raises:
            ConfigurationError: An endpoint is called, and nobody can cache what it answers.
        """
        context = current_context()
        known = None if context is None else context.of(self._gateway.identity)
        if known is not None and (
            known.ended or known.exempt or known.prove(self.mark) or self.mark in known.compiled.marks
        ):
            return known, None
        served = self._gate.served(self.mark, instance, args, kwargs)
        if served is not None and served.carrier is not None:
            return known, served
        if known is None and (served is not None or _is_served_by_starlette()):
            raise ConfigurationError(
                f"cache: {name_of(wrapped)} is called without a gate of its gateway around the app, and only that can "
                f"cache what it answers; {MISSING_GATE}"
            )
        if known is not None and known.endpoint is None and self._is_blind:
            raise ConfigurationError(
                f"cache: the gate cannot see which requests {name_of(wrapped)} answers, as something between hides the "
                f"app's routes; let it stand directly around the app ({MISSING_GATE}), or name the method: "
                f"methods={{'GET /path': Method(cache=CachePolicy(...))}}"
            )
        return known, None  # it is called by another endpoint, or by no request at all

    @property
    def _is_blind(self) -> bool:
        """Whether the gateway stands around an app whose routes it cannot read."""
        return any(routing is None for _, routing in self._gateway.bound)


def _is_served_by_starlette() -> bool:
    """Tell whether Starlette or FastAPI are calling, whose endpoints need not take the request.

    A coroutine has them on its stack; a plain function is called in a worker thread of anyio.
    """
    if "starlette.routing" not in modules:
        return False
    if type(current_thread()).__module__.startswith("anyio."):
        return True
    frame: FrameType | None = currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in _SERVING:
            return True
        frame = frame.f_back
    return False
