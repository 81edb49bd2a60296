"""The pet stores to choose from, what each needs, and what serves it."""

import importlib
from collections.abc import Callable
from typing import NamedTuple, cast, final

from apigate.core.errors import ConfigurationError
from apigate.demo.server import App
from apigate.gateway import Gateway

__all__ = ["FRAMEWORKS", "PLAIN", "Framework"]


@final
class Framework(NamedTuple):
    """A pet store, in a module of its own with a function `create_app`.

    Attributes:
        option: How the command line calls it.
        title: What the store is written in.
        module: The module of this package with its code.
        server: The module that serves it.
        needs: Modules to be installed.
        extra: The extra of apigate that has them.
        decorated: Whether one of its views is decorated by `gateway.throttle`.
    """

    option: str
    title: str
    module: str
    server: str
    needs: tuple[str, ...]
    extra: str = "demo"
    decorated: bool = True

    @property
    def command(self) -> str:
        """The command that serves it."""
        return "apigate demo" if self is PLAIN else f"apigate demo --framework {self.option}"

    @property
    def introduction(self) -> str:
        """What it is, the first line to be printed."""
        code = f"apigate.demo.{self.module}"
        return f"A pet store in {self.title} behind a gateway, served by {self.server}; its code is {code}."

    def require(self) -> None:
        """See that what it needs is there, before anything is promised.

        Raises:
            ConfigurationError: It is missing.
        """
        for module in self.needs:
            try:
                importlib.import_module(module)
            except ImportError:
                hint = f"pip install 'apigate[{self.extra}]'"
                raise ConfigurationError(f"{module} is missing; install it with: {hint}") from None

    def create_app(self, gateway: Gateway) -> App:
        """The store behind a gateway."""
        store = importlib.import_module(f"apigate.demo.{self.module}")
        return cast("Callable[[Gateway], App]", store.create_app)(gateway)


PLAIN = Framework("plain", "plain ASGI", "store", "uvicorn", ("uvicorn",), extra="server", decorated=False)
"""What is served unless another one is asked for."""

FRAMEWORKS = {
    framework.option: framework
    for framework in (
        PLAIN,
        Framework("flask", "Flask", "flask_store", "waitress", ("flask", "waitress")),
        Framework("fastapi", "FastAPI", "fastapi_store", "uvicorn", ("fastapi", "uvicorn")),
        Framework("django", "Django", "django_store", "uvicorn", ("django", "uvicorn")),
    )
}
"""The stores by their options."""
