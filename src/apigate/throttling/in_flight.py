"""How many requests are served at once: slots in this process, taken before any store is asked."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple, final

from apigate.core.context import RequestContext
from apigate.core.message import Response
from apigate.core.policy import Phase
from apigate.core.responses import GatewayResponses
from apigate.throttling.keys import Key, bucket_key

__all__ = ["InFlightPolicy", "Slots"]


@final
class Slots:
    """Who holds slots at one level of one stage or method.

    Attributes:
        level: The level.
        held: Slots held by key; a key that holds none is not there, so this never outgrows the requests under way.
    """

    __slots__ = ("held", "level")

    def __init__(self, level: str) -> None:
        """Start with none held."""
        self.level: str = level
        self.held: dict[Key, int] = {}


class SlotLimit(NamedTuple):
    """How many slots of a level may be held by one key.

    Attributes:
        slots: Who holds them.
        most: How many one key may hold.
        enforced: False in shadow mode: then a request beyond it is noted, and takes a slot all the same.
    """

    slots: Slots
    most: int
    enforced: bool


@final
class InFlightPolicy:
    """Takes a slot at every level or at none, and frees them when the response has ended.

    A refusal by a shared level says that the server has no room now (503), one by the client's own level that the
    client asks too much (429). Neither can tell when there will be room, so there is no Retry-After.
    """

    phase = Phase.THROTTLE

    def __init__(
        self,
        limits: Sequence[SlotLimit],
        lock: Lock,
        responses: GatewayResponses,
        on_shadow: Callable[[RequestContext, tuple[str, ...]], None],
    ) -> None:
        """Hold slots under `lock`, which all policies share that share slots.

        Args:
            limits: The limits asked together.
            lock: The lock.
            responses: Makes the refusal.
            on_shadow: Told the levels in shadow mode that would have refused.
        """
        self._on_shadow = on_shadow
        self._limits = tuple(limits)
        self._lock = lock
        self._responses = responses
        self._keyed = any(limit.slots.level.startswith("client") for limit in limits)

    @property
    def limits(self) -> tuple[SlotLimit, ...]:
        """What it enforces, for explaining."""
        return self._limits

    def on_request(self, context: RequestContext) -> Response | None:
        """Take the slots."""
        if context.exempt:
            return None
        client = bucket_key(context.client) if self._keyed else ""
        wanted = [(slots.held, client if slots.level.startswith("client") else "") for slots, _, _ in self._limits]
        with self._lock:
            short = [
                limit for limit, (held, key) in zip(self._limits, wanted, strict=True) if held.get(key, 0) >= limit.most
            ]
            full = tuple(limit.slots.level for limit in short if limit.enforced)
            if not full:
                for held, key in wanted:
                    held[key] = held.get(key, 0) + 1
        if not full:
            context.state[self] = wanted  # before anything of the user's runs, or the slots could be lost
        if short and not all(limit.enforced for limit in short):
            self._on_shadow(context, tuple(limit.slots.level for limit in short if not limit.enforced))
        if not full:
            return None
        detail = f"Too many requests are under way at once ({', '.join(full)})."
        if all(level.startswith("client") for level in full):
            return self._responses.make("THROTTLED", context, detail, violated=full)
        return self._responses.make("OVERLOADED", context, detail, violated=full)

    def on_complete(self, context: RequestContext, status: int | None) -> None:  # noqa: ARG002 - the hook's signature
        """Free what this request holds, once."""
        wanted: list[tuple[dict[Key, int], Key]] | None = context.state.pop(self, None)
        if wanted is not None:
            with self._lock:
                for held, key in wanted:
                    if held[key] > 1:
                        held[key] -= 1
                    else:
                        del held[key]
