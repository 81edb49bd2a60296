"""Settings compiled: for every method of a stage the flat pipeline of its policies, ready before the first request."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple, cast, final

from apigate.caching.cache import ResponseCache
from apigate.caching.mark import CacheMark
from apigate.caching.settings import CachePolicy
from apigate.config import UNSET, Method, Stage, Unset
from apigate.core.clock import Clock
from apigate.core.context import RequestContext
from apigate.core.counters import Counters
from apigate.core.endpoints import Endpoint, Mark
from apigate.core.errors import ConfigurationError
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.core.message import Request, Response
from apigate.core.policy import CompiledMethod, Phase, Policy
from apigate.core.responses import GatewayResponses
from apigate.core.routes import (
    ANY,
    MethodTable,
    has_control_character,
    has_dot_segment,
    is_no_path,
    method_key,
    shape_of,
)
from apigate.throttling.combined import check_windows, open_buckets
from apigate.throttling.fields import Draft
from apigate.throttling.identity import ClientIdentity
from apigate.throttling.in_flight import InFlightPolicy, SlotLimit, Slots
from apigate.throttling.limit import MODES, Limit, Mode, limits_of
from apigate.throttling.mark import ThrottleMark
from apigate.throttling.policy import (
    ExemptPolicy,
    RateLimitFieldsPolicy,
    SettlementPolicy,
    ThrottlePolicy,
    ThrottleRefusals,
)
from apigate.throttling.rate import Rate
from apigate.throttling.settlement import parse_statuses
from apigate.throttling.store import ThrottleStore
from apigate.throttling.window import Window

__all__ = ["Compiler", "GlobalSettings", "RefusalPolicy", "RunningStage"]

_SEVERAL = 4_096


@final
class RefusalPolicy:
    """Answers every request with one and the same refusal: where routing itself ends a pass."""

    phase = Phase.ROUTE

    def __init__(self, responses: GatewayResponses, kind: str, detail: str) -> None:
        """Say which response, and why."""
        self._responses = responses
        self.kind: str = kind
        self.detail: str = detail

    def on_request(self, context: RequestContext) -> Response:
        """Refuse."""
        return self._responses.make(self.kind, context, self.detail)


class GlobalSettings(NamedTuple):
    """What holds for the whole gateway.

    Attributes:
        throttle: The rates of the global level.
        in_flight: How many requests are served at once.
        modes: Modes by level, unless a stage or method says otherwise.
    """

    throttle: tuple[Rate | Window, ...]
    in_flight: int | None
    modes: Mapping[str, Mode]


class _Place(NamedTuple):
    """One place where requests are counted.

    Attributes:
        level: Its level.
        name: What its bucket, or its slots, are kept under.
        settings: Where its settings stand.
        throttle: What its rate is called there; its in-flight limit is called alike.
        mode: Whether it is enforced.
        steady: Whether no outcome of a request gives back what it took there.
    """

    level: str
    name: str
    settings: "GlobalSettings | Stage | Method"
    throttle: str
    mode: Mode
    steady: bool = True


@final
class Compiler:
    """Turns settings into pipelines; holds what all stages of a gateway share.

    Attributes:
        settings: The settings of the global level as they stand.
        refusals: Makes the response to whoever was throttled.
        on_change: Called when a stage's settings have changed.
    """

    def __init__(
        self,
        *,
        name: str,
        store: ThrottleStore,
        clock: Clock,
        identity: ClientIdentity,
        responses: GatewayResponses,
        draft: Draft | None,
        x_rate_limit: bool,
        policies: Sequence[Policy],
        on_shadow: Callable[[RequestContext, tuple[str, ...]], None],
        settings: GlobalSettings,
        shared_store: ThrottleStore | None = None,
        on_store_change: Callable[[StoreOutage | StoreRecovered], None] | None = None,
        on_look: Callable[[RequestContext, str, str | None], None] | None = None,
    ) -> None:
        """Keep the shared parts; `name` prefixes every bucket's."""
        self._name = name
        self.settings: GlobalSettings = settings
        self.identity: ClientIdentity = identity
        self.clock: Clock = clock
        self.store: ThrottleStore = store
        self._responses = responses
        self._draft = draft
        self._x_clock = clock if x_rate_limit else None
        self.refusals: ThrottleRefusals = ThrottleRefusals(responses, draft, self._x_clock)
        self.on_change: Callable[[], None] = lambda: None
        self._policies = tuple(policies)
        self._on_shadow = on_shadow
        self._shared_store = shared_store
        self._on_store_change = on_store_change
        self._on_look = on_look
        self._lock = Lock()
        self._limits: dict[str, Limit] = {}
        self._settling: tuple[Stage, bool] | None = None  # of the stage that is being compiled
        self._window_marks: list[Limit] = []
        self._slots: dict[str, Slots] = {}
        self._counters: dict[tuple[str, str], Counters] = {}
        self._caches: dict[str, ResponseCache] = {}
        self.cache_policies: set[CachePolicy] = set()

    def method(self, stage: Stage, *names: str | None, marks: Sequence[Mark] = ()) -> CompiledMethod:
        """The pipeline of a method; None is a request that matches none.

        Of several names the stricter settings hold: the limits of all, the highest cost, exempt only if all are.

        Args:
            stage: The stage.
            names: The methods.
            marks: What decorators of the endpoint ask; those of other gateways are not ours to carry out.
        """
        marks = [mark for mark in marks if mark.owner is self.identity]
        settings = [stage.settings(name) for name in names]
        exempt = [s.exempt for s in settings]
        policies = [*self._policies, *self._caching(stage, names, settings, marks)]
        if not all(rule is True for rule in exempt):
            rule = _all_exempt(exempt)
            if rule is not None:
                policies.append(ExemptPolicy(rule))
            policies += self._in_flight(self._places(stage, names))
            policies += self._throttle(stage, names, settings, marks)
            if len(names) == 1 and not marks:  # of several at one path, found out by a request, each counts
                self._check_windows(stage, names[0])
        return self._compiled(stage, names[0], policies, marks)

    def cache_of(self, stage: Stage) -> ResponseCache | None:
        """The cache of a stage, made at first use where its settings leave that open; None where they say none."""
        if isinstance(stage.cache, ResponseCache) or stage.cache is None:
            cache = stage.cache
        else:
            cache = self._caches.get(stage.name) or ResponseCache()
        if cache is not None and self._caches.get(stage.name) is not cache:
            cache.bind(f"stage {stage.name!r} of gateway {self._name!r}", self.clock)
            if cache.sharing is not None or self._shared_store is not None:
                self._share(cache, stage.name)
            self._caches[stage.name] = cache
        return cache

    def has_cache(self, stage: str) -> bool:
        """Whether any method of a stage is cached."""
        return stage in self._caches

    def _share(self, cache: ResponseCache, stage: str) -> None:
        """Have a cache share with other workers what it is to share, through the gateway's store or one of its own."""
        from apigate.stores.cache_address import keeps_responses, open_response_store

        own = cache.sharing
        if callable(getattr(own, "learn", None)):
            for other, each in self._caches.items():
                if each.sharing is own:
                    raise ConfigurationError(
                        f"cache shared: {own!r} is of stage {other!r} already, and keeps no stages apart; give stage "
                        f"{stage!r} a store of its own"
                    )
        store = self._shared_store if own is None or own is True else own
        if own is True and not keeps_responses(store):
            raise ConfigurationError(
                f"cache shared: the gateway's store keeps no responses; give it store='file:///...' or 'redis://...', "
                f"or stage {stage!r} cache=ResponseCache(shared='file:///...')"
            )
        if store is None or isinstance(store, bool) or (own is None and not keeps_responses(store)):
            return
        opened = open_response_store(
            store,
            name=self._name,
            stage=stage,
            clock=self.clock,
            on_event=self._on_store_change,
            bodies=own is not None,
            max_lag=cache.max_lag,
        )
        cache.share(opened, bodies=own is not None)

    def _caching(
        self, stage: Stage, names: Sequence[str | None], settings: Sequence[Method], marks: Sequence[Mark]
    ) -> list[Policy]:
        """The gate of phase CACHE. Of several methods at one path all have to be cached alike."""
        marked = next((mark.policy for mark in marks if isinstance(mark, CacheMark)), None)
        wanted = {self._cache_policy(stage, name, own, marked) for name, own in zip(names, settings, strict=True)}
        policy = wanted.pop()
        cache = None if policy is None or wanted else self.cache_of(stage)
        if cache is None or policy is None:
            return self._invalidating(stage, names)
        from apigate.caching.lookup import Lookup
        from apigate.caching.policy import CachingPolicy

        self.cache_policies.add(policy)
        lookup = Lookup(cache, policy, self.clock, names[0])
        counters = self._counted(stage.name, names[0])
        return [CachingPolicy(lookup, self._responses, counters, self._on_look)]

    def _invalidating(self, stage: Stage, names: Sequence[str | None]) -> list[Policy]:
        """What is left to do where nothing is cached: unsafe methods change what others are cached of."""
        own = stage.cache.policy if isinstance(stage.cache, ResponseCache) else None
        policies = [own, *[settings.cache for settings in stage.methods.values()]]
        is_cached = bool(self.cache_policies) or any(isinstance(policy, CachePolicy) for policy in policies)
        if stage.cache is None or not is_cached:
            return []
        from apigate.caching.invalidation import SAFE_METHODS
        from apigate.caching.lookup import Lookup
        from apigate.caching.policy import InvalidatingPolicy

        cache = self.cache_of(stage)
        if cache is None or all(name and name.partition(" ")[0] in SAFE_METHODS for name in names):
            return []
        return [InvalidatingPolicy(Lookup(cache, CachePolicy(ttl=0), self.clock))]

    def _cache_policy(
        self, stage: Stage, name: str | None, settings: Method, marked: CachePolicy | None
    ) -> CachePolicy | None:
        """What holds for a method: its own setting, else its endpoint's decorator, else that of `*` or the cache."""
        own = None if name is None else stage.methods.get(name)
        if marked is not None and (own is None or own.cache is UNSET):
            return marked
        if not isinstance(settings.cache, Unset):
            return cast("CachePolicy | None", settings.cache)  # as it was checked
        return stage.cache.policy if isinstance(stage.cache, ResponseCache) else None

    def preflight(self, stage: Stage) -> CompiledMethod:
        """The pipeline of a CORS preflight, which takes from the global level alone and is not authorized."""
        policies = [policy for policy in self._policies if policy.phase is not Phase.AUTHORIZE]
        everywhere = self._global_place()
        limits = self._known(_limits_at(everywhere))
        policies += [*self._in_flight([everywhere]), *self._throttle_policies(limits, (), 1, None, None)]
        return self._compiled(stage, None, policies)

    def check_mark(self, mark: ThrottleMark, others: Sequence[Mark], stages: Iterable[Stage]) -> None:
        """See that a decorator adds no second window to what is known to count where it stands.

        Args:
            mark: What it leaves on the function.
            others: What others have left there.
            stages: Where the function may be served.

        Raises:
            ConfigurationError: The gateway, a stage, the methods' default or another decorator has a window too.
        """
        found = [limit for limit in mark.limits(0) if limit.window]
        if not found:
            return
        own = [other for other in others if isinstance(other, ThrottleMark) and other.owner is mark.owner]
        beside = [limit for other in own for limit in other.limits(0)]
        check_windows((*beside, *found), f"{mark.name}")
        for stage in stages:
            if stage.settings(None).exempt is not True:
                check_windows((*self.limits(stage, None), *found), f"stage {stage.name!r} and {mark.name}")
        self._window_marks += found

    def _check_windows(self, stage: Stage, name: str | None) -> None:
        marked = self._window_marks[:1] if name is None else []
        check_windows((*self.limits(stage, name), *marked), f"stage {stage.name!r}, method {name or ANY!r}")

    def refused(self, stage: str, kind: str, detail: str) -> CompiledMethod:
        """A pipeline that only refuses."""
        policies = [RefusalPolicy(self._responses, kind, detail)]
        return CompiledMethod(stage, None, policies, self.identity, self._counted(stage, None))

    def counts(self, stage: str) -> dict[str, dict[str, int]]:
        """Requests of a stage by method and kind; methods that had none are left out."""
        counts = {method: counters.counts() for (name, method), counters in self._counters.items() if name == stage}
        return {method: kinds for method, kinds in counts.items() if kinds}

    def _compiled(
        self, stage: Stage, name: str | None, policies: Sequence[Policy], marks: Sequence[Mark] = ()
    ) -> CompiledMethod:
        counters = self._counted(stage.name, name)
        return CompiledMethod(stage.name, name, policies, self.identity, counters, stage.variables, marks)

    def _counted(self, stage: str, name: str | None) -> Counters:
        return self._counters.setdefault((stage, name or ANY), Counters())

    def limits(self, stage: Stage, *names: str | None) -> tuple[Limit, ...]:
        """Every limit of a method, shared ones first; of several methods those of all, each bucket once."""
        return self._known(self._all_limits(stage, names))

    def _all_limits(self, stage: Stage, names: Sequence[str | None]) -> Iterator[Limit]:
        for place in self._places(stage, names):
            yield from _limits_at(place)

    def _global_place(self) -> "_Place":
        mode = self.settings.modes.get("global", "enforce")
        return _Place("global", f"{self._name}:global", self.settings, "throttle", mode)

    def _places(self, stage: Stage, names: Sequence[str | None]) -> Iterator["_Place"]:
        """Every place where a request of these methods may be counted, those shared by all clients first."""
        methods = [(f"{stage.name}:{name or ANY}", stage.settings(name)) for name in names]
        here: dict[str, Mode] = {**self.settings.modes, **_given(stage.modes)}
        prefix = self._name
        yield self._global_place()
        yield _Place("stage", f"{prefix}:stage:{stage.name}", stage, "throttle", here.get("stage", "enforce"))
        for suffix, own in methods:
            mode: Mode = _given(own.modes).get("method", here.get("method", "enforce"))
            yield _Place("method", f"{prefix}:method:{suffix}", own, "throttle", mode, not own.is_settled)
        mode = here.get("client", "enforce")
        steady = not self._settles(stage)
        yield _Place("client", f"{prefix}:client:{stage.name}", stage, "client_throttle", mode, steady)
        for suffix, own in methods:
            mode = _given(own.modes).get("client-method", here.get("client-method", "enforce"))
            name = f"{prefix}:client-method:{suffix}"
            yield _Place("client-method", name, own, "client_throttle", mode, not own.is_settled)

    def _settles(self, stage: Stage) -> bool:
        """Whether some method gives back what requests took from the clients' buckets of the stage."""
        if self._settling is None or self._settling[0] is not stage:
            settings = (*stage.methods.values(), stage.settings(None))
            self._settling = stage, any(method.is_settled for method in settings)
        return self._settling[1]

    def _known(self, limits: Iterator[Limit] | Sequence[Limit]) -> tuple[Limit, ...]:
        """The same limits as objects known before, where nothing about them changed."""
        found: dict[str, Limit] = {}
        for limit in limits:
            known = self._limits.get(limit.name)
            if known is None or (known.rate, known.enforced, known.steady) != (
                limit.rate,
                limit.enforced,
                limit.steady,
            ):
                known = self._limits[limit.name] = limit
            found[limit.name] = known
        return tuple(found.values())

    def _throttle(
        self,
        stage: Stage,
        names: Sequence[str | None],
        settings: Sequence[Method],
        marks: Sequence[Mark],
    ) -> list[Policy]:
        costs = [1 if s.cost is UNSET else s.cost for s in settings]
        cost = costs[0] if len(costs) == 1 else _highest(costs)
        only = settings[0] if len(settings) == 1 else Method()  # what is doubtful is not given back
        refund = parse_statuses(only.refund) if isinstance(only.refund, str) else None
        final_cost = only.final_cost if callable(only.final_cost) else None
        throttles = [
            (mark, mode == "enforce")
            for mark in marks
            if isinstance(mark, ThrottleMark) and (mode := self.mode(mark.level, stage, names)) != "off"
        ]
        return self._throttle_policies(self.limits(stage, *names), throttles, cost, refund, final_cost)

    def mode(self, level: str, stage: Stage | None = None, names: Sequence[str | None] = ()) -> Mode:
        """How a level is held at these methods of a stage, or in the whole gateway; of several modes the strictest."""
        everywhere: Mode = self.settings.modes.get(level, "enforce")
        if stage is None:
            return everywhere
        here: Mode = _given(stage.modes).get(level, everywhere)
        found: list[Mode] = [_given(stage.settings(name).modes).get(level, here) for name in names]
        return min(found, key=MODES.index)

    def _throttle_policies(
        self,
        limits: tuple[Limit, ...],
        marks: Sequence[tuple[ThrottleMark, bool]],  # and whether it is enforced
        cost: Any,  # a number or a function of the request, as in Method
        refund: frozenset[int] | None,
        final_cost: Callable[[RequestContext, int], int] | None,
    ) -> list[Policy]:
        for mark, enforced in marks:
            others = sum(limit.level == mark.level for limit in limits)
            limits += mark.limits(others, enforced=enforced, steady=not refund and final_cost is None)
        if not limits:
            return []
        throttle = ThrottlePolicy(
            limits,
            open_buckets(self.store, limits, self.clock.now_us()),
            self.refusals,
            cost=cost,
            marks=[mark for mark, _ in marks],
            on_shadow=self._on_shadow,
        )
        policies: list[Policy] = [throttle]
        if self._draft is not None or self._x_clock is not None:
            policies.append(RateLimitFieldsPolicy(limits, self._draft, self._x_clock))
        if refund or final_cost is not None:
            policies.append(SettlementPolicy(throttle, self.clock, refund or frozenset(), final_cost))
        return policies

    def _in_flight(self, places: Iterable["_Place"]) -> list[Policy]:
        limits: list[SlotLimit] = []
        for place in places:
            most = getattr(place.settings, place.throttle.replace("throttle", "in_flight"))
            if isinstance(most, int) and place.mode != "off":
                slots = self._slots.setdefault(place.name, Slots(place.level))
                limits.append(SlotLimit(slots, most, enforced=place.mode == "enforce"))
        return [InFlightPolicy(limits, self._lock, self._responses, self._on_shadow)] if limits else []


