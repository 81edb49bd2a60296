"""The caches of a gateway's stages, and what each method has to do with its stage's.

Rule: a cache is made, bound to its stage and connected to what workers share at its first use; a stage in which nothing
is cached has none.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import cast, final

from apigate.caching.cache import ResponseCache
from apigate.caching.mark import CacheMark
from apigate.caching.settings import CachePolicy
from apigate.config import UNSET, Method, Stage, Unset
from apigate.core.clock import Clock
from apigate.core.context import RequestContext
from apigate.core.counters import Counters
from apigate.core.endpoints import Mark
from apigate.core.errors import ConfigurationError
from apigate.core.events import StoreOutage, StoreRecovered
from apigate.core.policy import Policy
from apigate.core.responses import GatewayResponses
from apigate.throttling.store import ThrottleStore

__all__ = ["StageCaches"]


@final
class StageCaches:
    """The caches of one gateway's stages.

    Args:
        name: The gateway's name.
        clock: The clock that requests go by.
        responses: Makes gateway responses.
        is_named: Whether that is a name of its own, and not the default one.
        methods: Gives the names of the methods of the stage of a name; None while nobody knows them all.
        shared_store: The gateway's store, where other processes use it too; else None.
        on_store_change: Told of each outage of what is shared, and of each recovery; must not raise.
        on_look: Told of each request that is looked up, what became of it and why, if anybody is.

    Attributes:
        decorated: Every policy that a decorator has.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        responses: GatewayResponses,
        *,
        is_named: bool,
        methods: Callable[[str], Collection[str] | None],
        shared_store: ThrottleStore | None,
        on_store_change: Callable[[StoreOutage | StoreRecovered], None] | None,
        on_look: Callable[[RequestContext, str, str | None], None] | None,
    ) -> None:
        """There is none yet."""
        self._name = name
        self._clock = clock
        self._responses = responses
        self._is_named = is_named
        self._methods = methods
        self._shared_store = shared_store
        self._on_store_change = on_store_change
        self._on_look = on_look
        self._caches: dict[str, ResponseCache] = {}
        self.decorated: set[CachePolicy] = set()

    def of(self, stage: Stage) -> ResponseCache | None:
        """The cache of a stage, made at first use where its settings leave that open; None where they say none."""
        if isinstance(stage.cache, ResponseCache) or stage.cache is None:
            cache = stage.cache
        else:
            cache = self._caches.get(stage.name) or ResponseCache()
        if cache is not None and self._caches.get(stage.name) is not cache:
            named = f"stage {stage.name!r} of gateway {self._name!r}"
            cache.bind(named, self._clock, partial(self._methods, stage.name))
            if cache.sharing is not None or self._shared_store is not None:
                self._share(cache, stage.name)
            self._caches[stage.name] = cache
        return cache

    def has(self, stage: str) -> bool:
        """Whether any method of a stage is cached."""
        return stage in self._caches

    def _share(self, cache: ResponseCache, stage: str) -> None:
        """Have a cache share with other workers what it is to share, through the gateway's store or one of its own."""
        from apigate.stores.cache_address import keeps_responses, open_response_store
        from apigate.stores.shown import shown

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
        if isinstance(store, str) and not self._is_named:
            raise ConfigurationError(
                f"Gateway name: the cache of stage {stage!r} is shared by {shown(store)!r} with other processes, so a "
                f"name is needed that keeps the responses of different apps apart, such as name='shop'"
            )
        opened = open_response_store(
            store,
            name=self._name,
            stage=stage,
            clock=self._clock,
            on_event=self._on_store_change,
            bodies=own is not None,
            max_lag=cache.max_lag,
        )
        cache.share(opened, bodies=own is not None)

    def policies(
        self,
        stage: Stage,
        names: Sequence[str | None],
        settings: Sequence[Method],
        marks: Sequence[Mark],
        counters: Counters,
    ) -> list[Policy]:
        """The gate of phase CACHE, if there is any. Of several methods at one path all have to be cached alike.

        Args:
            stage: The stage.
            names: The methods; None is a request that matches none.
            settings: The settings of each.
            marks: What decorators of the endpoint ask.
            counters: Counts what becomes of their requests.
        """
        marked = next((mark.policy for mark in marks if isinstance(mark, CacheMark)), None)
        wanted = {self._cache_policy(stage, name, own, marked) for name, own in zip(names, settings, strict=True)}
        policy = wanted.pop()
        cache = None if policy is None or wanted else self.of(stage)
        if cache is None or policy is None:
            return self._invalidating(stage, names)
        from apigate.caching.lookup import Lookup
        from apigate.caching.policy import CachingPolicy

        lookup = Lookup(cache, policy, self._clock, names[0])
        return [CachingPolicy(lookup, self._responses, counters, self._on_look)]

    def _invalidating(self, stage: Stage, names: Sequence[str | None]) -> list[Policy]:
        """What is left to do where nothing is cached: unsafe methods change what others are cached of."""
        own = stage.cache.policy if isinstance(stage.cache, ResponseCache) else None
        policies = [own, *[settings.cache for settings in stage.methods.values()]]
        is_cached = bool(self.decorated) or any(isinstance(policy, CachePolicy) for policy in policies)
        if stage.cache is None or not is_cached:
            return []
        from apigate.caching.invalidation import SAFE_METHODS
        from apigate.caching.lookup import Lookup
        from apigate.caching.policy import InvalidatingPolicy

        cache = self.of(stage)
        if cache is None or all(name and name.partition(" ")[0] in SAFE_METHODS for name in names):
            return []
        return [InvalidatingPolicy(Lookup(cache, CachePolicy(ttl=0), self._clock))]

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
