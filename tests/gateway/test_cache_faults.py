"""Functions of a cache policy that fail: the client is answered all the same, and the log says it once."""

import asyncio

import httpx
import pytest

from apigate import CachePolicy, Gateway, Method
from apigate.asgi import GatewayMiddleware as ASGIGate
from apigate.testing import FakeClock
from apigate.wsgi import GatewayMiddleware as WSGIGate

PETS = "https://shop.example/pets"


def broken(request):
    raise RuntimeError(request.path)


def wsgi_app(environ, start_response):
    if environ.get("HTTP_IF_NONE_MATCH"):
        start_response("304 Not Modified", [("ETag", '"3"')])
        return []
    start_response("200 OK", [("Content-Type", "text/plain"), ("ETag", '"3"')])
    return [b"three pets"]


async def asgi_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"three pets"})


def gateway(**settings):
    return Gateway(methods={"*": Method(cache=CachePolicy(ttl=60, **settings))}, clock=FakeClock())


def get(gate, **fields):
    with httpx.Client(transport=httpx.WSGITransport(gate)) as client:
        return client.get(PETS, headers=fields)


def get_async(gate):
    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate)) as client:
            return await client.get(PETS)

    return asyncio.run(ask())


RAISES = "it raises"
FAULTS = [
    *[("tags", given) for given in (RAISES, None, [7], b"pets", [""], {"pets": 1})],
    *[("per", given) for given in (RAISES, 7, b"alice")],
]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize(("setting", "given"), FAULTS, ids=repr)
def test_what_a_failing_function_is_asked_for_is_answered_and_not_stored(kind, setting, given, caplog):
    gate = gateway(**{setting: broken if given is RAISES else lambda _: given})
    ask, around = (get, WSGIGate(wsgi_app, gate)) if kind == "wsgi" else (get_async, ASGIGate(asgi_app, gate))
    for _ in range(3):
        told = ask(around)
        assert (told.status_code, told.content) == (200, b"three pets")
        assert "stored" not in told.headers["Cache-Status"]
    assert gate.stage().cache.stats()["entries"] == 0
    [record] = caplog.records
    assert record.name == "apigate"
    assert record.getMessage().startswith(f"cache {setting}: the function of stage 'default'")
    assert record.exc_info


def test_a_request_whose_owner_cannot_be_told_passes_by():
    assert get(WSGIGate(wsgi_app, gateway(per=broken))).headers["Cache-Status"] == "apigate; fwd=bypass"
    assert "nobody can tell" in gateway(per=broken).explain("GET", PETS).notes[0]


def test_a_single_text_is_one_tag():
    gate = gateway(tags=lambda _: "pets")
    around = WSGIGate(wsgi_app, gate)
    get(around)
    gate.stage().cache.invalidate(tag="p")
    assert "hit" in get(around).headers["Cache-Status"]
    gate.stage().cache.invalidate(tag="pets")
    assert "hit" not in get(around).headers["Cache-Status"]


def test_what_is_made_fresh_again_without_tags_is_forgotten(caplog):
    given = [["pets"]]
    gate = gateway(tags=lambda _: given.pop())
    around = WSGIGate(wsgi_app, gate)
    get(around)
    gate.clock.advance(60)
    told = get(around)
    assert (told.status_code, told.content) == (200, b"three pets")
    assert gate.stage().cache.stats()["entries"] == 0
    assert len(caplog.records) == 1


def test_a_client_of_whom_nobody_can_tell_whether_it_may_invalidate_may_not(caplog):
    around = WSGIGate(wsgi_app, gateway(invalidate=broken))
    get(around)
    told = [get(around, **{"Cache-Control": "no-cache"}) for _ in range(2)]
    assert all("hit" in each.headers["Cache-Status"] for each in told)
    assert len(caplog.records) == 1
