"""How many workers serve the app, as one of them sees it: in the server's own records, the environment, its parent.

Rule: what another program keeps is read, never touched, and what it has renamed counts as not seen. A server that is
found to have one worker is believed, and not the environment, which may be meant for another program.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from types import FrameType
from typing import Any, NamedTuple, TypeAlias, final

__all__ = ["Workers", "workers_asked_for", "workers_at_work", "workers_seen", "workers_told"]


@final
class Workers(NamedTuple):
    """The processes that serve the same app on this host.

    Attributes:
        number: How many; None where it is only known that there may be several.
        sign: What shows it, as a sentence without its full stop.
    """

    number: int | None
    sign: str

    @property
    def several(self) -> bool:
        """Whether there may be more than one."""
        return self.number is None or self.number > 1


def workers_seen() -> Workers | None:
    """What can be seen now.

    Returns:
        None where nothing is seen, which does not say that there is one worker.
    """
    return _server() or workers_asked_for() or _parent()


def workers_told() -> int | None:
    """How many processes may be taken to share what they count, where nobody has set it.

    Returns:
        The number that the server runs, else the one that is asked for. None where neither is known; one worker has to
        be asked for to be known, as every development server and command has one.
    """
    seen = workers_seen()
    if seen is None or seen.several:
        return None if seen is None else seen.number
    asked = workers_asked_for()
    return None if asked is None or asked.several else asked.number


def workers_at_work(native: Mapping[str, Any], before: Workers | None) -> Workers | None:  # Any: values of every type
    """What is known at the first request: of an app that was set up before a fork, or before a server ran, it is more.

    Args:
        native: The request's environ, or its ASGI scope.
        before: What was seen when the app was set up.
    """
    if before is not None and before.several:
        return before
    if native.get("wsgi.multiprocess") and not any(frame.f_globals.get("__name__") in _LAYERS for frame in _frames()):
        return Workers(None, "The server says, in wsgi.multiprocess, that several processes serve the app")
    return before or workers_seen()


# ---- the server, as its functions stand on the stack while they load the app, and below every request

_Locals: TypeAlias = Mapping[str, Any]  # Any: whatever another program keeps
_SEVERAL = 1.5  # more than one, and less than any number that another frame knows


def _frames() -> Iterator[FrameType]:
    """What this thread is within. The stacks of others are left alone: they run on while they are read, and crash."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - documented
    while frame is not None:
        yield frame
        frame = frame.f_back


def _server() -> Workers | None:
    """The server that has most workers: one kind of worker may run inside another server's."""
    found: Workers | None = None
    most = 0.0
    for frame in _frames():
        server = _SERVERS.get(frame.f_globals.get("__name__", ""))
        if server is None:
            continue
        number = server.number(frame.f_code.co_name, frame.f_locals)
        if isinstance(number, int | float) and number > most:
            most = number
            found = Workers(number if isinstance(number, int) else None, f"{server.name} runs {_count(number)}")
    return found


def _count(number: float) -> str:
    return "several workers" if number == _SEVERAL else f"{number} worker{'' if number == 1 else 's'}"


def _of_gunicorn(_: str, known: _Locals) -> object:
    """Of the arbiter, which is there in its workers too: they are forked inside its call, with --preload before."""
    return getattr(known.get("self"), "num_workers", None)


def _of_uvicorn(_: str, known: _Locals) -> object:
    """Of its configuration; with --reload there is one worker, however many are asked for."""
    config = known.get("config")
    return 1 if getattr(config, "should_reload", False) else getattr(config, "workers", None)


def _of_hypercorn(function: str, known: _Locals) -> object:
    """Of its configuration, where a worker or their parent runs; `hypercorn.asyncio.serve` heeds no number of them."""
    number = (
        getattr(known.get("config"), "workers", None) if function == "run" or function.endswith("_worker") else None
    )
    return max(1, number) if isinstance(number, int) else None


def _of_granian(function: str, known: _Locals) -> object:
    """Of the server, where workers are forked inside its call; one that is spawned knows only which one it is."""
    server = known.get("self")
    if type(server).__module__ == "granian.server.mp":
        return getattr(server, "workers", None)
    if function != "wrapped":
        return None
    return 1 if known.get("worker_id") == 1 else _SEVERAL


def _one(*_: object) -> int:
    return 1


class _Server(NamedTuple):
    name: str
    number: Callable[[str, _Locals], object] = _one


_SERVERS: Mapping[str, _Server] = {
    # by the module whose functions are on the stack
    "gunicorn.arbiter": _Server("gunicorn", _of_gunicorn),
    "uvicorn.main": _Server("uvicorn", _of_uvicorn),
    "uvicorn._subprocess": _Server("uvicorn", _of_uvicorn),
    "hypercorn.run": _Server("hypercorn", _of_hypercorn),
    "hypercorn.asyncio.run": _Server("hypercorn", _of_hypercorn),
    "hypercorn.trio.run": _Server("hypercorn", _of_hypercorn),
    "granian.server.common": _Server("granian", _of_granian),
    "granian.server.mp": _Server("granian", _of_granian),
    "waitress.runner": _Server("waitress"),
    "daphne.cli": _Server("daphne"),
    "flask.cli": _Server("flask"),
    "django.core.management": _Server("manage.py"),
    "django.core.management.commands.runserver": _Server("manage.py"),  # in the thread that it serves in
    "apigate.cli": _Server("apigate"),
}

_LAYERS = frozenset(
    {
        # say wsgi.multiprocess whatever is so: between an ASGI server and a WSGI app, and in tests
        "a2wsgi.wsgi",
        "asgiref.wsgi",
        "django.test.client",
        "falcon.testing.client",
        "hypercorn.app_wrappers",
        "starlette.middleware.wsgi",
        "uvicorn.middleware.wsgi",
    }
)


# ---- what was asked for


def workers_asked_for() -> Workers | None:
    """What the environment asks for, whoever runs here: in gunicorn's own variable, else in WEB_CONCURRENCY."""
    asked = _option(os.environ.get("GUNICORN_CMD_ARGS", ""))
    if asked is not None:
        return Workers(asked, f"GUNICORN_CMD_ARGS asks for {_count(asked)}")
    number = _number(os.environ.get("WEB_CONCURRENCY", ""))
    return None if number is None else Workers(number, f"WEB_CONCURRENCY is {number}")


def _option(line: str) -> int | None:
    """The value of -w or --workers in gunicorn's arguments; of several the last, as gunicorn takes it."""
    words = line.replace("=", " ").split()
    found: int | None = None
    for word, following in pairwise([*words, ""]):
        if word in {"-w", "--workers"}:
            found = _number(following)
        elif word.startswith("-w"):
            found = _number(word[2:])
    return found


def _number(text: str) -> int | None:
    """A number of workers; None where the text is none."""
    digits = text.strip()
    return int(digits) if digits.isdecimal() and len(digits) < 5 and int(digits) else None


# ---- the parent


def _parent() -> Workers | None:
    """Whether multiprocessing started this process: few do that for one worker."""
    process = sys.modules.get("multiprocessing.process")  # loaded wherever it was
    if process is None or process.parent_process() is None:
        return None
    started = process.current_process()
    if started.name == "granian-worker" and getattr(started, "_args", ())[:1] == (1,):
        return None  # the first of its workers, and perhaps the only one
    return Workers(None, "A parent process started this one by multiprocessing, and perhaps others like it")
