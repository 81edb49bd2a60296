"""The gateway at home in Django, sync and async: a middleware, its settings, and system checks.

    INSTALLED_APPS = [..., "apigate.django"]                      # for `manage.py check`
    MIDDLEWARE = ["apigate.django.GatewayMiddleware", ...]        # first: what it refuses costs nothing further in
    APIGATE = {"GATEWAY": "mysite.gateway.gateway"}

Instead of a gateway, `APIGATE` may have its settings in capitals (`"CLIENT_THROTTLE": "10/second"`), or `"CONFIG"`, the
path of a TOML file. `"STAGE"` fixes the stage. Views find the context as `request.apigate`. `warm(urls)` has responses
stored before clients ask.

Rule: this is all that a project names; the rooms behind it are middleware, configuration, cors and apps.
"""

from apigate.django.configuration import gateway_of_settings
from apigate.django.middleware import GatewayMiddleware
from apigate.django.warming import warm

__all__ = ["GatewayMiddleware", "gateway_of_settings", "warm"]
