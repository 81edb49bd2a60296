"""What a user writes down: settings of methods and stages, in code or in TOML. Frozen values, checked when made.

An unset setting of a method inherits from the method `*`, then from the stage. `None`, in TOML `"off"`, removes a
level that would be inherited.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from os import PathLike
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast, final

from apigate.caching.cache import CACHE_SETTINGS, ResponseCache
from apigate.caching.settings import TABLE_HINTS, CachePolicy, cache_policy
from apigate.core.context import RequestContext
from apigate.core.cors import CORS
from apigate.core.errors import ConfigurationError
from apigate.core.functions import is_function
from apigate.core.message import Request
from apigate.core.names import check_settings, checked_name, errors_of, known_keywords
from apigate.core.responses import GatewayResponse
from apigate.core.routes import ANY, method_key
from apigate.core.workers import workers_told
from apigate.throttling.limit import LEVELS, Mode, checked_mode
from apigate.throttling.outage import OUTAGES, Outage, OutagePolicy
from apigate.throttling.rate import Rate, RateLike, parse_rates
from apigate.throttling.settlement import parse_statuses
from apigate.throttling.window import Window

__all__ = [
    "DEFAULT_STAGE",
    "OBJECTS",
    "RATE_HINTS",
    "UNSET",
    "Method",
    "Stage",
    "Unset",
    "gateway_settings",
    "joined",
    "read_toml",
]

DEFAULT_STAGE = "default"
"""The one stage of a gateway whose settings name none, and so do not speak of it."""

OBJECTS = frozenset({"client", "clock", "on_event", "policies"})
"""Settings of a gateway that cannot stand in a file."""


_LIMITS = ("limit", "limits", "quota", "rate", "rates", "rate_limits")
RATE_HINTS: Mapping[str, str] = {
    **dict.fromkeys(_LIMITS, "'throttle' or 'client_throttle'"),
    **dict.fromkeys(map(str.upper, _LIMITS), "'THROTTLE' or 'CLIENT_THROTTLE'"),
}
"""What is meant by the names that others have for limits; in capitals, as the settings of frameworks are."""


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        """Short in signatures."""
        return "UNSET"


UNSET: Final = Unset.UNSET
"""A setting that was not given, and so is inherited."""

Cost: TypeAlias = int | Callable[[Request], int]
Exempt: TypeAlias = bool | Callable[[Request], bool]
FinalCost: TypeAlias = Callable[[RequestContext, int], int]
CachePolicyLike: TypeAlias = CachePolicy | Mapping[str, Any] | str | float  # Any: a table, values of several types
ResponseCacheLike: TypeAlias = ResponseCache | Mapping[str, Any] | str


@final
@known_keywords(RATE_HINTS)
@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Settings of one method, or of `*`: every method that does not say otherwise.

    Args:
        throttle: Rate of the method's own bucket, level `method`; a `Window` may stand for it, as for each rate here.
        client_throttle: Rate of each client's bucket at this method, level `client-method`.
        in_flight: How many requests of the method this process serves at once.
        client_in_flight: How many of them one client may have at once.
        cost: Tokens that a request takes at every level: a number of at least 0, or a function of the request. More
            than a burst is never admitted.
        exempt: True, or a function of the request: it takes from no level.
        refund: Statuses after which what the request took at the levels method, client and client-method is given
            back, such as `"2xx, 404"`; so that only failed logins count.
        final_cost: A function of context and status that says what the request costs in the end, at these three
            levels. More than `cost` may leave a debt of at most one burst.
        modes: `"enforce"`, `"shadow"` or `"off"` for the levels `method` and `client-method`.
        cache: How its responses are cached: a `CachePolicy`, a table of its settings, or a number of seconds, which is
            its `ttl`; None for not at all. Unset, the stage's cache says.

    Raises:
        ConfigurationError: A setting cannot be used.

    >>> Method(throttle="50/second; burst=100", client_throttle=Rate(1, burst=2)).throttle
    (Rate('50/second; burst=100'),)
    """

    throttle: RateLike | None | Unset = UNSET
    client_throttle: RateLike | None | Unset = UNSET
    in_flight: int | None | Unset = UNSET
    client_in_flight: int | None | Unset = UNSET
    cost: Cost | Unset = UNSET
    exempt: Exempt | Unset = UNSET
    refund: str | None | Unset = UNSET
    final_cost: FinalCost | None | Unset = UNSET
    modes: Mapping[str, Mode] | Unset = UNSET
    cache: CachePolicyLike | None | Unset = UNSET

    def __post_init__(self) -> None:
        """Check every setting, and parse the rates."""
        _check(self, "Method ")
        if self.cache is not UNSET:
            object.__setattr__(self, "cache", _checked_policy(self.cache, "Method cache"))
        _check_modes(self.modes, ("method", "client-method"), "Method modes", "the stage or the gateway")

    @property
    def is_settled(self) -> bool:
        """Whether the outcome of a request may give tokens back."""
        return isinstance(self.refund, str) or callable(self.final_cost)

    def over(self, other: "Method") -> "Method":
        """These settings, and those of `other` where they are unset; modes are joined level by level."""
        given = {name: value for name, value in _items(self) if value is not UNSET}
        if self.modes is not UNSET and other.modes is not UNSET:
            given["modes"] = {**other.modes, **self.modes}
        return replace(other, **given)


