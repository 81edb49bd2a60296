"""Closing what was handed to us by others, of whom some have something to close and some have not."""

__all__ = ["close", "close_async"]


def close(subject: object) -> None:
    """Close something, if it can be closed: a store what it has opened for threads, chunks what makes them."""
    method = getattr(subject, "close", None)
    if method is not None:
        method()


async def close_async(store: object) -> None:
    """Close what a store has opened for threads and for the running event loop, by what it has for that."""
    method = getattr(store, "close_async", None)
    if method is None:
        close(store)
    else:
        await method()
