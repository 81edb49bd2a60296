"""Decorators for single functions: plain, async, methods, generators of both kinds.

Rule: what is decorated keeps its name, signature, annotations and kind (`wrapt` sees to that), and needs no argument
of ours. A call over the limit raises `Throttled`; a gate around the caller makes a 429 of it and gives back what the
request took outside.
"""

from collections.abc import AsyncGenerator, Callable
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast, final

from apigate.core.context import current_context
from apigate.core.errors import ConfigurationError, ProtocolError
from apigate.core.message import Request
from apigate.throttling.decision import Decision, Throttled
from apigate.throttling.rate import RateLike, parse_rates
from apigate.throttling.throttle import Throttle

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["Per", "ThrottleDecorator"]

P = ParamSpec("P")
R = TypeVar("R")

Per: TypeAlias = str | Callable[[Request], str]
"""One bucket for the function (`"method"`), one a client (`"client"`), or one for each text a function gives."""

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
        if key is not None and per != "method":
            raise ConfigurationError("throttle: give key= or per=, not both")
        if key is not None and not callable(key):
            raise ConfigurationError(f"throttle key: {key!r} is not a function of the call's arguments")
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

        if not callable(function):
            raise ConfigurationError(f"throttle: {function!r} cannot be called, so not be decorated")
        kind = type(function)
        name = (
            f"{getattr(function, '__module__', kind.__module__)}.{getattr(function, '__qualname__', kind.__qualname__)}"
        )
        level = _ONE_BUCKET if self._per == "method" and self._key is None else _EACH_CLIENT
        throttle = Throttle(
            {level: self._rates},
            store=self._gateway.store,
            clock=self._gateway.clock,
            name=self._gateway.claim_name(f"call:{name}"),
        )

        call = _Call(self, throttle, level)
        self._gateway.mark()
        wrapper: Any = call.plain  # Any: each kind has a signature of its own
        if isasyncgenfunction(function):
            wrapper = call.generator
        elif iscoroutinefunction(function):
            wrapper = call.coroutine
        return cast("Callable[P, R]", wrapt.FunctionWrapper(function, wrapper))

    def asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str | int, int]:
        """Whose bucket a call takes from, and how much."""
        if self._key is not None:
            return self._key(*args, **kwargs), self._cost(*args, **kwargs) if callable(self._cost) else self._cost
        context = current_context()
        if context is None:
            if callable(self._cost) or self._per != "method":
                raise ProtocolError(
                    f"throttle per={self._per!r} needs a request, and no gate stands around this call; "
                    f"put GatewayMiddleware around the app, or use key= with the call's own arguments"
                )
            return _ONE_BUCKET, self._cost
        if callable(self._per):
            key = self._per(context.request)
        else:
            key = context.client if self._per == "client" else _ONE_BUCKET
        return key, self._cost(context.request) if callable(self._cost) else self._cost


class _Call:
    """What stands in for a decorated function, in three kinds; `wrapt` says of what a method is bound to.

    Any: `wrapt` calls these with whatever the decorated function takes, and hands back what it gives.
    """

    def __init__(self, decorator: ThrottleDecorator, throttle: Throttle, level: str) -> None:
        self._decorator = decorator
        self._throttle = throttle
        self._level = level

    def plain(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it, or raise."""
        _admit(self._throttle.acquire(*self._asked(instance, args, kwargs)))
        return wrapped(*args, **kwargs)

    async def coroutine(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Await it, or raise."""
        _admit(await self._throttle.acquire_async(*self._asked(instance, args, kwargs)))
        return await wrapped(*args, **kwargs)

    async def generator(
        self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, Any]:
        """Iterate it, or raise at the first step; what is sent or thrown in reaches it."""
        _admit(await self._throttle.acquire_async(*self._asked(instance, args, kwargs)))
        inner = wrapped(*args, **kwargs)
        try:
            value = await anext(inner)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever was thrown in belongs to the generator within
                    value = await inner.athrow(error)
                else:
                    value = await inner.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await inner.aclose()

    def _asked(
        self, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[dict[str, str | int], int]:
        """Keys and cost of one call; a function of the arguments is given `self` too."""
        key, cost = self._decorator.asked(args if instance is None else (instance, *args), kwargs)
        return {self._level: key}, cost


def _admit(decision: Decision) -> None:
    if not decision.allowed:
        raise Throttled(decision)