@final
class _Routes:
    """The compiled methods of a stage as they stand; replaced as a whole when a setting changes."""

    __slots__ = (
        "bad_path",
        "bound",
        "by_shape",
        "compiled",
        "direct",
        "is_empty",
        "named_options",
        "preflight",
        "settings",
        "several",
        "table",
        "unmatched",
    )

    def __init__(self, compiler: Compiler, stage: Stage) -> None:
        names = [name for name in stage.methods if name != ANY]
        MethodTable({name: name for name in names})  # what cannot be a table fails before any limit is opened
        self.settings: Stage = stage
        self.compiled: dict[str | None, CompiledMethod] = {
            name: compiler.method(stage, name) for name in (*names, None)
        }
        self.table: MethodTable[CompiledMethod] = MethodTable({name: self.compiled[name] for name in names})
        self.named_options: MethodTable[bool] = MethodTable(
            {name: True for name in names if name.startswith("OPTIONS ")}
        )
        self.is_empty: bool = not names  # no method but the default: nothing to look up
        self.unmatched: CompiledMethod = self.compiled[None]
        self.preflight: CompiledMethod = compiler.preflight(stage)
        self.bad_path: CompiledMethod = compiler.refused(
            stage.name,
            "BAD_REQUEST_PARAMETERS",
            "The path has a dot segment, a control character, or no slash at its start.",
        )
        self.several: dict[tuple[CompiledMethod, ...], CompiledMethod] = {}
        self.bound: dict[tuple[Endpoint, tuple[CompiledMethod, ...]], CompiledMethod] = {}
        self.by_shape: dict[str, CompiledMethod] = {
            shape_of(" ".join(method_key(name))): self.compiled[name] for name in names
        }
        self.direct: dict[tuple[str, str], CompiledMethod] = {
            key: found[0] for key, found in self.table.static.items() if len(found) == 1
        }

    def named_by(self, method: str) -> CompiledMethod | None:
        """The method that a template of the framework is named by, whatever its slash at the end and its own names."""
        verb, _, template = method.partition(" ")
        named = self.by_shape.get(shape_of(method)) or self.by_shape.get(shape_of(f"{ANY} {template}"))
        if named is not None or self.is_empty or "+}" in template:
            return named
        other = template.removesuffix("/") if template.endswith("/") else f"{template}/"
        return next(iter((*self.table.find(verb, template), *self.table.find(verb, other))), None)


