"""Pyramid behind `apigate.wsgi`. Routes take a path as it was sent; traversal finds a view in many ways."""

import warnings

import httpx
import pytest

from apigate import Gateway, Method
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware
from tests.frameworks.promises import FrameworkPromises, Shop, told

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'cgi' is deprecated", DeprecationWarning)  # WebOb imports it, on Python 3.11
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)  # Pyramid imports that
    warnings.filterwarnings("ignore", "Deprecated call to `pkg_resources", DeprecationWarning)
    from pyramid.config import Configurator
    from pyramid.response import Response


def told_of(request):
    return told(request.environ["apigate.context"])


class TestPyramid(FrameworkPromises):
    def wrapped(self, gateway, scarce, own):
        config = configured(scarce)
        if own is not None:
            answer = Response("My words.", status=own.status)
            config.add_exception_view(lambda error, request: answer, context=own.error)
        return GatewayMiddleware(config.make_wsgi_app(), gateway)

    def test_an_error_of_the_app_is_still_the_apps_own(self):
        shop = self.shop()
        assert shop.ask("DELETE", "/nothing").status_code == 404
        assert shop.ask("PUT", "/orders").status_code == 404  # a view's verb is one of its predicates


def configured(scarce):
    config = Configurator()
    config.add_route("orders", "/orders")
    config.add_view(told_of, route_name="orders", request_method="POST", renderer="json")
    config.add_route("pet", r"/pets/{pet_id:\d+}")
    config.add_view(told_of, route_name="pet", renderer="json")
    config.add_route("scarce", "/scarce")
    config.add_view(lambda request: scarce("a key"), route_name="scarce", renderer="json")
    return config


@pytest.mark.parametrize(
    ("path", "fields", "method"),
    [
        ("/report", {}, "GET /report"),
        ("/@@report", {}, None),
        ("/report/of/today", {}, None),
        ("/", {"X-Vhm-Root": "/report"}, None),
    ],
)
def test_traversal_finds_a_view_where_its_name_is_not_the_path(path, fields, method):
    config = Configurator()
    config.add_view(lambda request: Response(str(request.environ["apigate.context"].method)), name="report")
    gateway = Gateway(
        methods={"GET /report": Method(throttle="1/minute"), "*": Method(throttle="1/minute")}, clock=FakeClock()
    )
    transport = httpx.WSGITransport(GatewayMiddleware(config.make_wsgi_app(), gateway))
    with httpx.Client(transport=transport, base_url="http://shop.example") as client:
        assert client.get(path, headers=fields).text == str(method)
        assert client.get(path, headers=fields).status_code == 429


def test_a_star_in_a_route_takes_no_segment_too():
    config = Configurator()
    config.add_route("files", "/files/*path")
    config.add_view(lambda request: Response(str(request.environ["apigate.context"].method)), route_name="files")
    methods = {"GET /files/{path+}": Method(throttle="9/minute"), "GET /files/": Method(throttle="9/minute")}
    gateway = Gateway(methods=methods, clock=FakeClock())
    shop = Shop(GatewayMiddleware(config.make_wsgi_app(), gateway), gateway, FakeClock())
    assert [shop.ask("GET", path).text for path in ("/files/a", "/files/")] == ["GET /files/{path+}", "GET /files/"]
