"""Throttling: rates and bursts, exact token buckets, levels that admit or refuse together."""

from apigate.throttling.decision import Decision as Decision
from apigate.throttling.decision import LevelState as LevelState
from apigate.throttling.decision import Throttled as Throttled
from apigate.throttling.limit import Limit as Limit
from apigate.throttling.rate import Rate as Rate
from apigate.throttling.rate import parse_rates as parse_rates
from apigate.throttling.store import Buckets as Buckets
from apigate.throttling.store import ThrottleStore as ThrottleStore
from apigate.throttling.throttle import Reservation as Reservation
from apigate.throttling.throttle import Throttle as Throttle

__all__ = [
    "Buckets",
    "Decision",
    "LevelState",
    "Limit",
    "Rate",
    "Reservation",
    "Throttle",
    "ThrottleStore",
    "Throttled",
    "parse_rates",
]
