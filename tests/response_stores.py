"""What tests of shared responses stand on: a store that fails on command, and generations that forget nothing."""

import os
from collections.abc import Awaitable, Sequence
from typing import Any

from apigate.caching.entry import StoredResponse
from apigate.caching.store import Found, Invalidation, Mark, News, Published, mark_of, position_of
from apigate.core.errors import StoreError

__all__ = ["ListedGenerations", "LoggedStore", "a_response", "awaited", "concerns", "nothing_varies"]


class ListedGenerations:
    """All invalidations there ever were, in a list; asked one after another."""

    def __init__(self) -> None:
        self.epoch = 0
        self.told: list[tuple[str, str]] = []

    def invalidate(self, scope: str) -> int:
        return self._tell("scope" if scope else "all", scope)

    def invalidate_prefix(self, prefix: str) -> int:
        return self._tell("prefix", prefix)

    def _tell(self, kind: str, text: str) -> int:
        self.told.append((kind, text))
        self.epoch += 1
        return self.epoch

    def is_valid(self, response: StoredResponse) -> bool:
        return not any(concerns(each, response) for each in self.told[response.epoch :])


def concerns(record: tuple[str, str], response: StoredResponse) -> bool:
    """Whether an invalidation is one of this response, as the words say it."""
    kind, text = record
    if kind == "prefix":
        return any(scope.startswith(f"path:{text}") for scope in response.scopes)
    return kind == "all" or text in response.scopes


class LoggedStore:
    """A `ResponseStore` in memory, for several users.

    Attributes:
        fails: Whether it raises.
        calls: What was asked of it.
        most: How many records it keeps.
        is_awaited: Whether its answers have to be awaited.
    """

    def __init__(self, *, max_lag_us: int = 0, is_awaited: bool = False) -> None:
        self.max_lag_us = max_lag_us
        self.max_item_bytes = 100_000
        self.most = 100
        self.fails = False
        self.is_awaited = is_awaited
        self.calls: list[str] = []
        self.values: dict[bytes, bytes] = {}
        self.seconds: dict[bytes, float] = {}
        self.forget()

    def forget(self) -> None:
        """Lose the log, as a server does that is started again."""
        self.log = os.urandom(16)
        self.records: list[Invalidation] = []

    def has_news(self, known: Mark, now_us: int) -> bool:
        return known != mark_of(self.log, len(self.records))

    def learn(self, known: Mark, records: Sequence[Invalidation] = ()) -> Any:
        self._check("learn")
        self.records += records
        return self._answer(self._news(known))

    def get(self, key: bytes, known: Mark) -> Any:
        self._check("get")
        return self._answer(Found(self.values.get(key), self._news(known) if self.max_lag_us else None))

    def put(self, key: bytes, value: bytes, seconds: float) -> Any:
        self._check("put")
        self.values[key], self.seconds[key] = value, seconds
        return self._answer(None)

    def delete(self, key: bytes) -> Any:
        self._check("delete")
        self.values.pop(key, None)
        return self._answer(None)

    def _news(self, known: Mark) -> News:
        last = len(self.records)
        oldest = max(0, last - self.most)
        since = position_of(known) if known[:16] == self.log else -1
        since = since if oldest <= since <= last else oldest
        records = [Published(at, self.records[at - 1]) for at in range(since + 1, last + 1)]
        return News(mark_of(self.log, last), records, since)

    def _check(self, operation: str) -> None:
        self.calls.append(operation)
        if self.fails:
            raise StoreError(operation, "nobody is there")

    def _answer(self, value: Any) -> Any:
        return _later(value) if self.is_awaited else value


async def _later(value: Any) -> Any:
    return value


def a_response(epoch: int = 0, *, body: bytes = b"hello", **settings: Any) -> StoredResponse:
    """A response that is fresh for a minute."""
    given = {"lifetime": 60.0, "grace": 0.0, "scopes": ("path:/pets/1", "tag:pets"), **settings}
    fields = (("content-type", "text/plain"),)
    return StoredResponse(status=200, fields=fields, body=body, initial_age=0.0, received_us=0, epoch=epoch, **given)


def nothing_varies(names: Sequence[str]) -> Any:
    raise AssertionError(f"nobody asked for {names}")


def awaited(answer: Any) -> Any:
    """The answer, awaited if it has to be, in a loop of its own."""
    if not isinstance(answer, Awaitable):
        return answer
    import asyncio

    async def wait() -> Any:
        return await answer

    return asyncio.run(wait())
