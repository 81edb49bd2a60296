"""Whether what threads saw could have happened in some order, one after the other.

Wing and Gong's search: of the operations that had begun before any of the rest had ended, one must have come first;
try each against the model, and go on with the rest. Histories are small, so the search is, too.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from tests.properties.model import Model

__all__ = ["Operation", "has_legal_order"]


@dataclass(frozen=True)
class Operation:
    """Something a thread did: when it began and ended, what it would do to the model, and what the thread saw."""

    begin: int
    end: int
    apply: Callable[[Model], object]
    seen: object


def has_legal_order(model: Model, history: Sequence[Operation]) -> bool:
    """Whether the operations can be put in an order that respects time, and in which each sees what it saw."""
    if not history:
        return True
    first_end = min(operation.end for operation in history)
    for operation in history:
        if operation.begin < first_end:
            tried = deepcopy(model)
            rest = [other for other in history if other is not operation]
            if operation.apply(tried) == operation.seen and has_legal_order(tried, rest):
                return True
    return False
