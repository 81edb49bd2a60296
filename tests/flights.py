"""What tests see of flights, and their users need not."""

from apigate.caching.coalescing import Flights

__all__ = ["under_way"]


def under_way(flights: Flights) -> int:
    """How many flights have not ended: none is left on the board once nobody leads or waits."""
    return len(flights._board.flights)
