"""Functions of the user's that are asked while a request is served: they are called, and never awaited."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any, TypeGuard

from apigate.core.errors import ConfigurationError

__all__ = ["is_coroutine_function", "is_function"]


def is_function(value: object, setting: str) -> TypeGuard[Callable[..., Any]]:
    """Tell whether it can be called for an answer.

    Args:
        value: What was given.
        setting: What to call it in an error.

    Raises:
        ConfigurationError: It is a coroutine function: what it gives would be taken for an answer, and for true.
    """
    if not callable(value):
        return False
    if is_coroutine_function(value) or is_coroutine_function(getattr(value, "__call__", None)):  # noqa: B004 - its kind
        raise ConfigurationError(f"{setting}: {value!r} is a coroutine function, and nobody would await it; use def")
    return True


def is_coroutine_function(function: object) -> bool:
    """Tell whether calling it gives a coroutine; before Python 3.12, asyncio had a marker of its own for saying so."""
    return iscoroutinefunction(function) or type(getattr(function, "_is_coroutine", None)) is object
