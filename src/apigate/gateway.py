"""The gateway: what a user configures once, and the pass of a request through its gates.

The only module that knows a request's whole way. What waits exists twice, for threads and for tasks: `enter`, `refuse`,
`complete`; what they run is the same for both.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from inspect import signature
from os import PathLike
from threading import Lock
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, Unpack, cast, final
from weakref import WeakMethod, ref

from apigate.caching.settings import KEYED_BY_CONTENT, CachePolicy, CacheSettings
from apigate.config import (
    DEFAULT_STAGE,
    OBJECTS,
    RATE_HINTS,
    UNSET,
    Cost,
    Exempt,
    FinalCost,
    Method,
    ResponseCacheLike,
    Stage,
    Unset,
    checked_in_flight,
    checked_modes,
    checked_outage,
    checked_rates,
    checked_workers,
    gateway_settings,
    joined,
    read_toml,
)
from apigate.core.clock import Clock, SystemClock
from apigate.core.context import RequestContext
from apigate.core.cors import CORS
from apigate.core.counters import Counters
from apigate.core.endpoints import Decorated, Endpoint, FindEndpoint, Mark, Routing
from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_function
from apigate.core.message import Request, Response
from apigate.core.names import known_keywords
from apigate.core.native import is_same_request, warm_requests
from apigate.core.policy import CompiledMethod, Completion, OnRequest, Policy, block_on, refuse_awaitable
from apigate.core.responses import ErrorFormat, GatewayResponse, GatewayResponses
from apigate.core.routes import ANY
from apigate.core.steps import refuse_to_wait, run
from apigate.core.workers import Workers, workers_at_work, workers_seen
from apigate.pipeline import Compiler, GlobalSettings
from apigate.running_stage import RunningStage
from apigate.stage_caches import StageCaches
from apigate.staging.selector import StageSelector, parse_selector
from apigate.stores.address import open_store
from apigate.stores.memory import MemoryStore
from apigate.throttling.decision import Decision, Throttled
from apigate.throttling.fields import DRAFTS, Draft, RateLimitDraft
from apigate.throttling.identity import ClientIdentity
from apigate.throttling.limit import Mode
from apigate.throttling.mark import Per, ThrottleMark
from apigate.throttling.outage import OutagePolicy
from apigate.throttling.policy import ThrottlePolicy
from apigate.throttling.rate import RateLike
from apigate.throttling.store import ThrottleStore, store_name

if TYPE_CHECKING:
    from apigate.cache_decorator import CacheDecorator
    from apigate.caching.fill import Fill
    from apigate.core.events import Event
    from apigate.decorators import ThrottleDecorator
    from apigate.explain import Explanation
    from apigate.lint import Finding

__all__ = ["Gateway", "check_app", "empty_context"]

NO_STAGE = "(none)"
_NO_GATE = (
    "put GatewayMiddleware around it first; FastAPI and Starlette do so when they begin to serve, so await warm_async "
    "in the app's lifespan; in Django call apigate.django.warm(urls)"
)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

Unasked: TypeAlias = "tuple[RequestContext, Fill | Awaitable[Fill | None] | None]"
"""A request that no client makes, and what the cache does with its response."""

Weak: TypeAlias = Callable[[], T | None]
"""A reference that does not keep an adapter."""

Warmed: TypeAlias = "Iterable[str | tuple[str, Mapping[str, str]]]"
"""What a cache is warmed with: whole URLs, or URLs with request fields."""


@final
@known_keywords(RATE_HINTS)
class Gateway:
    """An API gateway: settings, a store and a clock, ready to be put around apps.

    Settings of a stage (`client_throttle`, `methods`, ...) may be given here for the one stage `default`, or in
    `stages`; not both.

    What users call; the other methods are for adapters:

    - `from_file`, `from_dict`: a gateway of settings that are written down;
    - `throttle`, `cache`: the decorators;
    - `stage(name)`, `stages`: a stage, for `.update(...)`, `.cache.invalidate(...)`, `.cache.flush()`, `.stats()`;
    - `update`: changes the global level while the gateway runs;
    - `explain`, `explain_async`: what would become of a request, and why;
    - `lint`: what is hardly meant; `stats`: what became of requests so far;
    - `warm`, `warm_async`: have responses stored before clients ask for them;
    - `store`: where the buckets are; one that processes share has `.close()`.

    Args:
        throttle: Rate of the one bucket of the whole gateway, level `global`; as for every level, a `Window` may stand
            for it, but for one level of a request only.
        in_flight: How many requests this process serves at once.
        client_throttle: Of the default stage, as in `Stage`; so are `client_in_flight`, `cost`, `exempt`, `refund`,
            `final_cost`, `variables`, `methods` and `cache`.
        modes: `"enforce"`, `"shadow"` or `"off"` by level; stages and methods may say otherwise.
        stages: The stages.
        stage_by: How a request's stage is found: `PathPrefix()`, `Host({...})` or `Header(...)` of `apigate.staging`.
        store: Where buckets are kept: `"file:///run/app/apigate.state"` for all processes of one host,
            `"redis://host:6379/0"` for those of all hosts, `"memory://"` for one process alone, or a store; options
            follow a `?`, as in `"memory://?max_keys=1000000"`. Where only windows are, also `"memcached://host:11211"`
            or `"mongodb://host:27017/name"`. A store of your own that blocks says so, with `offload = True`.
        name: The gateway's name, which prefixes all that it keeps in a store: letters, digits, `-`, `_` and `.`.
            Required where other processes use the store too, or what a cache shares; else `apigate`.
        outage: What levels do while the store cannot be reached: `"local"` (each process admits its share), `"closed"`
            (503) or `"open"` (not limited); one word, or one by level, `local` for the others. Without meaning for
            `memory://`.
        workers: How many processes share the limits, over all hosts: what a share is a part of. Default what the
            running server has, else what the environment asks for in GUNICORN_CMD_ARGS, else in WEB_CONCURRENCY, else
            1, which `lint` finds.
        client: A function of the request that names who is counted; None from it means the usual rule.
        trusted_hops: How many proxies of your own stand in front; that many members of the forwarding field, from the
            right, are believed. 0 believes none and takes the peer's address.
        forwarding_header: The one field those proxies write: `"x-forwarded-for"` or `"forwarded"`.
        responses: The gateway's own responses, customised by type.
        error_format: `"problem"` for RFC 9457 bodies, `"amazon"` for `{"message": ...}`.
        rate_limit: The version of the RateLimit fields that is sent, or None for none.
        x_rate_limit: Whether `X-RateLimit-*` is sent too, for old clients.
        cors: Which origins may read the gateway's own responses, around apps without a CORS layer that it can find;
            None where no page of another origin calls, and `lint` need not ask.
        policies: Gates of your own, see `apigate.core.policy.Policy`.
        on_event: Called with each event; an exception it raises is logged, and goes no further.
        clock: The clock to go by.

    Raises:
        ConfigurationError: A setting cannot be used. It names the setting and what is allowed.

    >>> gateway = Gateway(throttle=Rate(1_000, burst=2_000), client_throttle=Rate(10, burst=20))
    >>> print(gateway.explain("GET", "/pets").verdict)
    admitted
    """

    def __init__(
        self,
        *,
        throttle: RateLike | None = None,
        in_flight: int | None = None,
        client_throttle: RateLike | None | Unset = UNSET,
        client_in_flight: int | None | Unset = UNSET,
        cost: Cost | Unset = UNSET,
        exempt: Exempt | Unset = UNSET,
        refund: str | None | Unset = UNSET,
        final_cost: FinalCost | None | Unset = UNSET,
        variables: Mapping[str, str] | Unset = UNSET,
        methods: Mapping[str, Method] | Unset = UNSET,
        cache: ResponseCacheLike | None | Unset = UNSET,
        modes: Mapping[str, Mode] = MappingProxyType({}),
        stages: Sequence[Stage] = (),
        stage_by: StageSelector | str | Mapping[str, Any] | None = None,
        store: ThrottleStore | str = "memory://",
        name: str | None = None,
        outage: OutagePolicy = "local",
        workers: int | None = None,
        client: Callable[[Request], str | None] | None = None,
        trusted_hops: int = 0,
        forwarding_header: str = "x-forwarded-for",
        responses: Mapping[str, GatewayResponse] = MappingProxyType({}),
        error_format: ErrorFormat = "problem",
        rate_limit: RateLimitDraft | None = "draft-11",
        x_rate_limit: bool = False,
        cors: CORS | None | Unset = UNSET,
        policies: Sequence[Policy] = (),
        on_event: "Callable[[Event], None] | None" = None,
        clock: Clock | None = None,
    ) -> None:
        """Check every setting and compile every method."""
        own: dict[str, Any] = {
            "client_throttle": client_throttle,
            "client_in_flight": client_in_flight,
            "cost": cost,
            "exempt": exempt,
            "refund": refund,
            "final_cost": final_cost,
            "variables": variables,
            "methods": methods,
            "cache": cache,
        }
        given = {setting: value for setting, value in own.items() if value is not UNSET}
        if stages and given:
            raise ConfigurationError(f"Gateway: with stages, {', '.join(given)} must stand in a Stage")
        if on_event is not None and not is_function(on_event, "on_event"):
            raise ConfigurationError(f"on_event: {on_event!r} is not a function of an event")
        self.clock: Clock = _checked_clock(clock)
        opened = open_store(store, self._store_full)
        self.name: str = store_name(name, opened, "apigate", "Gateway")
        self.identity: ClientIdentity = ClientIdentity(trusted_hops, forwarding_header, client)
        self.cors: CORS | None | Unset = _checked_cors(cors)
        self.bound: list[tuple[str, Routing | None]] = []
        self._warmers: list[Weak[Callable[[Warmed], int]]] = []
        self._warmers_async: list[Weak[Callable[[Warmed], Awaitable[int]]]] = []
        self._apps: dict[int, tuple[int, object]] = {}  # by identity, which holds as long as they are kept here
        self._view_labels: dict[tuple[str, int], object] = {}  # apps whose views are their own gates
        self.outage: OutagePolicy = checked_outage(outage, "outage")
        self.workers: int | None = workers  # as it is set
        self.workers_seen: Workers | None = None
        self._warned_of_workers = False
        self._on_event = on_event
        self._changing = Lock()
        self.responses: GatewayResponses = GatewayResponses(responses, error_format)
        self._compiler = Compiler(
            name=self.name,
            store=self._guarded(opened, checked_workers(workers, "workers")),
            clock=self.clock,
            identity=self.identity,
            responses=self.responses,
            draft=_draft(rate_limit),
            x_rate_limit=_checked_flag("x_rate_limit", x_rate_limit),
            policies=_checked_sequence("policies", policies),
            on_shadow=self._would_deny,
            settings=_global_settings(throttle, in_flight, modes),
            caches=StageCaches(
                self.name,
                self.clock,
                self.responses,
                is_named=name is not None,
                methods=self._methods_of,
                shared_store=None if isinstance(opened, MemoryStore) else opened,
                on_store_change=None if on_event is None else self._emit,
                on_look=None if on_event is None else self._looked,
            ),
        )
        self._claimed: dict[str, int] = {}
        self._stages = self._start(_checked_sequence("stages", stages) or [Stage(DEFAULT_STAGE, **given)])
        self._selector = parse_selector(stage_by, self._stages)
        self._only = next(iter(self._stages.values())) if len(self._stages) == 1 and not self._selector else None
        self._no_stage = self._compiler.refused(NO_STAGE, "RESOURCE_NOT_FOUND", "There is no such stage.")
        self.marked: bool = False  # whether endpoints carry decorators, so that adapters make the context known
        self.throttles: bool = False  # whether any function is decorated with `throttle`
        self.decorated: Decorated = Decorated()
        self.caches: bool = False  # whether any method has a cache
        self.reads_content: bool = False  # whether the content of requests may be part of a cache key
        self.is_empty: bool = False  # whether no request can meet a gate, so that adapters hand it straight to the app
        self._compiler.on_change = self._changed
        self._changed()

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **objects: Any) -> Self:  # Any: values of every setting's type
        """A gateway from a table, as it stands in a configuration file.

        Args:
            settings: The names that `Gateway`, `Stage` and `Method` take, as nested tables; `"off"` for None.
            objects: What cannot stand in a file, such as `client=` or `on_event=`, or is not to. A table in both places
                is joined: `cache={"encryption": keys}` beside a `[cache]`; a setting is in one of them only.

        Raises:
            ConfigurationError: As `Gateway`, and for names that are no setting.
        """
        if not isinstance(settings, Mapping):
            raise ConfigurationError(f"the configuration: {settings!r} is not a table")
        known = frozenset(signature(cls).parameters) - OBJECTS
        beside = {name: objects.pop(name) for name in settings.keys() & objects.keys()}
        return cls(**gateway_settings(joined(settings, beside), known), **objects)

    @classmethod
    def from_file(cls, path: str | PathLike[str], **objects: Any) -> Self:  # Any: as from_dict
        """A gateway from a TOML file, see `from_dict`.

        Raises:
            ConfigurationError: As `from_dict`, and where the file cannot be read.
        """
        table = read_toml(path)
        try:
            return cls.from_dict(table, **objects)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error

    # ---- managing

    @property
    def store(self) -> ThrottleStore:
        """Where the buckets are; around a store that can be out of reach there is a `GuardedStore`."""
        return self._compiler.store

    @property
    def stage_by(self) -> StageSelector | None:
        """How a request's stage is found."""
        return self._selector

    @property
    def stages(self) -> Mapping[str, RunningStage]:
        """Every stage by name."""
        return MappingProxyType(self._stages)

    def stage(self, name: str = DEFAULT_STAGE) -> RunningStage:
        """A stage, to change its settings while it runs.

        Raises:
            ConfigurationError: There is no such stage.
        """
        try:
            return self._stages[name]
        except KeyError:
            raise ConfigurationError(f"stage: {name!r} is no stage; stages are {', '.join(self._stages)}") from None

    def update(
        self,
        *,
        throttle: RateLike | None | Unset = UNSET,
        in_flight: int | None | Unset = UNSET,
        modes: Mapping[str, Mode] | Unset = UNSET,
    ) -> None:
        """Change the global level while the gateway runs; its bucket keeps what it is owed.

        Raises:
            ConfigurationError: A setting cannot be used; nothing has changed then.
        """
        with self._changing:
            self._update(throttle, in_flight, modes)

    def _update(
        self,
        throttle: RateLike | None | Unset,
        in_flight: int | None | Unset,
        modes: Mapping[str, Mode] | Unset,
    ) -> None:
        compiler = self._compiler
        changed = _global_settings(
            (compiler.settings.throttle or None) if throttle is UNSET else throttle,
            compiler.settings.in_flight if in_flight is UNSET else in_flight,
            compiler.settings.modes if modes is UNSET else modes,
        )
        compiler.settings = changed
        for stage in self._stages.values():
            stage.recompile()
        self._changed()

    def stats(self) -> dict[str, dict[str, dict[str, int]]]:
        """Requests by stage, method and kind, since the gateway was built.

        Kinds are `admitted`, the types of gateway responses such as `THROTTLED`, and `shadow:` with a level for
        requests that it would have refused; where there is a cache also `cache:hit`, `cache:stale`, `cache:miss` and
        `cache:bypass`. Requests that matched no method stand under `*`, those that named no
        stage under the stage `(none)`. Methods that had no request are left out.
        """
        stats = {name: stage.stats() for name, stage in self._stages.items()}
        return {**stats, NO_STAGE: self._compiler.counts(NO_STAGE)} if self._selector else stats

    def explain(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        address: str = "127.0.0.1",
        stage: str | None = None,
        principal: str | None = None,
    ) -> "Explanation":
        """What would become of a request, and why; takes nothing.

        Args:
            method: The verb.
            path: The path, percent-encoded as in a request line, or the whole URL, with the query if there is one. What
                is cached is found only where the host is known, by the URL or by a `Host` among the fields.
            headers: The request's fields.
            address: The peer's address.
            stage: The stage, where it is fixed by the adapter.
            principal: Who would be verified to send it, as no authorizer is asked: whose cached responses it may get.

        Raises:
            ProtocolError: The store has to be awaited; use `explain_async`.
        """
        from apigate.explain import explain

        answer = run(explain(self, method, path, headers, address, stage, principal))
        if isinstance(answer, Awaitable):
            refuse_to_wait(answer, "explain_async")
        return answer

    async def explain_async(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        address: str = "127.0.0.1",
        stage: str | None = None,
        principal: str | None = None,
    ) -> "Explanation":
        """`explain` for tasks, which a store on a server has wait."""
        from apigate.explain import explain

        answer = run(explain(self, method, path, headers, address, stage, principal))
        return await answer if isinstance(answer, Awaitable) else answer

    def lint(self, *, connect: bool = False) -> "list[Finding]":
        """What is probably not meant: limits that never bind, methods that are never reached, and so on.

        Args:
            connect: Whether each store that processes share is asked too, to be run before a deployment; that waits for
                as long as its deadline.

        Raises:
            ProtocolError: `connect` is given where an event loop runs.
        """
        from apigate.lint import lint

        return lint(self, connect=connect)

    def throttle(
        self,
        rate: RateLike,
        *,
        per: Per = "method",
        key: Callable[..., str | int] | None = None,
        cost: int | Callable[..., int] = 1,
    ) -> "ThrottleDecorator":
        """A decorator that throttles one function; what it decorates keeps its signature and its kind.

        A call over the limit raises `Throttled`; where a gate stands around the caller, that becomes a 429, or a 503
        where the store cannot be asked.

        Args:
            rate: The rate of the function's own buckets, or their window.
            per: One bucket per `"method"` (the function), per `"client"` of the request that is being served, or per
                text that a function of the request gives; where that is None, per client.
            key: A function of the call's own arguments that gives the bucket; instead of `per`.
            cost: Tokens of one call: a number, or a function of what `per` or `key` are given.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        from apigate.decorators import ThrottleDecorator

        return ThrottleDecorator(self, rate, per, key, cost)

    def cache(self, policy: CachePolicy | None = None, /, **settings: Unpack[CacheSettings]) -> "CacheDecorator":
        """A decorator that caches the responses of one endpoint; it keeps its signature and its kind.

        The gate around the app carries it out, so a response that is served from the cache costs no call. A setting of
        the endpoint's method in `methods` comes before it.

        Args:
            policy: The policy; or its settings by name, as `CachePolicy` takes them.
            settings: As above.

        Raises:
            ConfigurationError: A setting cannot be used, or both are given.

        >>> gateway = Gateway()
        >>> @gateway.cache(ttl=60)
        ... def report(id): ...
        """
        from apigate.cache_decorator import CacheDecorator

        return CacheDecorator(self, policy, settings)

    def warm(self, requests: Warmed) -> int:
        """Have responses stored before clients ask for them, by every WSGI or Django gate of this gateway in turn.

        Args:
            requests: Whole URLs as clients write them, `https://shop.example/pets?page=1`, as host and scheme are part
                of each key; or URLs with request fields.

        Returns:
            How many were stored now; the others are stored already, or may not be.

        Raises:
            ConfigurationError: No such gate stands around an app. A URL has no scheme or no host, or a single one is
                given in place of a list.
            ProtocolError: What is shared has to be awaited.
        """
        gates = _living(self._warmers)
        if not gates:
            other = "await warm_async(urls) for the ASGI gates there are" if _living(self._warmers_async) else _NO_GATE
            raise ConfigurationError(f"warm: no WSGI gate of this gateway stands around an app; {other}")
        asked = list(warm_requests(requests))
        return sum(gate(asked) for gate in gates)

    async def warm_async(self, requests: Warmed) -> int:
        """`warm` for tasks, by every ASGI gate of this gateway in turn.

        Args:
            requests: As in `warm`.

        Raises:
            ConfigurationError: As in `warm`.
        """
        gates = _living(self._warmers_async)
        if not gates:
            other = "call warm(urls) for the gates there are" if _living(self._warmers) else _NO_GATE
            raise ConfigurationError(f"warm_async: no ASGI gate of this gateway stands around an app; {other}")
        asked = list(warm_requests(requests))
        return sum([await gate(asked) for gate in gates])

    def __repr__(self) -> str:
        """The flat order of the gates, for every stage and method."""
        return "\n".join([f"<Gateway {self.name}", *(repr(stage) for stage in self._stages.values())]) + ">"

    # ---- a request's pass; for adapters

    def check_stage(self, stage: str | None) -> None:
        """See that a request's stage can be told; adapters call it when they are bound.

        Raises:
            ConfigurationError: There is no such stage; or there are several, and nothing says which.
        """
        if stage is not None:
            self.stage(stage)
        elif self._selector is None and len(self._stages) > 1:
            raise ConfigurationError(
                f"stage_by: several stages ({', '.join(self._stages)}) and nothing that tells which; give the Gateway "
                f"stage_by=, such as PathPrefix(), or the adapter stage="
            )

    def bind(
        self,
        app: object,
        routing: Routing | None,
        *,
        warm: Callable[[Warmed], int] | None = None,
        warm_async: Callable[[Warmed], Awaitable[int]] | None = None,
    ) -> str:
        """Note what an adapter stands around, for `lint` and listings, and how many workers there are.

        Args:
            app: The app.
            routing: Its routes, where the adapter can read them.
            warm: Has what is behind the adapter stored, as `warm` does.
            warm_async: The same, awaited.

        Returns:
            What tells the app from others around which the gateway stands; empty for the first one. The cache keeps
            them apart by it, as one path means another thing in each.
        """
        owner: object = getattr(app, "__self__", app)  # Flask's `wsgi_app` is a method of the app
        kind = type(owner)
        module: str = getattr(owner, "__module__", kind.__module__)
        name: str = getattr(owner, "__qualname__", kind.__qualname__)
        self.bound.append((f"{module}.{name}", routing))
        if warm is not None:
            _keep_weakly(self._warmers, warm)
        if warm_async is not None:
            _keep_weakly(self._warmers_async, warm_async)
        self.workers_seen = workers_seen() or self.workers_seen
        self._warn_of_workers()
        number = self._apps.setdefault(id(owner), (len(self._apps), owner))[0]
        return f"{module}.{name}#{number}" if number else ""

    def view_label(self, app: object) -> str:
        """What tells an app from others whose views are their own gates; for decorators.

        By its name, as that is the same in each worker; of several of one name, by the order in which they are asked.

        Args:
            app: The app.
        """
        name = f"{getattr(app, 'import_name', '')}:{getattr(app, 'name', '')}"
        number = 0
        while self._view_labels.setdefault((name, number), app) is not app:
            number += 1
        return f"{name}#{number}" if number else name

    def begin(self, native: Mapping[str, Any]) -> None:  # Any: a scope or environ, values of every type
        """See at its first request whether more workers show than when an adapter was bound; for adapters.

        Args:
            native: The ASGI scope or the environ.
        """
        self.workers_seen = workers_at_work(native, self.workers_seen)
        self._warn_of_workers()

    def _warn_of_workers(self) -> None:
        """Say once that each of several workers admits the whole limit."""
        if self._warned_of_workers or self.workers_seen is None or not self.workers_seen.several:
            return
        from logging import getLogger

        from apigate.lint import multiplied_limits

        for finding in multiplied_limits(self):
            self._warned_of_workers = True
            getLogger("apigate").warning("%s", finding.message, extra={"check": finding.check})

    def mode(self, level: str) -> Mode:
        """How a level is held where neither a stage nor a method says otherwise; for decorators."""
        return self._compiler.mode(level)

    def endpoint_of(self, request: Request) -> Endpoint | None:
        """Where the app that the gateway stands around would send a request; for explaining."""
        for _, routing in self.bound:
            endpoint = None if routing is None else routing.find(request)
            if endpoint is not None:
                return endpoint
        return None

    def _methods_of(self, stage: str) -> set[str] | None:
        """The names of a stage's methods and of the apps' endpoints; None while a cached one may be unknown."""
        routings = [routing for _, routing in self.bound]
        if not routings or (self.marked and None in routings):  # decorated views may be gates of their own
            return None
        methods: set[str] = set()
        for routing in routings:
            for endpoint in () if routing is None else routing.endpoints():
                verb, _, template = endpoint.method.partition(" ")
                verbs = ("GET", *KEYED_BY_CONTENT) if verb == ANY else ()  # a view that does not tell its verbs
                methods |= {endpoint.method, *[f"{each} {template}" for each in verbs]}
        return self.stage(stage).names(methods)

    def route(self, request: Request, stage: str | None, find: FindEndpoint | None = None) -> RequestContext:
        """The context of a request at the method it is for."""
        running = self._only or self._select(request, stage)
        if running is None:
            compiled = self._no_stage
        elif find is None:
            direct = None if request.alias else running.routes.direct.get((request.method, request.path))
            compiled = direct or running.find(request)
        else:
            endpoint = find(request)
            direct = None
            if endpoint is not None and not request.alias:
                direct = running.routes.bound_direct.get((endpoint, request.method, request.path))
            context = RequestContext(request, direct or running.find(request, endpoint), self.clock.now_us())
            context.endpoint = endpoint
            return context
        return RequestContext(request, compiled, self.clock.now_us())

    def enter(self, request: Request, stage: str | None = None, find: FindEndpoint | None = None) -> RequestContext:
        """Send a request through the gates that come before the app.

        Args:
            request: The request.
            stage: The stage, where the adapter fixes it.
            find: Tells the framework's endpoint, where the adapter can read the app's routes.

        Returns:
            Its context. Where `refusal` is set, send that and do not call the app; else run the hooks `on_response` of
            `compiled` when the app's response starts, and `complete` when it has ended.

        Raises:
            ProtocolError: A policy or the store has to be awaited; use `enter_async`.
        """
        context = self.route(request, stage, find)
        try:
            for hook in context.compiled.on_request:
                outcome = hook(context)
                if outcome is not None:
                    response = outcome if type(outcome) is Response else block_on(outcome)
                    if response is not None:
                        self._note_refusal(context, response)
                        break
        except BaseException:
            self.complete(context, None)
            raise
        if context.refusal is None:
            next(context.compiled.admitted)
        else:
            self.complete(context, None)
        return context

    async def enter_async(
        self, request: Request, stage: str | None = None, find: FindEndpoint | None = None
    ) -> RequestContext:
        """`enter` for tasks."""
        entered = self.enter_soon(request, stage, find)
        return entered if type(entered) is RequestContext else await entered

    def enter_soon(
        self, request: Request, stage: str | None = None, find: FindEndpoint | None = None
    ) -> RequestContext | Awaitable[RequestContext]:
        """`enter` for tasks: the context at once where nothing has to be waited for, else an awaitable of it.

        So that most requests cost no coroutine; the rest of a pass that has to wait is `_enter_later`.
        """
        context = self.route(request, stage, find)
        compiled = context.compiled
        hooks = iter(compiled.on_request)
        try:
            for hook in hooks:
                outcome = hook(context)
                if outcome is not None:
                    if type(outcome) is not Response:
                        return self._enter_later(context, hooks, outcome)
                    self._note_refusal(context, outcome)
                    return self._completed(context) if compiled.on_complete else context
        except BaseException as error:
            if compiled.on_complete:
                return self._given_up(context, error)
            raise
        next(compiled.admitted)
        return context

    async def _enter_later(
        self, context: RequestContext, hooks: Iterator[OnRequest], outcome: Awaitable[Response | None]
    ) -> RequestContext:
        """The rest of a pass, from the first hook on that has to be waited for."""
        try:
            response = await outcome
            while response is None and (hook := next(hooks, None)) is not None:
                found = hook(context)
                response = found if found is None or type(found) is Response else await found
            if response is not None:
                self._note_refusal(context, response)
        except BaseException:
            await self.complete_async(context, None)
            raise
        if context.refusal is not None:
            return await self._completed(context)
        next(context.compiled.admitted)
        return context

    async def _completed(self, context: RequestContext) -> RequestContext:
        """The context of a request that was refused, once the gates have settled."""
        await self.complete_async(context, None)
        return context

    async def _given_up(self, context: RequestContext, error: BaseException) -> RequestContext:
        """Let the gates settle, then raise what ended the pass."""
        await self.complete_async(context, None)
        raise error

    def enter_unasked(self, request: Request, stage: str | None = None, find: FindEndpoint | None = None) -> "Unasked":
        """The context of a request that no client makes, and its exchange with the cache; for adapters that warm it.

        It takes from no limit, and is nobody's: what is stored for a principal is not warmed.

        Args:
            request: The request.
            stage: The stage, where the adapter fixes it.
            find: As in `enter`.

        Returns:
            Context and exchange, or an awaitable of the exchange; None in its place where nothing has to be asked, as
            a fresh response is stored or none would be.
        """
        from apigate.caching.policy import CachingPolicy

        context = self.route(request, stage, find)
        context.exempt = True
        for policy in context.compiled.policies:
            if isinstance(policy, CachingPolicy):
                return context, policy.warm(context)
        return context, None

    def is_preflight(self, context: RequestContext) -> bool:
        """Tell whether a request was routed as a CORS preflight; for explaining."""
        return any(context.compiled is stage.routes.preflight for stage in self._stages.values())

    def has_passed(self, context: object, stage: str | None, native: Mapping[str, Any]) -> bool:
        """Tell whether a request was sent through this gateway before, by a gate further out; it counts once.

        Args:
            context: What the gate further out left.
            stage: The stage, where this one fixes it.
            native: The request as it is now: a copy with another path, as an app makes one for a request of its own,
                is another request.
        """
        while isinstance(context, RequestContext):
            if context.compiled.identify is self.identity and stage in (None, context.stage):
                return is_same_request(context.request.native, native)
            context = context.outer
        return False

    def readable(self, context: RequestContext, response: Response, routing: Routing | None) -> Response:
        """A refusal as a page of another origin may read it: with the fields of the app's CORS layer, or our own.

        Args:
            context: The request's context.
            response: What is sent to it.
            routing: The app's routes, where the adapter can read them.
        """
        origin = context.request.headers.get("origin")
        if origin is None:
            return response
        if routing is not None and routing.has_cors:
            response = routing.with_cors(context.request, response)
        if not isinstance(self.cors, CORS) or any(name == b"access-control-allow-origin" for name, _ in response.raw):
            return response
        return self.cors.added(response, origin)

    def refuse(
        self,
        context: RequestContext,
        error: Throttled,
        later: Callable[[Awaitable[None]], None] = refuse_awaitable,
    ) -> Response:
        """The response to a request that was throttled further in.

        What it took out here is given back if the endpoint itself was refused, or if the gate cannot tell. Where the
        endpoint had begun its work, and something that it called was refused, that stays taken; or the endpoint could
        be made to work without end.

        Args:
            context: The request's context.
            error: What was raised further in.
            later: Takes what has to be awaited, where the caller cannot and yet has a loop.

        Raises:
            ProtocolError: The store has to be awaited, and nobody takes that; use `refuse_async`.
        """
        if (answer := self._give_back(context)) is not None:
            later(answer)
        return self._throttled(context, error)

    async def refuse_async(self, context: RequestContext, error: Throttled) -> Response:
        """`refuse` for tasks."""
        if (answer := self._give_back(context)) is not None:
            await answer
        return self._throttled(context, error)

    def _give_back(self, context: RequestContext) -> Completion:
        return self.give_back(context) if context.unserved or context.endpoint is None else None

    def give_back(self, context: RequestContext) -> Completion:
        """Return what a request took, as if it had never come; for adapters that send it in anew."""
        for policy in context.compiled.policies:
            if isinstance(policy, ThrottlePolicy):
                return policy.give_back(context, self.clock.now_us())
        return None

    def _throttled(self, context: RequestContext, error: Throttled) -> Response:
        context.inner_refusal = None
        context.decision = error.decision
        context.compiled.counters.withdraw("admitted")  # it was, out here; one request counts once
        response = self._compiler.refusals(context, error.decision)
        self._note_refusal(context, response)
        return response

    def complete(
        self,
        context: RequestContext,
        status: int | None,
        later: Callable[[Awaitable[None]], None] = refuse_awaitable,
    ) -> None:
        """Let the gates settle, once the response has ended or was given up.

        Args:
            context: The request's context.
            status: The status of the app's response; None if it never started one.
            later: As in `refuse`.

        Raises:
            ProtocolError: A policy or the store has to be awaited, and nobody takes that; use `complete_async`.
        """
        failure: BaseException | None = None
        for hook in context.compiled.on_complete:
            try:
                answer = hook(context, status)
                if answer is not None:
                    later(answer)
            except BaseException as error:  # noqa: BLE001 - the hooks after it hold slots that must be freed
                failure = error
        if failure is not None:
            raise failure

    async def complete_async(self, context: RequestContext, status: int | None) -> None:
        """`complete` for tasks."""
        failure: BaseException | None = None
        for hook in context.compiled.on_complete:
            try:
                answer = hook(context, status)
                if answer is not None:
                    await answer
            except BaseException as error:  # noqa: BLE001 - as in complete
                failure = error
        if failure is not None:
            raise failure

    def _select(self, request: Request, stage: str | None) -> RunningStage | None:
        """The stage of a request, None where it names none."""
        if stage is not None:
            return self._stages[stage]
        chosen = self._selector.select(request) if self._selector else None
        if chosen is None or chosen[0] not in self._stages:
            return None
        name, prefix = chosen
        if prefix:
            request.prefix = prefix
            request.path = request.path[len(prefix) :]
        return self._stages[name]

    def _changed(self) -> None:
        """Work out anew whether there is any gate at all."""
        self.is_empty = not self._selector and not self.marked and all(s.is_empty for s in self._stages.values())
        stages = [stage.cache_policies for stage in self._stages.values()]
        policies = self._compiler.caches.decorated.union(*stages)
        self.caches = bool(policies)
        self.reads_content = any(policy.reads_content for policy in policies)

    def mark(self, function: object, made: object, policy: CachePolicy | None = None) -> None:
        """Note that a function is decorated, so that adapters make the context of a request known to it.

        Args:
            function: The function.
            made: What the decorator made of it.
            policy: How its responses are cached, if they are.
        """
        self.decorated.note(function, made)
        self.marked = True
        self.throttles = self.throttles or policy is None
        if policy is not None:
            self._compiler.caches.decorated.add(policy)
        self._changed()

    def check_mark(self, mark: ThrottleMark, others: Sequence[Mark]) -> None:
        """See that a decorated function is not counted in two windows; for decorators.

        Raises:
            ConfigurationError: It would be.
        """
        self._compiler.check_mark(mark, others, [stage.settings for stage in self._stages.values()])

    def claim_name(self, name: str) -> str:
        """The name, numbered if a decorated function has it already; for decorators."""
        self._claimed[name] = number = self._claimed.get(name, 0) + 1
        return f"{self.name}:{name}" if number == 1 else f"{self.name}:{name}#{number}"

    def _start(self, stages: Sequence[Stage]) -> dict[str, RunningStage]:
        started: dict[str, RunningStage] = {}
        for stage in stages:
            if not isinstance(stage, Stage):
                raise ConfigurationError(f"stages: {stage!r} is not a Stage")
            if stage.name in started:
                raise ConfigurationError(f"stages: {stage.name!r} is there twice")
            started[stage.name] = RunningStage(self._compiler, stage)
        return started

    def _note_refusal(self, context: RequestContext, response: Response) -> None:
        """Note a refusal, count it and tell whoever listens."""
        context.refusal = response
        context.compiled.counters.add(response.kind)
        if self._on_event is not None:
            from apigate.core.events import Denied

            refused: Decision | None = None
            if context.decision is not None and not context.decision.allowed:
                refused = context.decision
            self._emit(
                Denied(
                    kind=response.kind,
                    status=response.status,
                    stage=context.stage,
                    method=context.method,
                    path=context.request.path,
                    client=context.known_client,
                    levels=response.violated if refused is None else refused.violated,
                    retry_after=None if refused is None else refused.retry_after,
                    request_id=context.request_id,
                )
            )

    def _would_deny(self, context: RequestContext, levels: tuple[str, ...]) -> None:
        for level in levels:
            context.compiled.counters.add(f"shadow:{level}")
        if self._on_event is not None:
            from apigate.core.events import WouldDeny

            request = context.request
            self._emit(
                WouldDeny(context.stage, context.method, request.path, context.client, levels, context.request_id)
            )

    def _looked(self, context: RequestContext, outcome: str, reason: str | None) -> None:
        from apigate.core.events import CacheLooked

        path, request_id = context.request.path, context.request_id
        self._emit(CacheLooked(outcome, context.stage, context.method, path, request_id, reason))

    def _guarded(self, store: ThrottleStore, workers: int | None) -> ThrottleStore:
        """The store with what happens in its outages; memory has none."""
        if isinstance(store, MemoryStore):
            return store
        from apigate.stores.guarded import GuardedStore

        return GuardedStore(
            store,
            name=self.name,
            clock=self.clock,
            outage=self.outage,
            workers=workers,
            on_event=None if self._on_event is None else self._emit,
            on_fill=self._store_full,
        )

    def _store_full(self, buckets: int) -> None:
        if self._on_event is not None:
            from apigate.core.events import StoreFull

            self._emit(StoreFull(buckets))

    def _emit(self, event: "Event") -> None:
        try:
            self._on_event(event)  # type: ignore[misc]  # callers checked that somebody listens
        except Exception:
            from logging import getLogger

            getLogger("apigate").exception("on_event raised for %r", event)


def _living(known: "list[Weak[F]]") -> list[F]:
    """What the references still refer to."""
    return [function for weak in known if (function := weak()) is not None]


def _keep_weakly(known: "list[Weak[F]]", function: F) -> None:
    """Add a weak reference to a function or method; those to gates that are gone are dropped."""
    own = WeakMethod(function) if isinstance(function, MethodType) else ref(function)
    known[:] = [each for each in known if each() is not None and each != own]
    known.append(cast("Weak[F]", own))


def empty_context(request: Request) -> RequestContext:
    """The context of a request that no gate has seen: of no stage and no method, with the peer as its client."""
    return RequestContext(request, CompiledMethod(NO_STAGE, None, (), ClientIdentity(), Counters()), 0)


def _checked_flag(setting: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{setting}: {value!r} is not True or False")
    return value


def _checked_cors(cors: object) -> CORS | None | Unset:
    if cors is None or cors == "off":
        return None
    if not isinstance(cors, CORS | Unset):
        raise ConfigurationError(f"cors: {cors!r} is not a CORS, nor None")
    return cors


def _checked_sequence(setting: str, values: Sequence[T]) -> Sequence[T]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigurationError(f"{setting}: {values!r} is not a list")
    return values


def _checked_clock(clock: Clock | None) -> Clock:
    if clock is None:
        return SystemClock()
    for method in ("now_us", "wall", "sleep", "sleep_async"):
        if not callable(getattr(clock, method, None)):
            raise ConfigurationError(f"clock: {clock!r} is not a clock: it has no method {method}")
    return clock


def _draft(version: object) -> Draft | None:
    if version is None or version == "off":
        return None
    if not isinstance(version, str) or version not in DRAFTS:
        raise ConfigurationError(f"rate_limit: {version!r} is unknown; allowed are {', '.join(DRAFTS)} and None")
    return DRAFTS[version]


def _global_settings(throttle: RateLike | None, in_flight: int | None, modes: Mapping[str, Mode]) -> GlobalSettings:
    """The settings of the global level, checked as those of a stage are."""
    return GlobalSettings(
        throttle=checked_rates(throttle, "throttle") or (),
        in_flight=checked_in_flight(in_flight, "in_flight"),
        modes=checked_modes(modes, "modes"),
    )


def check_app(app: object, gateway: object, *, arguments: int) -> None:
    """See that an adapter was given a gateway, and an app of its kind; for adapters.

    Args:
        app: The app.
        gateway: The gateway.
        arguments: How many positional arguments such an app takes: 2 for WSGI, 3 for ASGI.

    Raises:
        ConfigurationError: One of them is something else.
    """
    if not isinstance(gateway, Gateway):
        raise ConfigurationError(f"gateway: {gateway!r} is not a Gateway; put the app first, then the gateway")
    if not callable(app):
        raise ConfigurationError(f"app: {app!r} is not an app: it cannot be called")
    from inspect import Parameter, signature

    try:
        parameters = signature(app).parameters.values()
    except (TypeError, ValueError):  # some written in C do not tell
        return
    taken = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    required = [p for p in taken if p.default is Parameter.empty]
    several = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
    if len(required) > arguments or (len(taken) < arguments and not several):
        kind, instead = ("a WSGI", "apigate.asgi") if arguments == 2 else ("an ASGI", "apigate.wsgi")
        raise ConfigurationError(
            f"app: {app!r} takes {len(required)} arguments, so it is not {kind} app; perhaps use GatewayMiddleware "
            f"of {instead}"
        )