@final
@known_keywords(RATE_HINTS)
@dataclass(frozen=True, slots=True)
class Stage:
    """Settings of one stage.

    Args:
        name: Its name, such as `prod`.
        throttle: Rate of the stage's one bucket, level `stage`; a `Window` may stand for it, as for each rate here.
        client_throttle: Rate of each client's bucket, level `client`.
        in_flight: How many requests of the stage this process serves at once.
        client_in_flight: How many of them one client may have at once.
        cost: Default of the methods' `cost`: 1.
        exempt: Default of the methods' `exempt`: False.
        refund: Default of the methods' `refund`: none.
        final_cost: Default of the methods' `final_cost`: none.
        modes: Of every level but `global`; for `method` and `client-method` the methods' default.
        variables: Texts by name, handed to the app in the request context.
        methods: Settings by method, `GET /pets/{id}`; `*` is the default of them all.
        cache: The stage's own cache, or a table of its settings; None for none, whatever methods and decorators say.
            Unset, there is one of 64 MB where a method or a decorator asks for it, and for nothing else.

    Raises:
        ConfigurationError: A setting cannot be used.

    >>> Stage("prod", throttle=Rate(1_000), methods={"GET /pets": Method(throttle=Rate(10))}).name
    'prod'
    """

    name: str
    throttle: RateLike | None = None
    client_throttle: RateLike | None = None
    in_flight: int | None = None
    client_in_flight: int | None = None
    cost: Cost | Unset = UNSET
    exempt: Exempt | Unset = UNSET
    refund: str | None | Unset = UNSET
    final_cost: FinalCost | None | Unset = UNSET
    modes: Mapping[str, Mode] | Unset = UNSET
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    methods: Mapping[str, Method] = field(default_factory=dict[str, Method])
    cache: ResponseCacheLike | None | Unset = UNSET

    def __post_init__(self) -> None:
        """Check every setting, and parse the rates."""
        where = "" if self.name == DEFAULT_STAGE else f"Stage {self.name!r} "
        if not isinstance(self.cache, Unset):
            object.__setattr__(self, "cache", response_cache(self.cache, f"{where}cache"))
        checked_name(self.name, "Stage name")
        _check(self, where)
        _check_modes(self.modes, LEVELS[1:], f"{where}modes", "the gateway")
        for name, method in _table(self.methods, f"{where}methods").items():
            if name != ANY:
                method_key(name)
            if not isinstance(method, Method):
                raise ConfigurationError(
                    f"{where}methods[{name!r}]: {method!r} is not a Method, such as Method(throttle='10/second')"
                )
        for name, value in _table(self.variables, f"{where}variables").items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigurationError(f"{where}variables: {name!r}: {value!r} is not a text")
        object.__setattr__(self, "methods", MappingProxyType(dict(self.methods)))  # the caller may change theirs
        object.__setattr__(self, "variables", MappingProxyType(dict(self.variables)))

    def settings(self, method: str | None) -> Method:
        """What holds for a method of this stage, inheritance carried out.

        Args:
            method: Its name. What is not named in `methods`, such as a route of the app's framework, has the default;
                None is a request that matches none.
        """
        default = self.methods.get(ANY, Method()).over(
            Method(cost=self.cost, exempt=self.exempt, refund=self.refund, final_cost=self.final_cost)
        )
        own = None if method is None else self.methods.get(method)
        return default if own is None else own.over(default)

    def changed(self, method: str | None, settings: Mapping[str, Any]) -> "Stage":
        """This stage with some settings of a method, or of its own, replaced.

        Raises:
            ConfigurationError: A setting is unknown or cannot be used.
        """
        if method is None:
            _named(settings, _parameters(Stage) - {"name", "methods"}, f"stage {self.name!r}")
            return replace(self, **settings)
        _named(settings, _parameters(Method), f"method {method!r}")
        with errors_of(f"method {method!r}"):
            method_settings = replace(self.methods.get(method, Method()), **settings)
        return replace(self, methods={**self.methods, method: method_settings})


