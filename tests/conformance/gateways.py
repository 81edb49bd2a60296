"""apigate as the cache under test: the one place that knows how it is configured."""

from typing import Any, NamedTuple

from apigate.core.clock import Clock


class Profile(NamedTuple):
    """How apigate is set up for a run; section 8 asks for two."""

    set_cookies: tuple[str, ...]
    """The names of the cookies with which an answer may be stored."""


PROFILES = {"default": Profile(()), "cookies": Profile(("a",))}


def build_apigate(app: Any, clock: Clock | None, *, profile: str, protocol: str) -> Any:  # Any: an app of either kind
    """The gateway around an app.

    Args:
        app: The app.
        clock: The clock; None for the machine's.
        profile: Of `PROFILES`: safe by default, or with the storing of cookies allowed.
        protocol: "asgi" or "wsgi".
    """
    from apigate import CachePolicy, Gateway, Method, ResponseCache, asgi, wsgi
    from apigate.core.clock import SystemClock

    policy = CachePolicy(
        heuristic=True,
        normalize=["accept-language", "foo"],
        stale_if_error=86_400,
        set_cookies=PROFILES[profile].set_cookies,
    )
    gateway = Gateway(
        cache=ResponseCache(max_bytes="64MB"), methods={"*": Method(cache=policy)}, clock=clock or SystemClock()
    )
    middleware = asgi.GatewayMiddleware if protocol == "asgi" else wsgi.GatewayMiddleware
    return middleware(app, gateway)
