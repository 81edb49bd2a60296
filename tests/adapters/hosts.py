"""What servers run: every host runs on every server of its protocol, so a line here is a column for each of them."""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple


class Host(NamedTuple):
    """A callable for a server, made by a function without arguments."""

    protocol: str
    factory: str  # module:function, for a process that has not imported it yet
    lifespan: bool = False  # whether it answers ASGI's lifespan messages
    surroundings: str | None = None  # makes what each test stands in that shares its process

    def make(self) -> Any:
        return _call(self.factory)

    def surrounded(self) -> AbstractContextManager[None]:
        return nullcontext() if self.surroundings is None else _call(self.surroundings)


def _call(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)()


DJANGO = "tests.adapters.django_app:surroundings"


HOSTS = {
    "asgi_host": Host("asgi", "tests.adapters.cells:asgi_host", lifespan=True),
    "wsgi_host": Host("wsgi", "tests.adapters.cells:wsgi_host"),
    "fastapi_host": Host("asgi", "tests.adapters.fastapi_app:fastapi_host", lifespan=True),
    "django_asgi_host": Host("asgi", "tests.adapters.django_app:django_asgi_host", surroundings=DJANGO),
    "flask_host": Host("wsgi", "tests.adapters.flask_app:flask_host"),
    "django_wsgi_host": Host("wsgi", "tests.adapters.django_app:django_wsgi_host", surroundings=DJANGO),
}