@final
class RunningStage:
    """A stage of a running gateway: where its requests go, and how its settings are changed.

    Attributes:
        name: The stage's name.
        routes: Its compiled methods as they stand.
    """

    def __init__(self, compiler: Compiler, settings: Stage) -> None:
        """Compile every method."""
        self.name: str = settings.name
        self._compiler = compiler
        self._changing = Lock()
        self.routes: _Routes = _Routes(compiler, settings)

    def update(self, method: str | None = None, /, **settings: Any) -> None:  # Any: values of every setting's type
        """Change settings of a method, or of the stage itself; buckets and counters keep their state.

        Requests under way end under the settings they began with.

        Args:
            method: The method as it is named in the stage's `methods`, or one to add; None for the stage.
            settings: As `Method` or `Stage` take them.

        Raises:
            ConfigurationError: A setting is unknown or cannot be used; nothing has changed then.
        """
        with self._changing:
            self.routes = _Routes(self._compiler, self.settings.changed(method, settings))
        self._compiler.on_change()

    def recompile(self) -> None:
        """Take up what changed in the gateway itself."""
        with self._changing:
            self.routes = _Routes(self._compiler, self.settings)

    def compiled(self, method: str | None) -> CompiledMethod:
        """The pipeline of a method of the stage's settings; None is a request that matches none."""
        return self.routes.compiled[method]

    def find(self, request: Request, endpoint: Endpoint | None = None) -> CompiledMethod:
        """The compiled method of a request; the quick way for static paths is `routes.direct`.

        Args:
            request: The request.
            endpoint: Where the app's framework sends it, where the gate can see that.
        """
        routes = self.routes
        path = request.path
        if has_dot_segment(path) or has_control_character(path) or is_no_path(request.method, path):
            return routes.bad_path
        if (
            request.method == "OPTIONS"
            and _is_preflight(request)
            and not routes.named_options.find("OPTIONS", path)
            and (endpoint is None or not endpoint.method.startswith("OPTIONS "))
        ):
            return routes.preflight
        found = () if routes.is_empty else routes.table.find(request.method, path)
        if request.alias and not routes.is_empty:
            found = tuple(dict.fromkeys((*found, *routes.table.find(request.method, request.alias))))
        if endpoint is not None:
            return routes.bound.get((endpoint, found)) or self.compiled_for(endpoint, found)
        if not found:
            return routes.unmatched
        return found[0] if len(found) == 1 else self._stricter(request, routes, found)

    @property
    def settings(self) -> Stage:
        """The settings as they stand."""
        return self.routes.settings

    @property
    def has_cache(self) -> bool:
        """Whether any method of it is cached."""
        return self._compiler.has_cache(self.name)

    @property
    def cache(self) -> ResponseCache:
        """The stage's cache, to invalidate what is in it.

        Raises:
            ConfigurationError: It has none.
        """
        cache = self._compiler.cache_of(self.settings)
        if cache is None:
            raise ConfigurationError(f"stage {self.name!r} has no cache; give it cache=ResponseCache(...)")
        return cache

    @property
    def is_empty(self) -> bool:
        """Whether no request can meet a gate here, and the app needs no context."""
        routes = self.routes
        return not self.settings.variables and not any(
            compiled.policies for compiled in (*routes.compiled.values(), routes.preflight)
        )

    def stats(self) -> dict[str, dict[str, int]]:
        """Requests by method and kind; those that matched none stand under `*`; methods without any are left out."""
        return self._compiler.counts(self.name)

    def _stricter(self, request: Request, routes: _Routes, found: tuple[CompiledMethod, ...]) -> CompiledMethod:
        """The settings of several methods together, made at first use and kept."""
        known = routes.several.get(found)
        if known is not None:
            return known
        with self._changing:
            if self.routes is routes:  # else the settings were changed since, and those of old must not be opened again
                known = self._compiler.method(routes.settings, *(compiled.method for compiled in found))
                if len(routes.several) >= _SEVERAL:
                    routes.several.clear()
                routes.several[found] = known
                return known
        return self.find(request)

    def compiled_for(self, endpoint: Endpoint, found: tuple[CompiledMethod, ...] = ()) -> CompiledMethod:
        """The pipeline of an endpoint of the app's framework; `find` uses the one that was made before.

        The methods that its own template names count beside those that the path matches: a router that takes a path
        for another (by letter case, say) opens no way around either.

        Args:
            endpoint: The endpoint.
            found: The methods that the request's path matches.
        """
        with self._changing:
            routes = self.routes
            named = routes.named_by(endpoint.method)
            matched = found if named is None or named in found else (*found, named)
            names = [compiled.method for compiled in matched] or [endpoint.method]
            compiled = self._compiler.method(routes.settings, *names, marks=endpoint.marks)
            if len(routes.bound) >= _SEVERAL:
                routes.bound.clear()  # routes that change make new endpoints; the old ones are not asked for again
            routes.bound[endpoint, found] = compiled
        return compiled

    def __repr__(self) -> str:
        """The flat order of gates of every method."""
        lines = [f"stage {self.name}"]
        for compiled in self.routes.compiled.values():
            lines.append(f"  {compiled.method or '* (whatever matches no method)'}")
            lines += [f"    {line}" for line in _described(compiled)] or ["    no gate"]
        return "\n".join(lines)


