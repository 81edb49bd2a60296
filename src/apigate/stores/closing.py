"""Closing what a store has opened, if it has opened anything: that a store can be closed is optional."""

__all__ = ["close", "close_async"]


def close(store: object) -> None:
    """Close what a store has opened for the threads of this process."""
    close_store = getattr(store, "close", None)
    if close_store is not None:
        close_store()


async def close_async(store: object) -> None:
    """Close what a store has opened for threads and for the running event loop."""
    close_store = getattr(store, "close_async", None)
    if close_store is None:
        close(store)
    else:
        await close_store()
