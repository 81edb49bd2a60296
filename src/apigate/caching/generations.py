"""Invalidation in one step: what is no longer valid is remembered, and no entry is looked for.

Rule: each invalidation takes the next number of `epoch`, and an entry carries the number that stood when its request
was sent. What was invalidated after that is found when the entry is next wanted; so a response that was on its way
meanwhile is caught as well. It is noted before its number is told, and a reader takes the number before it looks: hence
no reader needs the lock.

What is remembered is bounded. The older half is forgotten when there is too much of it, and then counts as everything:
an entry that has not been looked at since is no longer valid. The cost is a miss, never a response that should be gone.
"""

from bisect import bisect_right
from collections.abc import Iterable
from threading import Lock
from typing import Protocol, final

from apigate.core.forks import renew_after_fork

__all__ = ["MAX_PREFIXES", "MAX_SCOPES", "PREFIX", "Generations", "Invalidable"]

MAX_SCOPES = 65_536
"""Scopes remembered at most, at 130 bytes each: 8.5 MB."""

MAX_PREFIXES = 1_024
"""Prefixes of paths remembered at most; they come from the program, never from a client."""

PREFIX = "prefix:"
"""How the scope of all paths that begin with a text begins: `prefix:/pets` is every `path:/pets...`."""

_SCOPE_BYTES = 130  # measured 127 by tracemalloc when a half has just grown: two integers, a place in a table
_PREFIX_BYTES = 110  # measured 106 besides its characters: a text, an integer, places in two tables


class Invalidable(Protocol):
    """What can be invalidated: a `StoredResponse`."""

    epoch: int

    @property
    def scopes(self) -> tuple[str, ...]:
        """What invalidates it."""
        ...


@final
class Generations:
    """What has been invalidated, and since when.

    Attributes:
        epoch: How many invalidations there were; taken before a request is sent to the app, for what it brings.

    >>> class Stored:
    ...     epoch, scopes = 0, ("path:/pets/1", "tag:pets")
    >>> generations, stored = Generations(), Stored()
    >>> generations.invalidate("tag:pets"), generations.is_valid(stored)
    (1, False)
    """

    def __init__(self, max_scopes: int = MAX_SCOPES, max_prefixes: int = MAX_PREFIXES) -> None:
        """Nothing has been invalidated yet. Of `max_scopes` and `max_prefixes`, at least 2 each."""
        self.epoch: int = 0
        self._half_scopes = max_scopes // 2
        self._max_prefixes = max_prefixes
        self._lock = Lock()
        # What is looked at stands in one attribute each, so that a reader sees all of it before a change or after.
        self._marks: tuple[int, dict[int, int], dict[int, int]] = (0, {}, {})  # floor, young, old
        self._prefixes: tuple[list[int], tuple[str, ...]] = ([], ())  # epochs, and "path:..." of each
        self._young_until = self._old_until = 0  # the last epoch that each half has marks of
        renew_after_fork(self)

    def is_valid(self, response: Invalidable) -> bool:
        """Whether nothing that concerns the response was invalidated after its epoch.

        If so its epoch moves up to what stood before the look, and until the next invalidation it costs one comparison.
        """
        epoch = self.epoch
        return response.epoch == epoch or self._outlived(response, epoch)

    def invalidate(self, scope: str) -> int:
        """Let everything of a scope be invalid from now on, and what is on its way to it.

        Args:
            scope: One of an entry's, such as `path:/pets/1`, `tag:pets`, `method:GET /pets/{}` or `group:...`;
                `prefix:/pets` for every path that begins so; or `""` for everything.

        Returns:
            The new epoch.
        """
        return self.apply((scope,))

    def invalidate_prefix(self, prefix: str) -> int:
        """Let every decoded path that begins with a text be invalid; `"/pets"` is `/pets/1` and `/petshop` too."""
        return self.apply((PREFIX + prefix,))

    def apply(self, scopes: Iterable[str]) -> int:
        """Let several scopes be invalid at once, as they are for `invalidate`: what came from another process.

        Returns:
            The new epoch; it grows by one for all of them together, and not at all for none.
        """
        with self._lock:
            epoch = self.epoch + 1
            changed = False
            for scope in scopes:
                changed = True
                if scope in {"", PREFIX}:
                    self._forget_before(epoch)
                elif scope.startswith(PREFIX):
                    self._mark_prefix("path:" + scope[len(PREFIX) :], epoch)
                else:
                    self._mark(scope, epoch)
            if changed:
                self.epoch = epoch
            return self.epoch

    @property
    def bytes(self) -> int:
        """Bytes that the memory of invalidations takes, at the most."""
        _, young, old = self._marks
        prefixes = self._prefixes[1]
        texts = sum(len(text) if text.isascii() else 4 * len(text) for text in prefixes)
        return _SCOPE_BYTES * (len(young) + len(old)) + _PREFIX_BYTES * len(prefixes) + texts

    def renew(self) -> None:
        """Take a new lock in a forked child; a mark without its number, which a thread left, only costs misses."""
        self._lock = Lock()

    def _outlived(self, response: Invalidable, epoch: int) -> bool:
        since = response.epoch
        epochs, prefixes = self._prefixes  # before the floor, which is raised before any of them is forgotten
        floor, young, old = self._marks
        if since < floor:
            return False
        for scope in response.scopes:
            mark = hash(scope)
            if young.get(mark, 0) > since or old.get(mark, 0) > since:
                return False
        if epochs and epochs[-1] > since:
            newer = prefixes[bisect_right(epochs, since) :]
            if any(scope.startswith(newer) for scope in response.scopes):
                return False
        response.epoch = epoch
        return True

    def _mark(self, scope: str, epoch: int) -> None:
        """Remember a scope by its hash: of one size however long it is, and who shares its hash has but a miss."""
        floor, young, _ = self._marks
        if len(young) >= self._half_scopes:
            self._marks = (max(floor, self._old_until), {}, young)
            self._old_until = self._young_until
            young = self._marks[1]
        young[hash(scope)] = epoch
        self._young_until = epoch

    def _mark_prefix(self, text: str, epoch: int) -> None:
        epochs, prefixes = self._prefixes
        marks = dict(zip(prefixes, epochs, strict=True))
        marks.pop(text, None)
        if len(marks) >= self._max_prefixes:
            forgotten = list(marks)[: self._max_prefixes // 2]
            floor, young, old = self._marks
            self._marks = (max(floor, marks[forgotten[-1]]), young, old)
            for prefix in forgotten:
                del marks[prefix]
        marks[text] = epoch
        self._prefixes = (list(marks.values()), tuple(marks))

    def _forget_before(self, epoch: int) -> None:
        """Let everything older than this epoch be invalid, which makes every mark needless."""
        self._marks = (epoch, {}, {})
        self._prefixes = ([], ())
