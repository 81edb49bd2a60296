"""What servers run: every host runs on every server of its protocol, so a line here is a column for each of them."""

from importlib import import_module
from typing import Any, NamedTuple


class Host(NamedTuple):
    """A callable for a server, made by a function without arguments."""

    protocol: str
    factory: str  # module:function, for a process that has not imported it yet
    lifespan: bool = False  # whether it answers ASGI's lifespan messages

    def make(self) -> Any:
        module, _, function = self.factory.partition(":")
        return getattr(import_module(module), function)()


HOSTS = {
    "asgi_host": Host("asgi", "tests.adapters.cells:asgi_host", lifespan=True),
    "wsgi_host": Host("wsgi", "tests.adapters.cells:wsgi_host"),
}
