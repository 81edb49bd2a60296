"""What a check of `Gateway.lint` finds, and where in the settings of a gateway it looks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from apigate.core.endpoints import Endpoint
from apigate.core.policy import CompiledMethod
from apigate.core.routes import ANY
from apigate.running_stage import RunningStage

if TYPE_CHECKING:
    from apigate.gateway import Gateway

__all__ = ["Finding", "compiled_of", "endpoints_of", "methods_of"]


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is probably not meant.

    Attributes:
        check: The name of the check, for suppressing it.
        setting: Where it stands, such as `stages.prod.methods."GET /pets"`.
        message: What is odd, and what to do.
    """

    check: str
    setting: str
    message: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.setting}: {self.message} [{self.check}]"


def methods_of(gateway: "Gateway") -> Iterator[tuple[RunningStage, str | None, str]]:
    """Every stage and method, and what to call it."""
    for stage in gateway.stages.values():
        for name in (*(name for name in stage.settings.methods if name != ANY), None):
            yield stage, name, f'stages.{stage.name}.methods."{name or ANY}"'


def endpoints_of(gateway: "Gateway") -> Iterator[Endpoint]:
    """Every endpoint of the apps that the gateway stands around, as far as their frameworks tell them."""
    for _, routing in gateway.bound:
        if routing is not None:
            yield from routing.endpoints()


def compiled_of(gateway: "Gateway") -> Iterator[tuple[CompiledMethod, str]]:
    """The pipeline of every method, and of every decorated endpoint of the apps, and what to call it."""
    for stage, name, where in methods_of(gateway):
        yield stage.compiled(name), where
    for endpoint in endpoints_of(gateway):
        for stage in gateway.stages.values() if endpoint.marks else ():
            compiled = stage.compiled_for(endpoint)
            yield compiled, f'stages.{stage.name}.methods."{compiled.method}"'
