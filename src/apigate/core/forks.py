"""What has to begin anew in a process that was forked off: locks that another thread held, files, connections.

Rule: this is the one hook for forks. Such a thread does not go on in the child, so whatever it held would be held for
ever; and what is open is the parent's too.
"""

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Renewed", "leave_to_parent", "renew_after_fork"]


class Renewed(Protocol):
    """Something that begins anew in a child."""

    def renew(self) -> None:
        """Take new locks, and let go of what is the parent's; no other thread is there yet."""
        ...


_known: WeakSet[Renewed] = WeakSet()
_left: list[object] = []  # the hook holds on to this module, so to the very end of the process


def renew_after_fork(part: Renewed) -> None:
    """Have this renewed in each process that is forked off while it is there."""
    _known.add(part)


def leave_to_parent(*inherited: object) -> None:
    """Keep what a child has inherited, to its very end: what is forgotten closes itself, and so the parent's."""
    _left.append(inherited)


def _renew_all() -> None:
    for part in list(_known):
        part.renew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_all)
