"""Settings compiled: for every method of a stage the flat pipeline of its policies, ready before the first request."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple, cast, final

from apigate.config import UNSET, Method, Stage, Unset
from apigate.core.clock import Clock
from apigate.core.context import RequestContext
from apigate.core.counters import Counters
from apigate.core.endpoints import Mark
from apigate.core.message import Request, Response
from apigate.core.policy import CompiledMethod, Phase, Policy
from apigate.core.responses import GatewayResponses
from apigate.core.routes import ANY
from apigate.stage_caches import StageCaches
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

__all__ = ["ClockPolicy", "Compiler", "GlobalSettings", "RefusalPolicy"]


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


@final
class ClockPolicy:
    """Reads the clock anew after a policy of the user's own, which may have waited or worked for as long as it liked.

    A bucket that was asked by the time before it, after others by a later one, would be paid for that time twice.
    """

    def __init__(self, phase: Phase, clock: Clock) -> None:
        """Stand in the phase of the other policy, right after it."""
        self.phase: Phase = phase
        self._clock = clock

    def on_request(self, context: RequestContext) -> None:
        """Note what time it is by now."""
        context.now_us = self._clock.now_us()


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
        caches: The caches of the stages.
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
        caches: StageCaches,
    ) -> None:
        """Keep the shared parts; `name` prefixes every bucket's."""
        self._name = name
        self.settings: GlobalSettings = settings
        self.identity: ClientIdentity = identity
        self.clock: Clock = clock
        self.store: ThrottleStore = store
        self.caches: StageCaches = caches
        self._responses = responses
        self._draft = draft
        self._x_clock = clock if x_rate_limit else None
        self.refusals: ThrottleRefusals = ThrottleRefusals(responses, draft, self._x_clock)
        self.on_change: Callable[[], None] = lambda: None
        self._policies: list[Policy] = []
        for policy in policies:
            self._policies.append(policy)
            if hasattr(policy, "on_request") and hasattr(policy, "phase"):  # without one it is refused further on
                self._policies.append(ClockPolicy(policy.phase, clock))
        self._on_shadow = on_shadow
        self._lock = Lock()
        self._limits: dict[str, Limit] = {}
        self._settling: tuple[Stage, bool] | None = None  # of the stage that is being compiled
        self._window_marks: list[Limit] = []
        self._slots: dict[str, Slots] = {}
        self._counters: dict[tuple[str, str], Counters] = {}

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
        caching = self.caches.policies(stage, names, settings, marks, self._counted(stage.name, names[0]))
        policies = [*self._policies, *caching]
        if not all(rule is True for rule in exempt):
            rule = _all_exempt(exempt)
            if rule is not None:
                policies.append(ExemptPolicy(rule))
            policies += self._in_flight(self._places(stage, names))
            policies += self._throttle(stage, names, settings, marks)
            if len(names) == 1 and not marks:  # of several at one path, found out by a request, each counts
                self._check_windows(stage, names[0])
        return self._compiled(stage, names[0], policies, marks)

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
