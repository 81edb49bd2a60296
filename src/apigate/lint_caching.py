"""What is allowed of a cache and yet hardly meant: checks of `Gateway.lint`, each from a gateway to its findings."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from apigate.caching.cache import ITEM_BYTES, ResponseCache
from apigate.caching.mark import CacheMark
from apigate.caching.policy import CachingPolicy
from apigate.caching.settings import CachePolicy
from apigate.config import UNSET
from apigate.core.endpoints import Endpoint
from apigate.core.policy import Phase
from apigate.core.routes import ANY, method_key
from apigate.core.workers import workers_asked_for
from apigate.findings import Finding, compiled_of, endpoints_of, methods_of
from apigate.running_stage import RunningStage

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["CACHE_CHECKS"]

_CACHEABLE = ("GET", "HEAD", "QUERY", "POST")


class _Policed(NamedTuple):
    """A policy, the stage and the verb that it is asked for, and what to call the place."""

    stage: RunningStage
    verb: str
    policy: CachePolicy
    where: str


def cache_of_one_worker(gateway: "Gateway") -> Iterator[Finding]:
    """Caches of which each of several workers has its own, where what one of them invalidates others still serve."""
    shown = (gateway.workers_seen, workers_asked_for())
    workers = next((each for each in shown if each is not None and each.several), None)
    if workers is None:
        return
    sign = workers.sign
    for stage in gateway.stages.values():
        if stage.has_cache and stage.cache.news is None and stage.cache.sharing is None:
            yield Finding(
                "cache-of-one-worker",
                f"stages.{stage.name}.cache",
                f"{sign}, and each has a cache of its own: what one of them invalidates, the others serve until it is "
                f"stale. Share invalidations: store='file:///run/app/apigate.state' among the workers of one host, "
                f"store='redis://host:6379/0' among hosts; or say shared=False where that is meant",
            )


def uncached_verb(gateway: "Gateway") -> Iterator[Finding]:
    """A lifetime for responses that are never stored, as the policy's `methods` lack the method's verb."""
    for _, verb, policy, where in (*_methods(gateway), *_marks(gateway)):
        if policy.ttl and verb not in (ANY, *policy.methods):
            named = f"name it, methods=[{verb!r}], or " if verb in _CACHEABLE else ""
            yield Finding(
                "uncached-verb",
                where,
                f"its cache has a ttl of {policy.ttl:g} s, and {verb} is not among the policy's methods, so nothing is "
                f"stored; {named}leave the ttl out",
            )


def policy_without_cache(gateway: "Gateway") -> Iterator[Finding]:
    """A method's cache policy in a stage that has no cache; a decorator's, where no stage has one."""
    uncached = [stage for stage in gateway.stages.values() if stage.settings.cache is None]
    marks = _marks(gateway) if len(uncached) == len(gateway.stages) else ()
    for stage, _, _, where in (*_methods(gateway), *marks):
        if stage in uncached:
            yield Finding(
                "without-effect",
                where,
                f"its cache policy has no effect, as stages.{stage.name}.cache is off; remove one of the two",
            )


def unreachable_sizes(gateway: "Gateway") -> Iterator[Finding]:
    """A longest response that has no room in the cache."""
    for cache, where in _caches(gateway):
        if cache.max_item_bytes > cache.max_bytes and cache.max_item_bytes != ITEM_BYTES:  # else it was not set
            yield Finding(
                "without-effect",
                f"{where}.max_item_bytes",
                f"{cache.max_item_bytes} bytes are more than the max_bytes of the whole cache, {cache.max_bytes}, so "
                f"this bounds nothing; raise that, or lower this",
            )


def encryption_of_nothing(gateway: "Gateway") -> Iterator[Finding]:
    """Keys for what is shared, where no response is."""
    for cache, where in _caches(gateway):
        if cache.encryption is not None and cache.shared is None:
            yield Finding(
                "without-effect",
                f"{where}.encryption",
                "it has no effect, as responses are kept in memory alone; share them, shared=True or an address, or "
                "remove it",
            )


def nobody_verified(gateway: "Gateway") -> Iterator[Finding]:
    """Responses that are kept for whoever was verified, where nothing verifies anybody."""
    for compiled, where in compiled_of(gateway):
        for policy in compiled.policies:
            if isinstance(policy, CachingPolicy) and _is_verified(policy.lookup.policy):
                if any(other.phase is Phase.AUTHORIZE for other in compiled.policies):
                    continue
                yield Finding(
                    "nobody-verified",
                    where,
                    f"its cache is per {policy.lookup.policy.per}, and no policy of phase AUTHORIZE says who asks, so "
                    f"nothing is stored; give the gateway one, policies=[...], or say otherwise whose a response is",
                )


def _is_verified(policy: CachePolicy) -> bool:
    """Tell whether responses are kept for whoever was verified."""
    per = policy.per
    return policy.stores and isinstance(per, str) and per.partition(":")[0] in ("principal", "claim")


def _methods(gateway: "Gateway") -> Iterator[_Policed]:
    """What the methods ask for themselves."""
    for stage, name, where in methods_of(gateway):
        own = stage.settings.methods.get(name or ANY)
        if own is not None and isinstance(own.cache, CachePolicy):
            yield _Policed(stage, ANY if name is None else method_key(name)[0], own.cache, where)


def _marks(gateway: "Gateway") -> Iterator[_Policed]:
    """What decorators ask for their views, where no method says otherwise; of several verbs, one that is cached."""
    views: dict[tuple[int, str, CacheMark], list[Endpoint]] = {}
    for endpoint in endpoints_of(gateway):
        for mark in endpoint.marks:
            if isinstance(mark, CacheMark) and mark.owner is gateway.identity:
                views.setdefault((id(endpoint.view), _parts(endpoint)[1], mark), []).append(endpoint)
                break  # the outermost holds
    for stage in gateway.stages.values():
        for (_, _, mark), endpoints in views.items():
            endpoint = next((each for each in endpoints if _parts(each)[0] in mark.policy.methods), endpoints[0])
            name = stage.compiled_for(endpoint).method
            own = stage.settings.methods.get(name or ANY)
            if own is None or own.cache is UNSET:
                yield _Policed(stage, _parts(endpoint)[0], mark.policy, f'stages.{stage.name}.methods."{name}"')


def _parts(endpoint: Endpoint) -> tuple[str, str]:
    """Verb and template."""
    verb, _, template = endpoint.method.partition(" ")
    return verb, template


def _caches(gateway: "Gateway") -> Iterator[tuple[ResponseCache, str]]:
    """The cache of every stage that has one, and what to call it."""
    for stage in gateway.stages.values():
        if stage.has_cache:
            yield stage.cache, f"stages.{stage.name}.cache"


CACHE_CHECKS: Sequence[Callable[["Gateway"], Iterator[Finding]]] = (
    cache_of_one_worker,
    uncached_verb,
    policy_without_cache,
    unreachable_sizes,
    encryption_of_nothing,
    nobody_verified,
)
"""Every check of a cache, in the order their findings are listed."""
