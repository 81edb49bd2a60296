"""A stage of a running gateway: the compiled methods as they stand, and which of them a request is for.

Rule: what is looked up at a request is replaced as a whole when a setting changes, so that a request sees the settings
of before or of after, and never some of each.
"""

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any, final

from apigate.caching.cache import ResponseCache
from apigate.caching.settings import CachePolicy
from apigate.config import Stage
from apigate.core.endpoints import Endpoint
from apigate.core.errors import ConfigurationError
from apigate.core.message import Request
from apigate.core.policy import CompiledMethod
from apigate.core.routes import (
    ANY,
    MethodTable,
    has_control_character,
    has_dot_segment,
    is_no_path,
    method_key,
    shape_of,
)
from apigate.pipeline import ClockPolicy, Compiler
from apigate.throttling.in_flight import InFlightPolicy
from apigate.throttling.policy import ThrottlePolicy

__all__ = ["RunningStage"]

_SEVERAL = 4_096  # pipelines made at a request and kept, of several methods at one path or of an endpoint

_LONGEST = 200  # no client may make us remember long verbs and paths


@final
class _Routes:
    """The compiled methods of a stage as they stand; replaced as a whole when a setting changes."""

    __slots__ = (
        "bad_path",
        "bound",
        "bound_direct",
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
        self.bound_direct: dict[tuple[Endpoint, str, str], CompiledMethod] = {}
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
        """The compiled method of a request; quick ways for static paths are `routes.direct` and `routes.bound_direct`.

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
            compiled = routes.bound.get((endpoint, found)) or self.compiled_for(endpoint, found)
            if _is_static(request, endpoint):
                if len(routes.bound_direct) >= _SEVERAL:
                    routes.bound_direct.clear()
                routes.bound_direct[endpoint, request.method, path] = compiled
            return compiled
        if not found:
            return routes.unmatched
        return found[0] if len(found) == 1 else self._stricter(request, routes, found)

    def names(self, endpoints: Iterable[str]) -> set[str]:
        """What its methods are called; an endpoint that a setting names is called as the setting does.

        Args:
            endpoints: The methods of the apps' endpoints.
        """
        routes = self.routes
        names = {name for name in routes.settings.methods if name != ANY}
        for method in endpoints:
            named = routes.named_by(method)
            names.add(method if named is None or named.method is None else named.method)
        return names

    @property
    def settings(self) -> Stage:
        """The settings as they stand."""
        return self.routes.settings

    @property
    def cache_policies(self) -> set[CachePolicy]:
        """The policies of its methods as they stand."""
        from apigate.caching.policy import CachingPolicy

        found = [policy for compiled in self.routes.compiled.values() for policy in compiled.policies]
        return {policy.lookup.policy for policy in found if isinstance(policy, CachingPolicy)}

    @property
    def has_cache(self) -> bool:
        """Whether any method of it is cached."""
        return self._compiler.caches.has(self.name)

    @property
    def cache(self) -> ResponseCache:
        """The stage's cache, to invalidate what is in it.

        Raises:
            ConfigurationError: It has none.
        """
        cache = self._compiler.caches.of(self.settings)
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
        if isinstance(policy, ClockPolicy):
            continue
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


def _is_static(request: Request, endpoint: Endpoint) -> bool:
    """Tell whether endpoint, verb and path decide alone, and no client can think of many paths."""
    verb, path = request.method, request.path
    return not (request.alias or verb == "OPTIONS" or "{" in endpoint.method or len(verb) + len(path) > _LONGEST)


def _is_preflight(request: Request) -> bool:
    """Tell whether this is a CORS preflight (Fetch standard, CORS-preflight fetch)."""
    return "origin" in request.headers and "access-control-request-method" in request.headers
