"""Everything the gateway knows of one request, handed to the app.

An app finds it as `scope["apigate"]` or `environ["apigate.context"]`. It is one mutable record per request, because
what a later phase learns must be seen by the app and by the hooks after it; a context variable set further in would not
come back out.
"""

import os
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from apigate.core.message import Field, Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apigate.core.endpoints import Endpoint, Mark
    from apigate.core.policy import CompiledMethod

__all__ = ["RequestContext", "current_context"]


@final
class RequestContext:
    """One request's journey through the gates.

    Attributes:
        request: The request as it came in.
        now_us: The gateway's clock when it came, in microseconds; read anew after each policy of the user's own.
        principal: Who an authorizer verified, qualified by its issuer; None where none did. Where it or `claims` is
            set, caches take the client's credential for verified.
        api_key: The id of the API key that an authorizer verified; None where none did.
        decision: What the throttle decided, or None where it was not asked.
        claims: What an authorizer knows of the principal, by name; empty where it knows nothing.
        refusal: The gateway's own response, or None where the app answers.
        answer: What the cache answers in the app's place, or None.
        exchange: What the cache does with the app's response while it passes, or None.
        added: Fields that are added to whatever the app answers.
        outer: The context of a gateway that stands further out, or None.
        exempt: Whether the request takes from no level, by the rule of its method.
        endpoint: Where the framework sends it, or None where the gate cannot see that.
        inner_refusal: What a decorated function raised further in, or None.
        unserved: Whether that was the endpoint itself, so that nothing of the request was served.
        settled: Whether what it took was settled or given back, which happens once.
        ended: Whether the response has ended; what still runs afterwards is no part of the request.
    """

    # Defaults of the class for what few requests have and few hooks read. Measured: to set one takes a fifth of the
    # time that it takes to read a default, so what is read of every request is set.
    claims: "Mapping[str, Any]" = MappingProxyType({})  # Any: as a token has them
    outer: "RequestContext | None" = None
    endpoint: "Endpoint | None" = None
    unserved: bool = False
    settled: bool = False
    ended: bool = False
    _request_id: str | None = None
    _state: dict[object, Any] | None = None

    def __init__(self, request: Request, compiled: "CompiledMethod", now_us: int) -> None:
        """Start a journey at the method that the request was routed to."""
        self.request: Request = request
        self.compiled: CompiledMethod = compiled
        self.now_us: int = now_us
        self.principal: str | None = None
        self.api_key: str | None = None
        self._client: str | None = None
        self.decision: Any = None  # a throttling.Decision; the core knows no domain
        self.exempt: bool = False
        self.refusal: Response | None = None
        self.answer: Any = None  # a caching.Answer
        self.exchange: Any = None  # a caching.Exchange
        self.added: tuple[Field, ...] = ()
        self.inner_refusal: Any = None  # a throttling.Throttled

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.compiled.stage

    @property
    def method(self) -> str | None:
        """Verb and template of the matched method, `GET /pets/{id}`; None where nothing matched."""
        return self.compiled.method

    @property
    def variables(self) -> "Mapping[str, str]":
        """The stage's variables."""
        return self.compiled.variables

    @property
    def client(self) -> str:
        """Who is counted, with its kind before the colon, such as `ip:192.0.2.1`; the kinds never share a bucket."""
        client = self._client
        if client is None:
            client = self._client = self.compiled.identify(self)
        return client

    @property
    def known_client(self) -> str | None:
        """The same, or None where nobody has asked for it yet."""
        return self._client

    @property
    def request_id(self) -> str:
        """32 random hexadecimal digits, made on first use."""
        request_id = self._request_id
        if request_id is None:
            request_id = self._request_id = os.urandom(16).hex()
        return request_id

    @property
    def state(self) -> dict[object, Any]:  # Any: each policy knows what it left
        """What the hooks of a policy leave for its later ones, by the policy."""
        state = self._state
        if state is None:
            state = self._state = {}
        return state

    def again(self, exchange: Any) -> "RequestContext":  # Any: a caching.Exchange
        """The context of the request made again by the gateway: of the same principal, and taking from no level.

        Args:
            exchange: What the cache does with the app's response to that one.
        """
        anew = RequestContext(self.request, self.compiled, self.now_us)
        anew.principal, anew.api_key, anew.claims = self.principal, self.api_key, self.claims
        anew.endpoint = self.endpoint
        anew.exempt = True
        anew.exchange = exchange  # gates further in have their say in what is kept of that one too
        if self.outer is not None:
            anew.stand_within(self.outer)
            anew.outer = None  # what is answered to that one passes no gate further out
        return anew

    def stand_within(self, outer: "RequestContext") -> None:
        """Note the context of a gateway further out; what that one caches must not be what this one keeps for some.

        Args:
            outer: The context.
        """
        self.outer = outer
        verified = self.is_known
        context: RequestContext | None = outer
        while context is not None:
            if verified and context.exchange is not None:
                context.exchange.waive("a gate further in has verified who asks")
            if context.is_known and self.exchange is not None and not verified:
                self.exchange.doubt("a gate further out has verified who asks")
            context = context.outer

    @property
    def is_known(self) -> bool:
        """Whether anything was verified of who asks."""
        return self.principal is not None or self.api_key is not None or bool(self.claims)

    def prove(self, mark: "Mark") -> bool:
        """Tell a decorated function whether the gate has carried out its mark for this call: once, as it is called.

        A second call within the request is one that the gate knew nothing of.
        """
        if mark not in self.compiled.marks:
            return False
        left: set[Mark] = self.__dict__.setdefault(
            "_left_to_prove", set(self.compiled.marks)
        )  # at once, also for threads
        try:
            left.remove(mark)
        except KeyError:
            return False
        return True

    def of(self, owner: object) -> "RequestContext | None":
        """This context, or the one further out, that belongs to a gateway; None where it has not seen the request.

        Args:
            owner: The gateway's rule of who is counted.
        """
        context: RequestContext | None = self
        while context is not None and context.compiled.identify is not owner:
            context = context.outer
        return context

    def __repr__(self) -> str:
        """Stage and request."""
        return f"<RequestContext {self.stage} {self.request.method} {self.request.path}>"


current: ContextVar[RequestContext | None] = ContextVar("apigate", default=None)
"""Holds the context while the app runs; set by adapters."""


def current_context() -> RequestContext | None:
    """The context of the request that the running code serves, or None outside of one.

    It is set only where the gateway has decorated endpoints: they need it, as they take no `request` argument.
    """
    return current.get()
