"""The project's own CORS layer, asked to add its fields to refusals: pages of other origins cannot read them else."""

from collections.abc import Callable
from functools import cache
from logging import getLogger
from typing import Any, TypeAlias, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.module_loading import import_string

__all__ = ["GetResponse", "Layer", "add_cors_fields", "cors_middleware"]

GetResponse: TypeAlias = Callable[[HttpRequest], Any]  # Any: a response, or a coroutine of one
Layer: TypeAlias = Callable[[GetResponse], Callable[[HttpRequest], Any]]  # Any: as GetResponse


def cors_middleware() -> Layer | None:
    """The project's CorsMiddleware of django-cors-headers, or what was derived from it."""
    for path in settings.MIDDLEWARE:
        found = import_string(path)
        if any(base.__module__ == "corsheaders.middleware" for base in getattr(found, "__mro__", ())):
            return cast("Layer", found)
    return None


def add_cors_fields(layer: Layer, request: HttpRequest, made: HttpResponseBase) -> None:
    """Have the layer add its fields to a refusal."""
    try:
        answer = layer(lambda _: made)(request)
        if answer is not made:  # it has answered a preflight by itself, which was refused
            for name, value in answer.items():
                if name.lower() == "vary" or name.lower().startswith("access-control-"):
                    made.headers[name] = value
    except Exception as error:  # noqa: BLE001 - a rule of the user's may need what only later middleware gives
        _log_failure(type(error).__qualname__)


@cache
def _log_failure(error: str) -> None:
    """Say once for each kind of error that the layer failed."""
    getLogger("apigate").warning("CorsMiddleware raised %s on a refusal, which is sent without its fields", error)
