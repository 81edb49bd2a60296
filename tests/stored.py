"""Stored responses for tests of what keeps them."""

from apigate.caching.entry import StoredResponse

__all__ = ["stored"]


def stored(body=b"", *, vary=(), received=0.0, lifetime=60.0, grace=0.0, age=0.0, scopes=(), epoch=0) -> StoredResponse:
    """One without field lines; times in seconds."""
    return StoredResponse(
        status=200,
        fields=(),
        body=body,
        initial_age=age,
        received_us=round(received * 1_000_000),
        lifetime=lifetime,
        grace=grace,
        vary=vary,
        scopes=scopes,
        epoch=epoch,
    )
