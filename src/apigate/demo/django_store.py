"""The demo's app in Django: settings, the middleware, URLs, and a decorated view; all in this one file."""

import json

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, HttpRequest, JsonResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods, require_safe

from apigate.core.context import RequestContext
from apigate.demo.server import HOST
from apigate.gateway import Gateway

__all__ = ["GatedRequest", "create_app", "urlpatterns"]

urlpatterns: list[URLPattern] = []
"""What `ROOT_URLCONF` names; empty until there is a gateway to decorate with."""


class GatedRequest(HttpRequest):
    """What the middleware hands on, for type checkers."""

    apigate: RequestContext


def create_app(gateway: Gateway) -> ASGIHandler:
    """The pet store behind a gateway; only once, as a process has one Django project."""
    pets = {1: "Rex", 2: "Mia", 3: "Tweety"}

    @require_http_methods(["GET", "HEAD", "POST"])
    def all_pets(request: HttpRequest) -> JsonResponse:
        if request.method != "POST":
            return JsonResponse(pets, headers={"ETag": f'"{len(pets)}"'})  # pets come, and never go
        try:
            name = str(json.loads(request.body)["name"])
        except (ValueError, TypeError, KeyError):
            return JsonResponse({"error": 'Send a pet, such as {"name": "Bella"}.'}, status=400)
        number = len(pets) + 1
        pets[number] = name
        return JsonResponse({number: name}, status=201)

    @require_safe
    def one_pet(_: HttpRequest, number: int) -> JsonResponse:
        return JsonResponse(found(number), safe=False)

    @require_safe
    @gateway.throttle("2/day", per="client")
    def photo(request: GatedRequest, number: int) -> JsonResponse:
        return JsonResponse({"photo of": found(number), "taken for": request.apigate.client})

    @require_safe
    def health(_: HttpRequest) -> JsonResponse:
        return JsonResponse("well", safe=False)

    def found(number: int) -> str:
        if number not in pets:
            raise Http404
        return pets[number]

    urlpatterns[:] = [
        path("pets", all_pets),
        path("pets/<int:number>", one_pet),
        path("pets/<int:number>/photo", photo),
        path("health", health),
    ]
    settings.configure(
        ALLOWED_HOSTS=[HOST, "localhost"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["apigate.django"],
        MIDDLEWARE=["apigate.django.GatewayMiddleware"],
        APIGATE={"GATEWAY": gateway},
    )
    django.setup()
    return get_asgi_application()
