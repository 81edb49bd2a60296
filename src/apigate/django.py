"""The gateway at home in Django, sync and async: a middleware, its settings, and system checks.

    INSTALLED_APPS = [..., "apigate.django"]                      # for `manage.py check`
    MIDDLEWARE = ["apigate.django.GatewayMiddleware", ...]        # first: what it refuses costs nothing further in
    APIGATE = {"GATEWAY": "mysite.gateway.gateway"}

Instead of a gateway, `APIGATE` may have its settings in capitals (`"CLIENT_THROTTLE": "10/second"`), or `"CONFIG"`, the
path of a TOML file. `"STAGE"` fixes the stage. Views find the context as `request.apigate`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from sys import modules
from typing import Any, cast, final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponseBase
from django.urls import get_script_prefix, set_script_prefix
from django.utils.module_loading import import_string

from apigate.core.context import RequestContext, current
from apigate.core.errors import ConfigurationError
from apigate.core.message import Request, Response, ResponseHead
from apigate.core.native import wsgi_request
from apigate.gateway import Gateway, empty_context
from apigate.routing.django import DjangoRouting, django_response
from apigate.throttling.decision import Throttled

__all__ = ["ApigateConfig", "GatewayMiddleware", "gateway_of_settings"]

GetResponse = Callable[[HttpRequest], Any]  # Any: a response, or a coroutine of one

_ME = "apigate.django.GatewayMiddleware"
_TOO_MANY = 429
_SERVER_ERROR = 500
_REFUSED = (_TOO_MANY, _SERVER_ERROR)


@final
class GatewayMiddleware:
    """The gate in `MIDDLEWARE`.

    Args:
        get_response: What comes after it.

    Raises:
        ConfigurationError: The setting `APIGATE` cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        """Take the gateway of the settings."""
        self.gateway, self.stage = gateway_of_settings()
        self.gateway.check_stage(self.stage)
        self.routing = DjangoRouting()
        self._get_response = get_response
        self._cors = _cors_middleware()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self.gateway.bind(self, self.routing)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request; in a chain of coroutines, hand back one."""
        asked = wsgi_request(request.META, request.path_info)
        outer: object = request.META.get("apigate.context") or getattr(request, "scope", {}).get("apigate")
        if self.gateway.is_empty or (outer is not None and self.gateway.has_passed(outer, self.stage)):
            request.apigate = outer if outer is not None else empty_context(asked)  # type: ignore[attr-defined]
            passed_on: HttpResponseBase | Awaitable[HttpResponseBase] = self._get_response(request)
            return passed_on
        return self._serve_async(request, asked, outer) if self._is_async else self._serve(request, asked, outer)

    def _serve(self, request: HttpRequest, asked: Request, outer: object) -> HttpResponseBase:
        gateway = self.gateway
        context = gateway.enter(asked, self.stage, self.routing.find)
        if context.refusal is not None:
            return self._refusal(request, context, context.refusal)
        _hand_over(request, context, outer)
        token = current.set(context) if gateway.marked else None
        try:
            response: HttpResponseBase = self._get_response(request)
        except BaseException:
            gateway.complete(context, _SERVER_ERROR)
            raise
        finally:
            if token is not None:
                current.reset(token)
        error: Throttled | None = context.inner_refusal
        if error is not None and response.status_code in _REFUSED:
            response = self._spoken_for(request, context, response, gateway.refuse(context, error))
        return self._with_fields(context, response)

    async def _serve_async(self, request: HttpRequest, asked: Request, outer: object) -> HttpResponseBase:
        gateway = self.gateway
        context = await gateway.enter_async(asked, self.stage, self.routing.find)
        if context.refusal is not None:
            return self._refusal(request, context, context.refusal)
        _hand_over(request, context, outer)
        token = current.set(context) if gateway.marked else None
        try:
            response: HttpResponseBase = await self._get_response(request)
        except BaseException:
            await gateway.complete_async(context, _SERVER_ERROR)
            raise
        finally:
            if token is not None:
                current.reset(token)
        error: Throttled | None = context.inner_refusal
        if error is not None and response.status_code in _REFUSED:
            response = self._spoken_for(request, context, response, await gateway.refuse_async(context, error))
        return self._with_fields(context, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer what a view was refused by a decorated function, or by a throttle of its own."""
        context: object = getattr(request, "apigate", None)
        if not isinstance(exception, Throttled) or not isinstance(context, RequestContext):
            return None
        known = context.of(self.gateway.identity)
        if known is None:
            return None
        return self._refusal(request, known, self.gateway.refuse(known, exception))

    def _spoken_for(
        self, request: HttpRequest, context: RequestContext, response: HttpResponseBase, refusal: Response
    ) -> HttpResponseBase:
        """The project's own words for a refusal, if it has found any; else ours instead of its 500."""
        if response.status_code == _TOO_MANY:
            return response
        response.close()
        return self._refusal(request, context, refusal)

    def _refusal(self, request: HttpRequest, context: RequestContext, refusal: Response) -> HttpResponseBase:
        """One of our responses as Django's, with the fields of the project's CORS layer."""
        if "HTTP_ORIGIN" not in request.META:
            return django_response(refusal)
        if self._cors is not None:
            made = django_response(refusal)
            try:
                return cast("HttpResponseBase", self._cors(lambda _: made)(request))
            except Exception:  # a rule of the user's that needs what only later middleware gives
                from logging import getLogger

                getLogger("apigate").warning("CorsMiddleware failed on a refusal, sent without", exc_info=True)
        return django_response(self.gateway.readable(context, refusal, None))

    def _with_fields(self, context: RequestContext, response: HttpResponseBase) -> HttpResponseBase:
        """The project's response with the gateway's fields; settled when the server closes it."""
        if context.refusal is None:
            head = ResponseHead(response.status_code)
            for hook in context.compiled.on_response:
                hook(context, head)
            for added in head.added:
                name, value = added.text
                known = response.headers.get(name)
                response.headers[name] = value if known is None else f"{known}, {value}"
        if context.compiled.on_complete:
            status = response.status_code
            closers: list[Callable[[], object]] = response._resource_closers  # noqa: SLF001 - no public name
            closers.append(lambda: self.gateway.complete(context, status))
        return response


