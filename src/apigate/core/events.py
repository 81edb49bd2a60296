"""What a gateway tells `on_event`: frozen records, one class a kind. Monitoring builds on these and on `stats()`."""

from dataclasses import dataclass
from typing import TypeAlias, final

__all__ = ["CacheLooked", "Denied", "Event", "StoreFull", "StoreOutage", "StoreRecovered", "WouldDeny"]


@final
@dataclass(frozen=True, slots=True)
class Denied:
    """A request that the gateway answered itself.

    Attributes:
        kind: The type of the gateway response, such as `THROTTLED`.
        status: Its HTTP status.
        stage: The stage's name.
        method: Verb and template of the matched method, or None.
        path: The request's decoded path.
        client: Who was counted; None where that had not been asked yet.
        levels: The levels that refused, widest first.
        retry_after: Seconds until it would be admitted; None where waiting cannot help or nobody can tell.
        request_id: The request's id.
    """

    kind: str
    status: int
    stage: str
    method: str | None
    path: str
    client: str | None
    levels: tuple[str, ...]
    retry_after: float | None
    request_id: str


@final
@dataclass(frozen=True, slots=True)
class WouldDeny:
    """A request that a level in shadow mode would have refused.

    Attributes:
        stage: The stage's name.
        method: Verb and template of the matched method, or None.
        path: The request's decoded path.
        client: Who was counted.
        levels: The shadow levels that had too few tokens.
        request_id: The request's id.
    """

    stage: str
    method: str | None
    path: str
    client: str
    levels: tuple[str, ...]
    request_id: str


@final
@dataclass(frozen=True, slots=True)
class CacheLooked:
    """A request that was looked up in a stage's cache.

    Attributes:
        outcome: `hit`, `stale` (served while the app is asked anew), `miss` or `bypass`.
        stage: The stage's name.
        method: Verb and template of the matched method, or None.
        path: The request's decoded path.
        request_id: The request's id.
        reason: Why it went to the app: a word of RFC 9211, section 2.2, such as `uri-miss` or `bypass`, and after a
            colon more in our words, if there is more; None where the cache has answered.
    """

    outcome: str
    stage: str
    method: str | None
    path: str
    request_id: str
    reason: str | None


@final
@dataclass(frozen=True, slots=True)
class StoreFull:
    """Every place for a bucket is taken: new keys share overflow buckets until some are free again.

    In memory it is told once until a tenth is free, of a file at most once an hour.

    Attributes:
        buckets: How many buckets are kept.
    """

    buckets: int


@final
@dataclass(frozen=True, slots=True)
class StoreOutage:
    """The store cannot be reached: from now on the outage policy of each level decides. Told once an outage.

    Attributes:
        store: The store, as its author has it described.
        operation: What failed first, such as `acquire`.
        error: What was said about it.
    """

    store: str
    operation: str
    error: str


@final
@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The store answers again, and decides again. Told once an outage.

    Attributes:
        store: The store, as its author has it described.
        seconds: How long it could not be reached.
    """

    store: str
    seconds: float


Event: TypeAlias = Denied | WouldDeny | CacheLooked | StoreFull | StoreOutage | StoreRecovered
"""Whatever `on_event` may be given; later kinds are added here."""
