"""Decorators for endpoints and other functions: plain, async, methods, generators of both kinds.

Rule: what is decorated keeps its name, signature, annotations and kind (`wrapt` sees to that), and needs no argument
of ours. On an endpoint the decorator is a mark: the gate around the app finds it through the framework's route, asks
its limits together with all others, and the function then finds the proof in the request's context. Any other call,
and any call without that proof, takes its tokens itself; over the limit it raises `Throttled`, of which the gate makes
a 429, or a 503 where the store cannot be asked.
"""

from collections.abc import AsyncGenerator, Callable
from functools import partial
from inspect import isasyncgenfunction
from threading import Lock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, final

from apigate.core.context import RequestContext, current_context
from apigate.core.endpoints import Served, is_partial, marks_on, place_of, set_mark
from apigate.core.errors import ConfigurationError, ProtocolError
from apigate.core.functions import is_coroutine_function, is_function
from apigate.endpoint_gate import MISSING_GATE, EndpointGate
from apigate.routing import answered_by_framework, any_framework
from apigate.throttling.decision import Decision, Throttled, longest_wait
from apigate.throttling.fields import retry_after_field, seconds_up
from apigate.throttling.mark import ONE_BUCKET, Per, ThrottleMark
from apigate.throttling.rate import RateLike, parse_rates
from apigate.throttling.throttle import Throttle

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["ThrottleDecorator", "name_of"]

P = ParamSpec("P")
R = TypeVar("R")


@final
class ThrottleDecorator:
    """What `Gateway.throttle` returns.

    Args:
        gateway: Gives store and clock.
        rate: The rate of the function's own buckets, or their window.
        per: Whose bucket a request takes from, see `Per`.
        key: A function of the call's arguments that says so, instead of `per`: then every call takes, and may raise.
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
        if callable(rate):
            raise ConfigurationError(
                f"throttle: {rate!r} is not a rate; write @gateway.throttle('10/second') with a rate in parentheses"
            )
        if key is not None and per != "method":
            raise ConfigurationError("throttle: give key= or per=, not both")
        if key is not None and not is_function(key, "throttle key"):
            raise ConfigurationError(f"throttle key: {key!r} is not a function of the call's arguments")
        if not is_function(per, "throttle per") and per not in ("method", "client"):
            raise ConfigurationError(f"throttle per: {per!r} is unknown; allowed are 'method', 'client' or a function")
        if not is_function(cost, "throttle cost") and (not isinstance(cost, int) or isinstance(cost, bool) or cost < 0):
            raise ConfigurationError(f"throttle cost: {cost!r} is not a whole number of at least 0, nor a function")
        self._gateway = gateway
        self._rates = parse_rates(rate, "throttle rate")
        self._per: Per = per
        self._key = key
        self._cost = cost
        self._lock = Lock()
        self._limited: dict[str, _Limited] = {}

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, throttled; of its own kind."""
        import wrapt

        if not callable(function):
            raise ConfigurationError(f"throttle: {function!r} cannot be called, so not be decorated")
        if hasattr(function, "routes"):
            raise ConfigurationError(
                f"throttle: {type(function).__name__} has routes; decorate its endpoints, or limit them together by "
                f"methods={{'* /prefix/{{rest+}}': Method(throttle=...)}}"
            )
        limited = self._limited_as(name_of(function))
        wrapper: Any = limited.plain  # Any: each kind has a signature of its own
        if isasyncgenfunction(function):
            wrapper = limited.generator
        elif is_coroutine_function(function):
            wrapper = limited.coroutine
        wrapped = wrapt.FunctionWrapper(function, wrapper)
        if self._key is None:
            self._gateway.check_mark(limited.mark, [mark for mark in marks_on(function) if mark is not limited.mark])
            set_mark(wrapped, limited.mark)
        self._gateway.mark(function, wrapped)
        return cast("Callable[P, R]", wrapped)

    def mark_of(self, place: str) -> ThrottleMark | None:
        """The mark that the decorator will leave on the method at a place; for decorators applied at each call."""
        return None if self._key is not None else self._limited_as(place).mark

    def _limited_as(self, name: str) -> "_Limited":
        """The limits of a function by its name: what one decorator limits under one name, it limits together."""
        with self._lock:
            limited = self._limited.get(name)
            if limited is None:
                limited = self._limited[name] = self._limit(self._gateway.claim_name(f"call:{name}"))
        return limited

    def _limit(self, claimed: str) -> "_Limited":
        level = "method" if self._per == "method" and self._key is None else "client-method"
        throttle = Throttle({level: self._rates}, store=self._gateway.store, clock=self._gateway.clock, name=claimed)
        mark = ThrottleMark(
            self._gateway.identity,
            f"{claimed}:{level}",
            self._rates,
            self._per,
            self._cost,
            self._gateway.responses.described("THROTTLED"),
        )
        return _Limited(self._gateway, throttle, level, mark, self._key, self._cost)


