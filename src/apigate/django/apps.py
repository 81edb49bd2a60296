"""What `manage.py check` says of the gateway. Django looks for an app of a project here."""

from collections.abc import Sequence

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from apigate.core.errors import ConfigurationError
from apigate.django.configuration import gateway_of_settings

__all__ = ["ApigateConfig", "check_settings"]

_ME = "apigate.django.GatewayMiddleware"


class ApigateConfig(AppConfig):
    """The app for `INSTALLED_APPS`: registers the checks."""

    name = "apigate.django"
    label = "apigate"

    def ready(self) -> None:
        """Register the checks."""
        checks.register(check_settings)


def check_settings(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001 - as Django calls checks
    **_: object,
) -> list[checks.CheckMessage]:
    """What `manage.py check` says of the gateway."""
    found: list[checks.CheckMessage] = []
    count = list(settings.MIDDLEWARE).count(_ME)
    if not count:
        found.append(
            checks.Warning("no gateway stands in front of the project", f"Put {_ME!r} first.", id="apigate.W001")
        )
    elif count > 1:
        found.append(checks.Error(f"{_ME!r} stands in MIDDLEWARE {count} times", id="apigate.E002"))
    try:
        gateway, stage = gateway_of_settings()
        gateway.check_stage(stage)
    except ConfigurationError as error:
        return [*found, checks.Error(str(error), id="apigate.E001")]
    return [*found, *[checks.Warning(str(finding), id="apigate.W002") for finding in gateway.lint()]]
