"""Decorators for single functions: plain, async, methods, generators of both kinds.

Rule: what is decorated keeps its name, signature, annotations and kind (`wrapt` sees to that), and needs no argument
of ours. A call over the limit raises `Throttled`; a gate around the caller makes a 429 of it and gives back what the
request took outside.
"""

from collections.abc import AsyncGenerator, Callable
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, final

from apigate.core.context import current_context
from apigate.core.errors import ConfigurationError, ProtocolError
from apigate.core.message import Request
from apigate.throttling.decision import Throttled
from apigate.throttling.rate import RateLike, parse_rates
from apigate.throttling.throttle import Throttle

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["Per", "ThrottleDecorator"]

P = ParamSpec("P")
R = TypeVar("R")

Per: TypeAlias = str | Callable[[Request], str]
"""One bucket for the function (`"method"`), one for each client (`"client"`), or what a function of the request says."""

_ONE_BUCKET = "method"
_EACH_CLIENT = "client-method"


@final
class ThrottleDecorator:
    """What `Gateway.throttle` returns: wraps a function so that each call takes tokens first.

    Args:
        gateway: Gives store and clock.
        rate: The rate of the function's own buckets.
        per: Whose bucket a call takes from, see `Per`.
        key: A function of the call's arguments that says so, instead of `per`.
        cost: Tokens of one call, or a function of what `per` or `key` are given.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        gateway: "Gateway",
        rate: RateLike,
        per: Per = "method",
        key: Callable[..., str | int] | None = None,
        cost: int | Callable[..., int] = 1,
    ) -> None:
        """Check the settings."""
        if key is not None and (not callable(key) or per != "method"):
            raise ConfigurationError(f"throttle key: {key!r} must be a function, and stand without per=")
        if not callable(per) and per not in ("method", "client"):
            raise ConfigurationError(f"throttle per: {per!r} is unknown; allowed are 'method', 'client' or a function")
        if not callable(cost) and (not isinstance(cost, int) or isinstance(cost, bool) or cost < 0):
            raise ConfigurationError(f"throttle cost: {cost!r} is not a whole number of at least 0, nor a function")
        self._gateway = gateway
        self._rates = parse_rates(rate, "throttle rate")
        self._per = per
        self._key = key
        self._cost = cost

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, throttled; of its own kind."""
        import wrapt

        level = _ONE_BUCKET if self._per == "method" and self._key is None else _EACH_CLIENT
        throttle = Throttle(
            {level: self._rates},
            store=self._gateway.store,
            clock=self._gateway.clock,
            name=self._gateway.claim_name(f"call:{function.__module__}.{function.__qualname__}"),
        )

        def asked(instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, str | int], int]:
            """Key and cost of one call."""
            key, cost = self._asked(args if instance is None else (instance, *args), kwargs)
            return {level: key}, cost

        def plain(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
            decision = throttle.acquire(*asked(instance, args, kwargs))
            if not decision.allowed:
                raise Throttled(decision)
            return wrapped(*args, **kwargs)

        async def coroutine(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
            decision = await throttle.acquire_async(*asked(instance, args, kwargs))
            if not decision.allowed:
                raise Throttled(decision)
            return await wrapped(*args, **kwargs)

        async def generator(wrapped: Any, instance: object, args: Any, kwargs: Any) -> AsyncGenerator[Any, Any]:
            decision = await throttle.acquire_async(*asked(instance, args, kwargs))
            if not decision.allowed:
                raise Throttled(decision)
            inner = wrapped(*args, **kwargs)
            try:
                value = await anext(inner)
                while True:
                    try:
                        sent = yield value
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # whatever was thrown in belongs to the wrapped generator
                        value = await inner.athrow(error)
                    else:
                        value = await inner.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await inner.aclose()

        self._gateway.mark()
        wrapper: Any = plain  # Any: three signatures, which wrapt does not tell apart
        if isasyncgenfunction(function):
            wrapper = generator
        elif iscoroutinefunction(function):
            wrapper = coroutine
        return wrapt.FunctionWrapper(function, wrapper)

    def _asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str | int, int]:
        """Whose bucket a call takes from, and how much."""
        if self._key is not None:
            return self._key(*args, **kwargs), self._cost(*args, **kwargs) if callable(self._cost) else self._cost
        context = current_context()
        if context is None and (callable(self._cost) or self._per != "method"):
            raise ProtocolError(
                f"throttle per={self._per!r} needs a request, and no gate stands around this call; "
                f"put GatewayMiddleware around the app, or use key= with the call's own arguments"
            )
        if callable(self._per):
            key = self._per(context.request)  # type: ignore[union-attr]  # checked above
        else:
            key = context.client if context is not None and self._per == "client" else _ONE_BUCKET
        return key, self._cost(context.request) if callable(self._cost) else self._cost  # type: ignore[union-attr]
