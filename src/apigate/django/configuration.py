"""The setting `APIGATE`: which gateway a project has."""

from collections.abc import Mapping
from inspect import signature
from os import PathLike, fspath
from typing import Any, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from apigate.config import OBJECTS
from apigate.core.errors import ConfigurationError
from apigate.core.names import check_settings
from apigate.gateway import Gateway

__all__ = ["gateway_of_settings"]

_loaded: list[tuple[Gateway, str | None]] = []


def gateway_of_settings() -> tuple[Gateway, str | None]:
    """The gateway that `APIGATE` names or describes, built once, and the stage it fixes.

    Raises:
        ConfigurationError: It names none, or cannot be used.
    """
    if not _loaded:
        _loaded.append(_load(getattr(settings, "APIGATE", None)))
    return _loaded[0]


def _load(table: object) -> tuple[Gateway, str | None]:
    named = cast("Mapping[object, Any]", table if isinstance(table, Mapping) else {})
    given = {str(name).lower(): value for name, value in named.items()}
    stage: str | None = given.pop("stage", None)
    if not given:
        raise ConfigurationError(
            f"APIGATE: {table!r} is no table of settings; write APIGATE = {{'GATEWAY': 'mysite.gateway.gateway'}}, or "
            f"settings such as {{'CLIENT_THROTTLE': '10/second; burst=20'}}"
        )
    _check_names(given)
    sources = [name for name in ("gateway", "config") if name in given]
    if sources and len(given) > 1:
        others = ", ".join(sorted(name.upper() for name in given if name != sources[0]))
        raise ConfigurationError(f"APIGATE: {sources[0].upper()} has all settings, so {others} would be ignored")
    if "gateway" in given:
        return _named(given["gateway"]), stage
    if "config" in given:
        return Gateway.from_file(_path(given["config"])), stage
    objects = {name: _imported(name, given.pop(name)) for name in OBJECTS & given.keys()}  # or where they stand
    try:
        return Gateway.from_dict(given, **objects), stage
    except ConfigurationError as error:
        raise ConfigurationError(f"APIGATE: {error}") from error


def _check_names(given: Mapping[str, object]) -> None:
    """Find what is no setting, and say which was meant."""
    check_settings(map(str.upper, given), {name.upper() for name in (*signature(Gateway).parameters, *_OWN)}, "APIGATE")


_OWN = ("gateway", "config", "stage")
"""Settings beside those of `Gateway`."""


def _imported(setting: str, value: object) -> Any:  # Any: whatever the user wrote, or named
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ConfigurationError(f"APIGATE {setting.upper()}: {error}") from error


def _named(gateway: object) -> Gateway:
    found: object = _imported("gateway", gateway)
    if not isinstance(found, Gateway):
        raise ConfigurationError(f"APIGATE GATEWAY: {gateway!r} is a {type(found).__name__}, not a Gateway")
    return found


def _path(path: object) -> str:
    if not isinstance(path, (str, PathLike)):
        raise ConfigurationError(f"APIGATE CONFIG: {path!r} is not the path of a TOML file")
    return str(fspath(cast("PathLike[str]", path)))


def _forget(*, setting: str, **_: object) -> None:
    if setting == "APIGATE":
        _loaded.clear()


setting_changed.connect(_forget)
