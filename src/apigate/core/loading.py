"""What `module:name` names, on the command line and in files."""

import importlib
from pathlib import Path
from typing import Any

from apigate.core.errors import ConfigurationError

__all__ = ["load"]


def load(target: str) -> Any:  # Any: whatever stands there
    """What `module:name` names; the module is imported.

    Raises:
        ConfigurationError: There is no such thing, or importing its module failed.

    >>> load("math:pi")
    3.141592653589793
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"{target!r} is not of the form module:name, such as shop:app")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigurationError(f"importing {module_name} failed: {_told(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{target}: {module_name} has no {name}")
        found = getattr(found, part)
    return found


def _told(error: Exception) -> str:
    """An error in one line, with the last place before it that is not ours."""
    from traceback import extract_tb

    ours = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent), "<")
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
