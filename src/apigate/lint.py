"""What is allowed and yet hardly meant: the checks behind `Gateway.lint` and `apigate lint`.

Each check is one function from a gateway to its findings; `CHECKS` lists them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

from apigate.caching.policy import CachingPolicy, InvalidatingPolicy
from apigate.config import UNSET
from apigate.core.errors import ProtocolError, StoreError
from apigate.core.loops import running_loop
from apigate.core.routes import ANY, method_key, shape_of
from apigate.core.workers import workers_asked_for
from apigate.findings import Finding, compiled_of, endpoints_of, methods_of
from apigate.lint_caching import CACHE_CHECKS
from apigate.staging.selector import Header, Host
from apigate.throttling.in_flight import InFlightPolicy
from apigate.throttling.limit import LEVELS, Limit
from apigate.throttling.mark import ThrottleMark
from apigate.throttling.outage import outage_at
from apigate.throttling.policy import ExemptPolicy, RateLimitFieldsPolicy, SettlementPolicy, ThrottlePolicy
from apigate.throttling.store import is_shared

if TYPE_CHECKING:
    from apigate.gateway import Gateway
    from apigate.stores.guarded import GuardedStore

__all__ = ["CHECKS", "Finding", "lint"]


def lint(gateway: "Gateway", *, connect: bool = False) -> list[Finding]:
    """Every finding of every check."""
    checks = [*CHECKS, store_unreachable] if connect else CHECKS
    return list(dict.fromkeys(finding for check in checks for finding in check(gateway)))


def _throttles(gateway: "Gateway") -> Iterator[tuple[ThrottlePolicy, str]]:
    """The throttle of every method and of every decorated endpoint, and what to call it."""
    for compiled, where in compiled_of(gateway):
        for policy in compiled.policies:
            if isinstance(policy, ThrottlePolicy):
                yield policy, where


class _Counted(NamedTuple):
    """A limit, and how it is taken from.

    Attributes:
        limit: The limit.
        mark: The decorator that it is of, None where it is of the settings.
        cost: What a request takes: a number, else what decides it.
    """

    limit: Limit
    mark: ThrottleMark | None
    cost: object


def _counted(policy: ThrottlePolicy) -> Iterator[_Counted]:
    """Every limit of a throttle."""
    for limit, mark in zip(policy.limits, policy.marks, strict=True):
        own = policy.cost if mark is None else mark.fixed_cost
        yield _Counted(limit, mark, mark if own is None else own)


def _setting(limit: Limit, where: str) -> str:
    """Where a limit is set: not at every method that it holds for."""
    stage = where.partition(".methods.")[0]
    wide = {"global": "throttle", "stage": f"{stage}.throttle", "client": f"{stage}.client_throttle"}
    return wide.get(limit.level, where)


def _is_looser(limit: Limit, other: Limit) -> bool:
    """Tell whether a bucket has tokens wherever another has, from which every request takes as much.

    Of a window and anything else that is not said: each may come first at times.
    """
    if limit.window or other.window:
        return False
    return limit.rate.size >= other.rate.size and limit.n * other.p >= other.n * limit.p


def never_binds(gateway: "Gateway") -> Iterator[Finding]:
    """A limit that another one always comes before: wherever a request takes from it, it takes from that too.

    That holds for two rates of one level, and for a bucket of one client or method under a wider bucket.
    """
    for policy, where in _throttles(gateway):
        for one, another in permutations(_counted(policy), 2):
            limit, other = one.limit, another.limit
            together = _is_under(gateway, one, another) or (_is_beside(one, another) and limit.rate != other.rate)
            if together and one.cost == another.cost and other.enforced and _is_looser(limit, other):
                yield Finding(
                    "never-binds",
                    _setting(limit, where),
                    f"the {limit.policy} limit of {limit.rate} never refuses anything that the {other.policy} limit of "
                    f"{other.rate} would not; lower it or remove it",
                )


def in_flight_never_binds(gateway: "Gateway") -> Iterator[Finding]:
    """An in-flight limit that a wider one always comes before."""
    for stage, name, where in methods_of(gateway):
        for policy in stage.compiled(name).policies:
            if isinstance(policy, InFlightPolicy):
                for (slots, most, _), (wide, wide_most, enforced) in permutations(policy.limits, 2):
                    if enforced and _is_within(slots.level, wide.level) and most >= wide_most:
                        yield Finding(
                            "never-binds",
                            where,
                            f"{most} in flight at level {slots.level} is never reached, as the level {wide.level} has "
                            f"room for {wide_most}",
                        )


def _is_within(narrow: str, wide: str) -> bool:
    """Tell whether every token taken at the narrow level is also taken from the one bucket at the wide level."""
    wider = {
        "stage": ("global",),
        "method": ("global", "stage"),
        "client": ("global", "stage"),
        "client-method": ("global", "stage", "method", "client"),
    }
    return wide in wider.get(narrow, ())


def _is_under(gateway: "Gateway", one: _Counted, other: _Counted) -> bool:
    """Tell whether every request that takes from one limit takes from a wider one too.

    A decorator counts its function in all stages and at all routes, and by keys of its own if it has a function for
    them.
    """
    narrow, wide = one.limit.level, other.limit.level
    if one.mark is None:
        return other.mark is None and _is_within(narrow, wide)
    if other.mark is not None:
        return _is_within(narrow, wide)
    only = len(gateway.stages) == 1
    return wide == "global" or (only and (wide == "stage" or (wide == "client" and one.mark.is_per_client)))


def _is_beside(one: _Counted, other: _Counted) -> bool:
    """Tell whether two limits of one level have buckets for the same requests."""
    if one.limit.level != other.limit.level or (one.mark is None) != (other.mark is None):
        return False
    if one.mark is other.mark or one.limit.level == "method":
        return True
    return all(mark is not None and mark.is_per_client for mark in (one.mark, other.mark))


def rate_above_wider(gateway: "Gateway") -> Iterator[Finding]:
    """A rate above that of a wider level: the wider one refuses first in the long run."""
    for policy, where in _throttles(gateway):
        for one, another in permutations(_counted(policy), 2):
            limit, other = one.limit, another.limit
            faster = limit.n * other.p > other.n * limit.p
            if _is_under(gateway, one, another) and faster and not _is_looser(limit, other):
                yield Finding(
                    "rate-above-wider",
                    _setting(limit, where),
                    f"the {limit.policy} rate of {limit.rate} is above the {other.policy} rate of {other.rate}; in the "
                    f"long run the wider level refuses first",
                )


def cost_above_burst(gateway: "Gateway") -> Iterator[Finding]:
    """A fixed cost that no full bucket can pay: such a method is never admitted."""
    for policy, where in _throttles(gateway):
        for limit, _, cost in _counted(policy):
            if isinstance(cost, int) and limit.enforced and cost > limit.rate.size:
                most = "count" if limit.window else "burst"
                yield Finding(
                    "cost-above-burst",
                    where,
                    f"a cost of {cost} is above the {most} of the {limit.policy} limit {limit.rate}: no request "
                    f"is ever admitted; raise the {most} to at least {cost}",
                )


def unreachable(gateway: "Gateway") -> Iterator[Finding]:
    """Methods and stages that no request can be routed to."""
    for stage, name, where in methods_of(gateway):
        if name is None:
            continue
        verb, path = method_key(name)
        if "%" in path or "?" in path or "#" in path:
            yield Finding("unreachable", where, "paths are matched decoded and without a query; write it so")
        others = {method_key(other) for other in stage.settings.methods if other != ANY}
        if verb == ANY and others >= {(asked, path) for asked in _VERBS}:
            yield Finding("unreachable", where, f"every verb of {path} has a method of its own; remove this one")
    if isinstance(gateway.stage_by, Host):
        for unnamed in set(gateway.stages) - gateway.stage_by.names():
            yield Finding("unreachable", f"stages.{unnamed}", "no host of stage_by leads to this stage")


_VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


def exempt_with_limits(gateway: "Gateway") -> Iterator[Finding]:
    """A method that is exempt and has limits of its own."""
    for stage, name, where in methods_of(gateway):
        own = stage.settings.methods.get(name or ANY)
        if (
            own is not None
            and own.exempt is True
            and any(isinstance(rates, tuple) for rates in (own.throttle, own.client_throttle))
        ):
            yield Finding("exempt-with-limits", where, "the method is exempt, so its own limits never count; drop one")


def unknown_verb(gateway: "Gateway") -> Iterator[Finding]:
    """A verb that no standard has, so probably a slip."""
    for _, name, where in methods_of(gateway):
        if name is not None and method_key(name)[0] not in (*_VERBS, "QUERY", ANY):
            yield Finding(
                "unknown-verb", where, f"{method_key(name)[0]} is no verb that a standard names; is it a slip?"
            )


def stage_by_missing(gateway: "Gateway") -> Iterator[Finding]:
    """Several stages, and nothing in the gateway that tells which."""
    if gateway.stage_by is None and len(gateway.stages) > 1:
        yield Finding(
            "stage-by-missing",
            "stage_by",
            "there are several stages; say how a request's is found, as stage_by = 'path-prefix', or fix it at each "
            "adapter with stage=",
        )


def untrusted_proxy(gateway: "Gateway") -> Iterator[Finding]:
    """Forwarding fields from a private address, and nobody said that there is a proxy."""
    if gateway.identity.untrusted_forwarding:
        yield Finding(
            "untrusted-proxy",
            "trusted_hops",
            "requests came from a private address with X-Forwarded-For or Forwarded, and no hop is trusted: all "
            "clients of that proxy are counted as one; set trusted_hops to the number of your own proxies in front",
        )


def client_chosen_stage(gateway: "Gateway") -> Iterator[Finding]:
    """Stages that differ in their limits, and the client chooses among them."""
    if isinstance(gateway.stage_by, Header):
        limits: dict[str, set[tuple[str, str]]] = {name: set() for name in gateway.stages}
        for stage, name, _ in methods_of(gateway):
            for policy in stage.compiled(name).policies:
                if isinstance(policy, ThrottlePolicy):
                    limits[stage.name] |= {(f"{name}:{limit.policy}", str(limit.rate)) for limit in policy.limits}
        first, *others = limits.values()
        if any(own != first for own in others):
            yield Finding(
                "client-chosen-stage",
                "stage_by",
                "a header that the client sends chooses the stage, and the stages differ in their limits: every client "
                "can choose the looser one; choose by Host or PathPrefix, or make the limits equal",
            )


def unserved_method(gateway: "Gateway") -> Iterator[Finding]:
    """A method that no route of the app matches, so that its limits hold for nothing: a slip of the pen, perhaps."""
    routings = [routing for _, routing in gateway.bound]
    if not routings or None in routings:
        return
    served = {shape_of(endpoint.method.partition(" ")[2]) for endpoint in endpoints_of(gateway)}
    for _, name, where in methods_of(gateway):
        asked = "" if name is None else shape_of(method_key(name)[1])
        if asked and not any(_covers(asked, route) or _covers(route, asked) for route in served):
            yield Finding("unserved-method", where, "no route of the app matches it; is it a slip?")


def _covers(template: str, other: str) -> bool:
    """Tell whether a template matches what another one stands for, whatever the slash at its end."""
    pattern = re.escape(template.rstrip("/")).replace(re.escape("{+}"), ".+").replace(re.escape("{}"), "[^/]+")
    return re.fullmatch(pattern, other.rstrip("/").replace("{+}", "x/x").replace("{}", "x")) is not None


def decorator_above_route(gateway: "Gateway") -> Iterator[Finding]:
    """A function that was decorated after its route was made: the route calls it without."""
    endpoints = list(endpoints_of(gateway))
    views = [endpoint.view for endpoint in endpoints]
    for endpoint in endpoints:
        if gateway.decorated.is_passed_over(endpoint.view, views):
            yield Finding(
                "decorator-above-route",
                endpoint.method,
                "its function was decorated after the route was made, so the route has neither the limit nor the cache "
                "of that decorator; put the decorator below the one of the route, next to the function",
            )


def two_windows(gateway: "Gateway") -> Iterator[Finding]:
    """An endpoint whose decorator has a window, and whose path matches a method that has one."""
    for policy, where in _throttles(gateway):
        windows = [limit for limit in policy.limits if limit.window]
        if len(windows) > 1:
            yield Finding(
                "two-windows",
                where,
                f"its decorator has a {windows[1].rate} and its method a {windows[0].rate}; each request asks one "
                f"after the other, so give one of the two a Rate",
            )


def unreadable_refusals(gateway: "Gateway") -> Iterator[Finding]:
    """Pages of other origins cannot read a refusal: no CORS layer that the gate can ask, and no `cors` of its own."""
    if gateway.cors is UNSET and _refuses(gateway):
        for app, routing in gateway.bound:
            if routing is None or not routing.has_cors:
                yield Finding(
                    "unreadable-refusals",
                    "cors",
                    f"around {app} no CORS layer was found, so pages of other origins see a network error instead of "
                    f"the refusal; if browsers call from other origins, give Gateway(cors=CORS(allow_origins=[...])) "
                    f"or put the framework's CORS layer into the app, else say cors=None",
                )


def _refuses(gateway: "Gateway") -> bool:
    """Tell whether any policy or stage may refuse a client; a cache does not, unless it is told to."""
    if gateway.throttles or gateway.stage_by is not None:
        return True
    never = (ExemptPolicy, InvalidatingPolicy, RateLimitFieldsPolicy, SettlementPolicy)
    return any(
        policy.lookup.policy.unauthorized == "FAIL_WITH_403"
        if isinstance(policy, CachingPolicy)
        else not isinstance(policy, never)
        for stage, name, _ in methods_of(gateway)
        for policy in stage.compiled(name).policies
    )


def multiplied_limits(gateway: "Gateway") -> Iterator[Finding]:
    """Limits that each of several workers holds by itself, as their store is not shared.

    In-flight limits count one process by design.
    """
    shown = (gateway.workers_seen, workers_asked_for())
    workers = next((each for each in shown if each is not None and each.several), None)
    if workers is None or is_shared(gateway.store) or not _enforced(gateway):
        return
    each = "Each worker" if workers.number is None else f"Each of the {workers.number} workers"
    times = (
        "as many times as much as there are workers" if workers.number is None else f"{workers.number} times as much"
    )
    yield Finding(
        "multiplied-limits",
        "store",
        f"{workers.sign}, and every limit of the gateway {gateway.name!r} is kept by each process alone. {each} admits "
        f"the whole of it, and all together {times}. Share one store: store='file:///run/app/apigate.state' among the "
        f"workers of one host, store='redis://host:6379/0' among hosts; and give the gateway a name=",
    )


def _enforced(gateway: "Gateway") -> list[str]:
    """The levels at which anything is refused; a throttled function has limits of its own."""
    found = {
        limit.level
        for stage, name, _ in methods_of(gateway)
        for policy in stage.compiled(name).policies
        if isinstance(policy, ThrottlePolicy)
        for limit in policy.limits
        if limit.enforced
    }
    if gateway.throttles:  # no routes are asked for them: this runs before an app has all of its own
        found |= {level for level in ("method", "client-method") if gateway.mode(level) == "enforce"}
    return [level for level in LEVELS if level in found]


def multiplied_in_outage(gateway: "Gateway") -> Iterator[Finding]:
    """Limits that are one for all processes, until their store cannot be reached: nobody said what a share is."""
    store = _guarded(gateway)
    if store is None or not store.shared or store.workers is not None or workers_asked_for() is not None:
        return
    local = [level for level in _enforced(gateway) if outage_at(store.outage, level) == "local"]
    if local:
        yield Finding(
            "multiplied-in-outage",
            "workers",
            f"while the store cannot be reached, each process admits the whole limit at the levels {', '.join(local)}, "
            f"as nobody says how many processes share it; set workers= to their number over all hosts, 1 if there is "
            f"one, or another outage= for these levels",
        )


def without_outages(gateway: "Gateway") -> Iterator[Finding]:
    """What is set for the outages of a store that has none."""
    if _guarded(gateway) is None:
        for setting, is_set in (("outage", gateway.outage != "local"), ("workers", gateway.workers is not None)):
            if is_set:
                yield Finding(
                    "without-effect",
                    setting,
                    "it has no effect, as memory has no outages; remove it, or give a store that processes share",
                )


def store_unreachable(gateway: "Gateway") -> Iterator[Finding]:
    """A store that does not do what it is asked: a wrong address or password is an outage to requests, and no error."""
    from apigate.stores.breaker import ask_once
    from apigate.stores.cache_guarded import GuardedResponses
    from apigate.stores.guarded import GuardedStore

    if running_loop() is not None:
        raise ProtocolError(
            "lint(connect=True) waits for stores, which would hold up the running event loop; await "
            "asyncio.to_thread(gateway.lint, connect=True)"
        )
    caches = [(f"stages.{name}.cache.shared", stage.cache) for name, stage in gateway.stages.items() if stage.has_cache]
    stores: list[tuple[str, object]] = [("store", gateway.store)]
    stores += [(at, cache.news.store) for at, cache in caches if cache.news and cache.sharing not in (None, True)]
    for setting, store in stores:
        if isinstance(store, GuardedResponses | GuardedStore):
            try:
                ask_once(store)
            except StoreError as error:
                told = str(error).removeprefix(f"{error.operation}: ")
                yield Finding(
                    "store-unreachable",
                    setting,
                    f"{store.store!r} does not do what it is asked ({told}); every request would be served as in an "
                    f"outage, so see to its address, password and server",
                )


def _guarded(gateway: "Gateway") -> "GuardedStore | None":
    """The gateway's store, if it can be out of reach."""
    from apigate.stores.guarded import GuardedStore

    return gateway.store if isinstance(gateway.store, GuardedStore) else None


CHECKS: Sequence[Callable[["Gateway"], Iterator[Finding]]] = (
    never_binds,
    in_flight_never_binds,
    rate_above_wider,
    cost_above_burst,
    unreachable,
    unknown_verb,
    exempt_with_limits,
    stage_by_missing,
    untrusted_proxy,
    client_chosen_stage,
    unserved_method,
    decorator_above_route,
    two_windows,
    unreadable_refusals,
    multiplied_limits,
    *CACHE_CHECKS,
    multiplied_in_outage,
    without_outages,
)
"""Every check, in the order their findings are listed."""
