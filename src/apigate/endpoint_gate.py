"""The gate at an endpoint: where none stands around the app, a decorated view that the framework called is its own.

Rule: all marks of the view are carried out at once, in the phases of a gate, whichever of its decorators is outermost.
A framework that has parsed the request and the body by then has done that for nothing; so this is the second best.

Nothing runs in the background here: a response that may be served stale while it is refreshed is refreshed at once by
the request that would have set that off, and served stale to the others meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, final

from apigate.caching.answer import Answer
from apigate.caching.exchange import Exchange, log_hidden
from apigate.caching.mark import CacheMark
from apigate.caching.policy import CachingPolicy
from apigate.core.context import RequestContext, current
from apigate.core.endpoints import Carrier, Endpoint, Mark, Served
from apigate.core.errors import ConfigurationError
from apigate.core.policy import block_on, require_done
from apigate.routing import served_by_framework
from apigate.throttling.decision import Throttled

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["MISSING_GATE", "EndpointGate"]

Call: TypeAlias = Callable[[], Any]  # Any: whatever the view takes and returns
Prove: TypeAlias = Callable[[RequestContext], Any]  # Any: what it gives is an awaitable where the view is one

MISSING_GATE = (
    "put one around the app (FastAPI, Starlette: app.add_middleware(GatewayMiddleware, gateway=gateway); Flask: "
    "Apigate(app, gateway); Django: 'apigate.django.GatewayMiddleware' in MIDDLEWARE)"
)


@final
class EndpointGate:
    """Serves requests at the views that one gateway decorates.

    Args:
        gateway: The gateway.
    """

    def __init__(self, gateway: "Gateway") -> None:
        """No view has been called yet."""
        self._gateway = gateway
        self._endpoints: dict[tuple[str, tuple[Mark, ...]], Endpoint] = {}

    def served(self, mark: Mark, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Served | None:
        """The request that a framework serves by calling a view with this mark; None where it serves none.

        Args:
            mark: The mark.
            instance: What the view is a method of, if it is one.
            args: What it was called with.
            kwargs: The same by name.
        """
        served = served_by_framework((*(() if instance is None else (instance,)), *args, *kwargs.values()))
        return None if served is None or mark not in served.marks else served

    def serve(self, served: Served, call: Call, prove: Prove) -> Any:  # Any: what the framework takes for a response
        """Send a request through all gates, and call the view.

        Args:
            served: The request.
            call: Calls the view.
            prove: Called before, with the request's context: it may raise `Throttled`.
        """
        gateway = self._gateway
        context = gateway.enter(self._request(served), None, self._find(served))
        if served.outer is not None:
            context.stand_within(served.outer)
        if context.refusal is not None:
            return served.respond(context.refusal)
        status: int | None = None
        token = current.set(context)
        try:
            with _Visit(served, context, context) as visit:
                if visit.answer is None:
                    prove(context)
                    visit.response = call()
            status = visit.status
            _settle(visit)
        except Throttled as error:
            refusal = gateway.refuse(context, error)
            status = refusal.status
            return served.respond(refusal)
        except Exception as error:
            status = served.status(error)
            raise
        finally:
            current.reset(token)
            context.ended = True
            gateway.complete(context, status)
        return visit.response

    async def serve_async(self, served: Served, call: Call, prove: Prove) -> Any:  # Any: as serve
        """`serve` for tasks; both functions give awaitables."""
        gateway = self._gateway
        context = await gateway.enter_async(self._request(served), None, self._find(served))
        if served.outer is not None:
            context.stand_within(served.outer)
        if context.refusal is not None:
            return served.respond(context.refusal)
        status: int | None = None
        token = current.set(context)
        try:
            with _Visit(served, context, context) as visit:
                if visit.answer is None:
                    await prove(context)
                    visit.response = await call()
            status = visit.status
            await _settle_async(visit)
        except Throttled as error:
            refusal = await gateway.refuse_async(context, error)
            status = refusal.status
            return served.respond(refusal)
        except Exception as error:
            status = served.status(error)
            raise
        finally:
            current.reset(token)
            context.ended = True
            await gateway.complete_async(context, status)
        return visit.response

    # ---- the cache alone, where a gate has done the rest

    def cached(self, served: Served, outer: RequestContext, call: Call) -> Any:  # Any: as serve
        """Look a request up, and call the view if there is nothing; a gate further out has counted it.

        Args:
            served: The request.
            outer: Its context at that gate.
            call: Calls the view.
        """
        context, policy = self._inner(served, outer)
        if policy is None:
            return call()
        outcome = policy.on_request(context)
        refusal = block_on(outcome) if isinstance(outcome, Awaitable) else outcome
        if refusal is not None:
            return served.respond(refusal)
        with _Visit(served, context, outer) as visit:
            if visit.answer is None:
                visit.response = call()
        _settle(visit)
        return visit.response

    async def cached_async(self, served: Served, outer: RequestContext, call: Call) -> Any:  # Any: as serve
        """`cached` for tasks."""
        context, policy = self._inner(served, outer)
        if policy is None:
            return await call()
        outcome = policy.on_request(context)
        refusal = await outcome if isinstance(outcome, Awaitable) else outcome
        if refusal is not None:
            return served.respond(refusal)
        with _Visit(served, context, outer) as visit:
            if visit.answer is None:
                visit.response = await call()
        await _settle_async(visit)
        return visit.response

    def _inner(self, served: Served, outer: RequestContext) -> tuple[RequestContext, CachingPolicy | None]:
        """The context of a request at its view, and the cache of that."""
        context = self._gateway.route(self._request(served), outer.stage, self._find(served))
        context.principal, context.claims = outer.principal, outer.claims
        policies = context.compiled.policies
        return context, next((policy for policy in policies if isinstance(policy, CachingPolicy)), None)

    # ---- parts

    def _request(self, served: Served) -> Any:  # Any: a Request, whose content may be asked for now
        if served.app is not None:
            served.request.app = self._gateway.view_label(served.app)
        if served.carrier is not None:
            served.request.read_body = served.carrier.read_content
        elif any(isinstance(mark, CacheMark) and mark.owner is self._gateway.identity for mark in served.marks):
            raise ConfigurationError(
                f"cache: {served.method} is cached by a decorator, which only a gate around the app can carry out "
                f"here; {MISSING_GATE}"
            )
        return served.request

    def _find(self, served: Served) -> Callable[[object], Endpoint]:
        key = served.method, served.marks
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            self._gateway.check_stage(None)
            endpoint = self._endpoints.setdefault(key, Endpoint(*key))
        return lambda _: endpoint


def _due(served: Served, context: RequestContext) -> tuple[Answer | None, Exchange | None]:
    """The answer of the cache, or the exchange with which the view is called; neither where a view cannot have one."""
    answer: Answer | None = context.answer
    exchange: Exchange | None = context.exchange if answer is None else answer.refresh
    if served.carrier is None:
        if exchange is not None:
            exchange.fail()
        return None, None
    if exchange is not None and answer is not None and served.request.method == "HEAD":
        exchange.fail()  # the view would answer HEAD, which has no content to be kept
        return answer, None
    return (answer, None) if exchange is None else (None, exchange)


def _carrier(served: Served) -> Carrier:
    if served.carrier is None:
        raise AssertionError("a view without a carrier has no cache")
    return served.carrier


def _settle(visit: "_Visit") -> None:
    for answer in visit.left():
        require_done(answer)


async def _settle_async(visit: "_Visit") -> None:
    for answer in visit.left():
        await answer


@final
class _Visit(AbstractContextManager["_Visit", bool]):
    """One request at its view: the cache answers it, or the view does, and an exchange hears of that.

    Attributes:
        answer: What the cache answers; None where the view has to be called.
        response: What the framework gets; while this is entered, what the view has returned.
    """

    response: Any = None  # Any: whatever a view returns

    def __init__(self, served: Served, context: RequestContext, outer: RequestContext) -> None:
        self._served = served
        self._outer = outer  # where something that the view calls leaves word of its refusal
        self.answer, self._exchange = _due(served, context)
        self._take_back: Callable[[], None] | None = None

    @property
    def status(self) -> int:
        """The status of the response."""
        return self._served.status(self.response) if self.answer is None else self.answer.status

    def left(self) -> Iterator[Awaitable[None]]:
        """What others have to be told, and to be given; of a response that still streams, its chunks see to that."""
        exchange = self._exchange
        if exchange is not None and not exchange.keeps:
            for answer in (exchange.publish(), exchange.settle()):
                if answer is not None:
                    yield answer

    def __enter__(self) -> Self:
        if self.answer is not None:
            self.response = _carrier(self._served).answer(self.answer)
        elif self._exchange is not None:
            self._take_back = _carrier(self._served).put_questions(self._exchange)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        exchange = self._exchange
        if exchange is None:
            return False
        if self._take_back is not None:
            self._take_back()
        carrier = _carrier(self._served)
        is_refused = self._outer.inner_refusal is not None  # what comes of that is not the view's answer
        if error is None and not is_refused:
            try:
                self.response = carrier.carry(exchange, self.response)
            except BaseException:
                exchange.fail()
                raise
            return False
        made = exchange.fail()
        if (
            made is None
            or not isinstance(error, Exception)
            or isinstance(error, Throttled)
            or is_refused
            or self._served.status(error) < 500
        ):
            return False
        log_hidden(error, "view")
        self.response = carrier.answer(made)
        return True