def _items(settings: Method | Stage) -> list[tuple[str, Any]]:  # Any: values of every setting's type
    return [(item.name, getattr(settings, item.name)) for item in fields(settings)]


def _check(settings: "Method | Stage", where: str) -> None:
    """Check the settings that methods and stages share, and keep them as the pipeline reads them."""
    for name, value in _items(settings):
        check = _CHECKS.get(name)
        if check is not None and value is not UNSET:
            object.__setattr__(settings, name, check(None if _is_off(value) else value, f"{where}{name}"))


# Any: whatever a user wrote, here and below
def checked_rates(value: Any, setting: str) -> tuple[Rate | Window, ...] | None:
    """Rates and windows, None for none.

    Raises:
        ConfigurationError: They cannot be used.
    """
    return None if value is None or _is_off(value) else parse_rates(value, setting)


def checked_in_flight(value: Any, setting: str) -> int | None:
    """A number of slots, None for no limit.

    Raises:
        ConfigurationError: It is not one.
    """
    if value is None or _is_off(value):
        return None
    if value is not None and not _is_whole(value, 1):
        raise ConfigurationError(f"{setting}: {value!r} is not a whole number of at least 1, nor None")
    return value  # type: ignore[no-any-return]  # a whole number, as checked


def _checked_cost(value: Any, setting: str) -> Cost:
    if not is_function(value, setting) and not _is_whole(value, 0):
        raise ConfigurationError(f"{setting}: {value!r} is not a whole number of at least 0, nor a function")
    return value  # type: ignore[no-any-return]  # one of the two


def _checked_exempt(value: Any, setting: str) -> Exempt:
    if not is_function(value, setting) and not isinstance(value, bool):
        raise ConfigurationError(f"{setting}: {value!r} is not True, False or a function of the request")
    return value


def _checked_refund(value: Any, setting: str) -> str | None:
    if value is not None:
        parse_statuses(value, setting)
    return value  # type: ignore[no-any-return]  # a text, as parsed


def _checked_final_cost(value: Any, setting: str) -> FinalCost | None:
    if value is not None and not is_function(value, setting):
        raise ConfigurationError(f"{setting}: {value!r} is not a function of context and status")
    return value


def checked_modes(modes: Any, setting: str) -> Mapping[str, Mode]:
    """Modes by level, if they are.

    Raises:
        ConfigurationError: A level or a mode is unknown.
    """
    if not isinstance(modes, Mapping):
        raise ConfigurationError(f"{setting}: {modes!r} is not a mapping from level to mode")
    named = cast("Mapping[str, object]", modes)
    for level in named:
        if level not in LEVELS:
            raise ConfigurationError(f"{setting}: {level!r} is no level; levels are {', '.join(LEVELS)}")
    return {level: checked_mode(f"{setting}[{level!r}]", mode) for level, mode in named.items()}


def checked_outage(outage: Any, setting: str) -> OutagePolicy:
    """What levels do in an outage, if it is that.

    Raises:
        ConfigurationError: A level or a policy is unknown.
    """
    if not isinstance(outage, Mapping):
        return _checked_outage(outage, setting)
    named = cast("Mapping[str, object]", outage)
    for level in named:
        if level not in LEVELS:
            raise ConfigurationError(f"{setting}: {level!r} is no level; levels are {', '.join(LEVELS)}")
    return {level: _checked_outage(each, f"{setting}[{level!r}]") for level, each in named.items()}


def _checked_outage(outage: object, setting: str) -> Outage:
    known: Outage
    for known in OUTAGES:
        if known == outage:
            return known
    raise ConfigurationError(f"{setting}: {outage!r} is no policy for an outage; allowed are {', '.join(OUTAGES)}")


def checked_workers(workers: Any, setting: str) -> int | None:
    """How many processes share the limits: as it is set, else as the server or the environment tells.

    Returns:
        The number, None if nobody says.

    Raises:
        ConfigurationError: It is not a whole number of at least 1.
    """
    if workers is None:
        return workers_told()
    if not _is_whole(workers, 1):
        raise ConfigurationError(f"{setting}: {workers!r} is not a whole number of at least 1, nor None")
    return workers  # type: ignore[no-any-return]  # a whole number, as checked


def _checked_policy(value: object, setting: str) -> CachePolicy | None:
    if isinstance(value, ResponseCache):
        raise ConfigurationError(
            f"{setting}: {value!r} belongs to a gateway or stage; give the method a policy: "
            f"Method(cache=CachePolicy(ttl=60))"
        )
    return cache_policy(value, setting)


