"""Work in threads that begin together."""

from collections.abc import Callable, Iterable
from threading import Thread

__all__ = ["in_threads"]


def in_threads(work: Iterable[Callable[[], object]]) -> None:
    """Run each in a thread of its own, and wait until all have ended."""
    threads = [Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
