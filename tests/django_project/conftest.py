"""Every test of this folder runs in a Django that is set up; most of them under WSGI and under ASGI."""

import django
import pytest

django.setup()


@pytest.fixture(params=["wsgi", "asgi"])
def via(request):
    return request.param
