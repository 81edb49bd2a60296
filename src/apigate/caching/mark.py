"""What `Gateway.cache` leaves on a function: its policy, which the gate carries out with everything else."""

from typing import Any

from apigate.caching.settings import CachePolicy

__all__ = ["CacheMark"]


class CacheMark:
    """The cache policy of one decorated endpoint.

    Attributes:
        owner: What all marks of one gateway have in common.
        policy: The policy.
        refusal: As in `Mark`; there is none, as a cache refuses nobody.
    """

    __slots__ = ("owner", "policy", "refusal")

    def __init__(self, owner: object, policy: CachePolicy) -> None:
        """Keep both."""
        self.owner: object = owner
        self.policy: CachePolicy = policy
        self.refusal: tuple[int, dict[str, Any]] | None = None

    def __repr__(self) -> str:
        """Its policy."""
        return f"<CacheMark {self.policy}>"
