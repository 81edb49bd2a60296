"""Every exception that apigate raises, on one page.

The rule of this file: a refusal of a request is a value, never an exception. What is raised is bad configuration
(while building), a broken backend, or misuse by the program around us. `Throttled`, which a decorated function
raises, stands beside the decision it carries, in `apigate.throttling.decision`.
"""

__all__ = [
    "ApigateError",
    "ConfigurationError",
    "ProtocolError",
    "StoreError",
    "StoreTimeoutError",
]


class ApigateError(Exception):
    """The base of everything apigate raises; catch it to catch all of them."""


class ConfigurationError(ApigateError, ValueError):
    """A setting cannot be used.

    Raised while a gateway, a rate or a decorator is built, never for what a request holds. Only that no gate stands
    around a decorated function, which needs one, shows as late as at its first call. The message names the setting, the
    value, and what is allowed.
    """


class StoreError(ApigateError):
    """A store could not carry out an operation.

    Attributes:
        operation: What was being done, such as `"acquire"`. The backend's own exception is the `__cause__`.
        blames_store: False where this process was too late or too busy to ask or to hear the answer: such a request is
            decided as in an outage, and yet it is none.
    """

    def __init__(self, operation: str, message: str, *, blames_store: bool = True) -> None:
        """Say which operation failed and why."""
        super().__init__(f"{operation}: {message}")
        self.operation: str = operation
        self.blames_store: bool = blames_store


class StoreTimeoutError(StoreError, TimeoutError):
    """A store did not answer within its deadline."""


class ProtocolError(ApigateError, RuntimeError):
    """The program around the gateway broke a contract.

    Such as a policy that hands an awaitable to a synchronous gate, or a hook that is called out of order.
    """