def _hand_over(request: HttpRequest, context: RequestContext, outer: object) -> None:
    """Make the context known to the views, and the stage's segment part of what the project is mounted under."""
    if isinstance(outer, RequestContext):
        context.outer = outer
    request.apigate = context  # type: ignore[attr-defined]  # as api.md names it
    if prefix := context.request.prefix:
        request.path_info = request.path_info[len(prefix) :]
        request.META["PATH_INFO"] = request.path_info
        request.META["SCRIPT_NAME"] = request.META.get("SCRIPT_NAME", "") + prefix
        set_script_prefix(f"{get_script_prefix().rstrip('/')}{prefix}/")


def _cors_middleware() -> Callable[[GetResponse], Callable[[HttpRequest], Any]] | None:
    """The project's CorsMiddleware of django-cors-headers, or what was derived from it."""
    if "corsheaders.middleware" not in modules and not any("cors" in path.lower() for path in settings.MIDDLEWARE):
        return None
    for path in settings.MIDDLEWARE:
        found = import_string(path)
        if any(base.__module__ == "corsheaders.middleware" for base in getattr(found, "__mro__", ())):
            return cast("Callable[[GetResponse], Callable[[HttpRequest], Any]]", found)
    return None


# ---- settings


_loaded: list[tuple[Gateway, str | None]] = []


def gateway_of_settings() -> tuple[Gateway, str | None]:
    """The gateway that `APIGATE` names or describes, built once, and the stage it fixes.

    Raises:
        ConfigurationError: It names none, or cannot be used.
    """
    if not _loaded:
        _loaded.append(_load(getattr(settings, "APIGATE", None)))
    return _loaded[0]


def _load(table: object) -> tuple[Gateway, str | None]:
    if not isinstance(table, Mapping) or not table:
        raise ConfigurationError(
            f"APIGATE: {table!r} is no table of settings; write APIGATE = {{'GATEWAY': 'mysite.gateway.gateway'}}, or "
            f"settings such as {{'CLIENT_THROTTLE': '10/second; burst=20'}}"
        )
    given = {str(name).lower(): value for name, value in cast("Mapping[object, Any]", table).items()}
    stage: str | None = given.pop("stage", None)
    sources = [name for name in ("gateway", "config") if name in given]
    if sources and len(given) > 1:
        others = ", ".join(sorted(name.upper() for name in given if name != sources[0]))
        raise ConfigurationError(f"APIGATE: {sources[0].upper()} has all settings, so {others} would be ignored")
    if "gateway" in given:
        return _named(given["gateway"]), stage
    if "config" in given:
        return Gateway.from_file(given["config"]), stage
    objects = {name: given.pop(name) for name in ("client", "clock", "on_event", "policies") if name in given}
    try:
        return Gateway.from_dict(given, **objects), stage
    except ConfigurationError as error:
        raise ConfigurationError(f"APIGATE: {error}") from error


def _named(gateway: object) -> Gateway:
    try:
        found: object = import_string(gateway) if isinstance(gateway, str) else gateway
    except ImportError as error:
        raise ConfigurationError(f"APIGATE GATEWAY: {error}") from error
    if not isinstance(found, Gateway):
        raise ConfigurationError(f"APIGATE GATEWAY: {gateway!r} is a {type(found).__name__}, not a Gateway")
    return found


def _forget(*, setting: str, **_: object) -> None:
    if setting == "APIGATE":
        _loaded.clear()


setting_changed.connect(_forget)


# ---- checks


class ApigateConfig(AppConfig):
    """The app for `INSTALLED_APPS`: registers the checks."""

    name = "apigate.django"
    label = "apigate"
    verbose_name = "apigate"

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