def name_of(function: Any) -> str:  # Any: whatever is decorated
    """Module and qualified name; of a view made by a class, or of a method bound to one, that of the class."""
    place = place_of(function)
    if place is not None:
        return place
    instance: object = getattr(function.func, "__self__", None) if is_partial(function) else None
    if instance is not None:
        return f"{name_of(type(instance))}.{getattr(function.func, '__name__', '')}"
    view_class: object = getattr(function, "view_class", None) or getattr(function, "cls", None)
    if isinstance(view_class, type):
        return f"{view_class.__module__}.{view_class.__name__}"  # not the qualified one: `api_view` sets only this
    named = cast("type", function if hasattr(function, "__qualname__") else type(function))
    return f"{named.__module__}.{named.__qualname__}"


class _Limited:
    """What stands in for a decorated function, in three kinds; `wrapt` says of what a method is bound to.

    Any: `wrapt` calls these with whatever the decorated function takes, and hands back what it gives.
    """

    def __init__(
        self,
        gateway: "Gateway",
        throttle: Throttle,
        level: str,
        mark: ThrottleMark,
        key: Callable[..., str | int] | None,
        cost: int | Callable[..., int],
    ) -> None:
        self._gateway = gateway
        self._throttle = throttle
        self._level = level
        self.mark = mark
        self._key = key
        self._cost = cost
        self._warned = False
        self._gate = EndpointGate(gateway)

    def plain(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it, or raise."""
        if self._key is None:
            context = self._context()
            if context is not None and (context.exempt or context.prove(self.mark)):
                return wrapped(*args, **kwargs)
            served = self._served(instance, args, kwargs) if context is None else None
            if served is not None:
                return self._gate.serve(served, partial(wrapped, *args, **kwargs), self._prove)
            self._admit(self._acquired(self._asked_by(context)), context)
        else:
            decision = self._acquired(self._asked(self._key, instance, args, kwargs))
            if not decision.allowed:
                self._admit(decision, self._context())
        return wrapped(*args, **kwargs)

    def _acquired(self, asked: tuple[dict[str, Any], int]) -> Decision:
        """What the throttle says at once."""
        try:
            return self._throttle.acquire(*asked)
        except ProtocolError as error:
            raise ProtocolError(
                f"{self.mark.name} is a plain function, and the store has to be awaited here; make it `async def`, or "
                f"call it in a thread that runs no event loop"
            ) from error

    async def coroutine(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Await it, or raise."""
        if self._key is None:
            context = self._context()
            if context is not None and (context.exempt or context.prove(self.mark)):
                return await wrapped(*args, **kwargs)
            served = self._served(instance, args, kwargs) if context is None else None
            if served is not None:
                return await self._gate.serve_async(served, partial(wrapped, *args, **kwargs), self._prove_async)
            self._admit(await self._throttle.acquire_async(*self._asked_by(context)), context)
        else:
            decision = await self._throttle.acquire_async(*self._asked(self._key, instance, args, kwargs))
            if not decision.allowed:
                self._admit(decision, self._context())
        return await wrapped(*args, **kwargs)

    def generator(self, wrapped: Any, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Hand it out, or raise: a framework that streams what it yields has begun its response at the first step."""
        context = self._context()
        if self._key is not None:
            asked = self._asked(self._key, instance, args, kwargs)
        elif context is not None and (context.exempt or context.prove(self.mark)):
            return wrapped(*args, **kwargs)
        else:
            asked = self._asked_by(context)
        try:
            decision = self._throttle.acquire(*asked)
        except ProtocolError:  # the store has to be awaited, which only its first step can
            return self._iterated(asked, context, wrapped(*args, **kwargs))
        self._admit(decision, context)
        return wrapped(*args, **kwargs)

    async def _iterated(
        self, asked: tuple[dict[str, Any], int], context: RequestContext | None, inner: AsyncGenerator[Any, Any]
    ) -> AsyncGenerator[Any, Any]:
        """Iterate it, or raise at the first step; what is sent or thrown in reaches it."""
        self._admit(await self._throttle.acquire_async(*asked), context)
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

    # ---- without proof

    def _context(self) -> RequestContext | None:
        """The context of the request being served, if it came through a gate of this gateway."""
        context = current_context()
        known = None if context is None else context.of(self._gateway.identity)
        return None if known is None or known.ended else known

    def _asked(
        self, key: Callable[..., str | int], instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[dict[str, str | int], int]:
        """Key and cost of one call by its arguments; they are given `self` too."""
        if instance is not None:
            args = (instance, *args)
        asked: dict[str, str | int] = {self._level: key(*args, **kwargs)}
        return asked, self._cost if isinstance(self._cost, int) else self._cost(*args, **kwargs)

    def _asked_by(self, context: RequestContext | None) -> tuple[dict[str, Any], int]:
        """Key and cost of one call by the request being served."""
        if context is not None:
            self._warn(context)
            return self._asked_at(context)
        if self.mark.needs_request:
            raise ConfigurationError(
                f"throttle: this call needs the request it serves, and no gate of its gateway stands around it; "
                f"{MISSING_GATE}, or use key= with the call's own arguments"
            )
        self._warn(None)
        return {self._level: ONE_BUCKET}, self.mark.fixed_cost or 0

    def _asked_at(self, context: RequestContext) -> tuple[dict[str, Any], int]:
        """Key and cost of one request, by its context."""
        return {self._level: self.mark.key(context)}, self.mark.cost(context.request)

    def _served(self, instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Served | None:
        """The request that a framework serves by calling this function as its view; where no gate has seen it."""
        served = self._gate.served(self.mark, instance, args, kwargs)
        if served is not None:
            self._warn(None)
        return served

    def _prove(self, context: RequestContext) -> None:
        """Raise unless admitted, where the gate at the endpoint left that out: of a preflight that the view answers."""
        if not (context.exempt or context.prove(self.mark)):
            self._admit(self._throttle.acquire(*self._asked_at(context)), context)

    async def _prove_async(self, context: RequestContext) -> None:
        """`_prove` for tasks."""
        if not (context.exempt or context.prove(self.mark)):
            self._admit(await self._throttle.acquire_async(*self._asked_at(context)), context)

    def _warn(self, context: RequestContext | None) -> None:
        """Say once that no gate has carried out the mark, unless this is just a function that a view calls."""
        if self._warned or not any_framework() or (context is not None and context.endpoint is not None):
            return
        self._warned = True
        from logging import getLogger

        where = (
            "no gate of its gateway stands around the app"
            if context is None
            else "the gate cannot see the app's routes"
        )
        getLogger("apigate").warning(
            "%s is throttled only where it is called, after the framework has done its work: %s", self.mark.name, where
        )

    def _admit(self, decision: Decision, context: RequestContext | None) -> None:
        """Raise unless admitted; the gate is told, as frameworks make a 500 of what nobody catches."""
        if decision.allowed or (self._key is None and self._gateway.mode(self.mark.level) != "enforce"):
            return
        error = Throttled(decision)
        if context is None:
            status, _ = (
                self._gateway.responses.described("STORE_UNAVAILABLE") if decision.unavailable else self.mark.refusal
            )
            raise answered_by_framework(error, status, _retry_after(decision))
        context.inner_refusal = error
        context.unserved = context.endpoint is not None and self.mark in context.endpoint.marks
        raise error


def _retry_after(decision: Decision) -> dict[str, str]:
    """The field that says when to come again, if coming again can help."""
    wait = longest_wait(decision.refusals())
    return {} if wait is None else dict([retry_after_field(seconds_up(wait)).text])
