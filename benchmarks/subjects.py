"""What is compared on frameworks and behind real servers: apps, each bare or behind one limiter.

Rule: a limiter is set up as its documentation shows it, with one rate for the client's address, in
memory. Every limiter can be set to refuse, and is seen to, before it is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["NEVER", "ONCE", "Subject"]

NEVER = "1000000 per second"
ONCE = "1 per day"


@dataclass(frozen=True)
class Subject:
    """An app, as a user would have it.

    Attributes:
        name: What the tables call it.
        app: Makes it. A limiter's takes `refuse=`: whether one is made that refuses all but the first
            requests, as many as `before`, at least one.
        needs: Modules it imports; without one of them the subject is left out.
        limits: Whether a limiter is part of it.
        field: A response header field that admitted requests get, in lower case; "" for none.
        refused: The status of a refused request.
        before: How many requests it serves before its time is taken.
    """

    name: str
    app: Callable[..., Any]
    needs: tuple[str, ...] = ()
    limits: bool = True
    field: str = ""
    refused: int = 429
    before: int = 0