def _described(compiled: CompiledMethod) -> Iterator[str]:
    """Each policy of a method, in the order they run."""
    from apigate.caching.policy import CachingPolicy, InvalidatingPolicy

    for policy in compiled.policies:
        phase = policy.phase.name
        if isinstance(policy, ThrottlePolicy):
            for limit in policy.limits:
                yield f"{phase:<9} {limit.policy} {limit.rate}{'' if limit.enforced else ' (shadow)'}"
        elif isinstance(policy, CachingPolicy):
            yield f"{phase:<9} cache {policy.lookup.policy.terms}"
        elif isinstance(policy, InvalidatingPolicy):
            yield f"{phase:<9} cache {policy.terms}"
        elif isinstance(policy, InFlightPolicy):
            for slots, most, enforced in policy.limits:
                yield f"{phase:<9} {slots.level} at most {most} in flight{'' if enforced else ' (shadow)'}"
        else:
            yield f"{phase:<9} {type(policy).__name__}"


def _is_preflight(request: Request) -> bool:
    """Tell whether this is a CORS preflight (Fetch standard, CORS-preflight fetch)."""
    return "origin" in request.headers and "access-control-request-method" in request.headers


def _limits_at(place: _Place) -> tuple[Limit, ...]:
    rates = _rates(getattr(place.settings, place.throttle))
    return limits_of(place.name, place.level, rates, place.mode, steady=place.steady)


def _given(modes: Mapping[str, Mode] | Unset) -> Mapping[str, Mode]:
    return {} if modes is UNSET else modes


def _rates(rates: object) -> tuple[Rate | Window, ...]:
    """Rates and windows that a setting holds; none if it is unset or removed."""
    return cast("tuple[Rate | Window, ...]", rates) if isinstance(rates, tuple) else ()


def _all_exempt(rules: Sequence[object]) -> Callable[[Request], bool] | None:
    """A function that is true where every rule exempts a request; None if one never does."""
    if not all(callable(rule) or rule is True for rule in rules):
        return None
    functions = [rule for rule in rules if callable(rule)]
    return lambda request: all(function(request) for function in functions)


def _highest(costs: Sequence[Any]) -> int | Callable[[Request], int]:
    """The highest of several costs."""
    if all(isinstance(cost, int) for cost in costs):
        highest: int = max(costs)
        return highest
    return lambda request: max(cost if isinstance(cost, int) else cost(request) for cost in costs)