_CHECKS: Mapping[str, Callable[[Any, str], object]] = MappingProxyType(
    {
        "throttle": checked_rates,
        "client_throttle": checked_rates,
        "in_flight": checked_in_flight,
        "client_in_flight": checked_in_flight,
        "cost": _checked_cost,
        "exempt": _checked_exempt,
        "refund": _checked_refund,
        "final_cost": _checked_final_cost,
        "modes": checked_modes,
    }
)
"""How each setting is checked: from what was written and where, to what is kept."""


def _check_modes(modes: Mapping[str, Mode] | Unset, own: Collection[str], setting: str, instead: str) -> None:
    """See that only levels are named whose buckets are no wider than what the settings are for."""
    for level in () if modes is UNSET else modes:
        if level not in own:
            raise ConfigurationError(f"{setting}: the level {level!r} is shared with others; set its mode at {instead}")


def _is_off(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() == "off"


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def read_toml(path: str | PathLike[str]) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        ConfigurationError: The file cannot be read, or is not TOML; the message says where.
    """
    import tomllib
    from pathlib import Path

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number too long, brackets too deep
        raise ConfigurationError(f"{path}: {error}") from error


def response_cache(value: object, setting: str) -> ResponseCache | None:
    """A stage's cache as it was written: the object, or a table of its settings; None for none.

    Raises:
        ConfigurationError: It is neither, or a setting cannot be used.
    """
    if value is None or isinstance(value, ResponseCache):
        return value
    if _is_off(value):
        return None
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        check_settings(table, _CACHE_SETTINGS, setting, TABLE_HINTS)
        with errors_of(setting):
            return ResponseCache(**table)
    given = "a CachePolicy" if isinstance(value, CachePolicy) else repr(value)  # which may be a very long text
    raise ConfigurationError(
        f"{setting}: {given} is not a ResponseCache, a table of its settings, 'off' or None; how all methods are "
        f"cached is its policy: ResponseCache(policy=CachePolicy(ttl=60)), in a file cache = {{policy = {{ttl = 60}}}}"
    )


_CACHE_SETTINGS = CACHE_SETTINGS - {"clock"}


def joined(written: Mapping[str, Any], beside: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Two tables as one, and so the tables in them.

    Raises:
        ConfigurationError: Both have a setting.

    >>> joined({"cache": {"shared": True}}, {"cache": {"max_lag": 0.2}})
    {'cache': {'shared': True, 'max_lag': 0.2}}
    """
    both = {**written, **beside}
    for name in written.keys() & beside.keys():
        if not (isinstance(written[name], Mapping) and isinstance(beside[name], Mapping)):
            raise ConfigurationError(f"{where}{name}: given in the configuration and beside it; keep one of them")
        both[name] = joined(written[name], beside[name], f"{where}{name}.")
    return both


def gateway_settings(table: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """A table as it stands in a file, as arguments of `Gateway`; `known` are the names it takes.

    Raises:
        ConfigurationError: A name is unknown, or a value has the wrong shape.
    """
    settings = dict(_named(table, known, "the configuration"))
    if "stages" in settings:
        stages = _table(settings["stages"], "stages")
        settings["stages"] = [_stage(name, _table(value, f"stages.{name}")) for name, value in stages.items()]
    if "methods" in settings:
        settings["methods"] = _methods(settings["methods"], "methods")
    if "responses" in settings:
        responses = _table(settings["responses"], "responses")
        settings["responses"] = {
            kind: GatewayResponse(
                **_named(_table(value, f"responses.{kind}"), _parameters(GatewayResponse), f"responses.{kind}")
            )
            for kind, value in responses.items()
        }
    if "cors" in settings and not _is_off(settings["cors"]):
        settings["cors"] = CORS(**_named(_table(settings["cors"], "cors"), _parameters(CORS), "cors"))
    return settings


def _stage(name: str, table: Mapping[str, Any]) -> Stage:
    settings = dict(_named(table, _parameters(Stage) - {"name"}, f"stages.{name}"))
    if "methods" in settings:
        settings["methods"] = _methods(settings["methods"], f"stages.{name}.methods")
    return Stage(name, **settings)


def _methods(value: object, where: str) -> dict[str, Method]:
    return {
        name: _method(_table(settings, f'{where}."{name}"'), f'{where}."{name}"')
        for name, settings in _table(value, where).items()
    }


def _method(settings: Mapping[str, Any], where: str) -> Method:
    known = _named(settings, _parameters(Method), where)
    with errors_of(where):
        return Method(**known)


def _parameters(kind: type[Method] | type[Stage] | type[GatewayResponse] | type[CORS]) -> frozenset[str]:
    return frozenset(item.name for item in fields(kind))


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: {value!r} is not a table")
    return cast("Mapping[str, Any]", value)


def _named(table: Mapping[str, Any], known: frozenset[str], where: str) -> Mapping[str, Any]:
    check_settings(table, known, where, RATE_HINTS)
    return table
