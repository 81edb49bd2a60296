"""What a decorator leaves of an endpoint: all of it; and what it adds to the app's OpenAPI document."""

import inspect
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from typing import Annotated, Any, get_type_hints

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from pydantic import BaseModel
from starlette.routing import Route

from apigate import Gateway, GatewayResponse
from apigate.fastapi import GatewayMiddleware, document
from apigate.testing import FakeClock
from tests.fastapi.asking import ask


class Pet(BaseModel):
    """A pet."""

    name: str
    age: int = 0


def who(x_user: str = Header("anyone")) -> str:  # `Annotated` needs a FastAPI that knows today's Pydantic
    return x_user


async def change(pet_id: int, pet: Pet, user: Annotated[str, Depends(who)], dry: bool = False) -> list[Pet]:
    """Change a pet.

    It may be changed again.
    """
    return [pet]


def read(pet_id: int) -> Pet:
    """Read a pet."""
    return Pet(name=str(pet_id))


def stream() -> Iterator[Pet]:
    yield Pet(name="a")


async def stream_async() -> AsyncIterator[Pet]:
    yield Pet(name="a")


FUNCTIONS = [change, read, stream, stream_async]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_is_decorated_stays_what_it_was(function):
    limit = Gateway().throttle("1/minute")
    decorated = limit(limit(function))
    assert inspect.signature(decorated) == inspect.signature(function)
    assert get_type_hints(decorated, include_extras=True) == get_type_hints(function, include_extras=True)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "__defaults__"):
        assert getattr(decorated, name) == getattr(function, name)
    for kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction):
        assert kind(decorated) == kind(function)
    assert inspect.isfunction(decorated)
    assert inspect.unwrap(decorated) is function


def shop(gateway: Gateway | None) -> FastAPI:
    """The same app with decorated endpoints, or plain ones."""

    def limited(function: Any) -> Any:
        return function if gateway is None else gateway.throttle("1/minute", per="client")(function)

    app, router = FastAPI(), APIRouter(prefix="/pets", tags=["pets"])
    router.add_api_route("/{pet_id}", limited(change), methods=["PUT"], responses={409: {"description": "Taken"}})
    router.add_api_route("/{pet_id}", limited(read))
    app.include_router(router, prefix="/api", responses={418: {"description": "Teapot"}})
    app.add_api_route("/direct/{pet_id}", limited(read), name="direct")
    app.add_api_route("/plain/{pet_id}", read, name="plain")
    return app


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{verb} {path}": found for path, verbs in schema["paths"].items() for verb, found in verbs.items()}


def test_the_document_is_the_same_but_for_the_429():
    app = shop(Gateway())
    document(app)
    schema = deepcopy(app.openapi())
    added = {name: found["responses"].pop("429", None) for name, found in operations(schema).items()}
    assert schema == shop(None).openapi()
    assert {name for name, response in added.items() if response} == {
        "put /api/pets/{pet_id}",
        "get /api/pets/{pet_id}",
        "get /direct/{pet_id}",
    }
    response = added["get /direct/{pet_id}"]
    assert response["description"] == "Too Many Requests"
    assert set(response["headers"]) == {"Retry-After", "RateLimit"}
    problem = response["content"]["application/problem+json"]["schema"]
    assert set(problem["required"]) == {"type", "title", "status", "detail"}


def test_the_gate_documents_by_itself():
    app = shop(gateway := Gateway(clock=FakeClock()))
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    schema = ask(app, "/openapi.json")
    assert schema.status == 200
    assert schema.body.count(b'"429"') == 3


def test_routes_that_came_later_are_documented_too():
    app = shop(gateway := Gateway(clock=FakeClock()))
    gate = GatewayMiddleware(app, gateway)
    ask(gate, "/api/pets/1")
    app.add_api_route("/later", gateway.throttle("1/minute")(read), methods=["GET"])
    assert ask(gate, "/openapi.json").body.count(b'"429"') == 4


def test_what_the_author_said_is_kept():
    gateway = Gateway()
    app = FastAPI()
    mine: dict[int | str, dict[str, Any]] = {429: {"description": "Slow down"}}
    text: dict[int | str, dict[str, Any]] = {"429": {"description": "Slow down, please"}}
    shared: dict[int | str, dict[str, Any]] = {404: {"description": "None"}}
    limited = gateway.throttle("1/minute")(read)
    app.add_api_route("/mine/{pet_id}", limited, responses=mine, name="a")
    app.add_api_route("/text/{pet_id}", limited, responses=text, name="b")
    app.add_api_route("/shared/{pet_id}", limited, responses=shared, name="c")
    app.add_api_route("/plain/{pet_id}", read, responses=shared, name="d")
    document(app)
    document(app)
    found = operations(app.openapi())
    assert found["get /mine/{pet_id}"]["responses"]["429"] == {"description": "Slow down"}
    assert found["get /text/{pet_id}"]["responses"]["429"] == {"description": "Slow down, please"}
    assert "429" in found["get /shared/{pet_id}"]["responses"]
    assert "429" not in found["get /plain/{pet_id}"]["responses"]
    assert shared == {404: {"description": "None"}}


@pytest.mark.parametrize(
    ("settings", "status", "content", "headers"),
    [
        ({"error_format": "amazon"}, "429", {"application/json"}, {"Retry-After", "RateLimit"}),
        (
            {"responses": {"THROTTLED": GatewayResponse(status=420, headers={"X-Calm": "yes"})}},
            "420",
            {"application/problem+json"},
            {"Retry-After", "RateLimit", "X-Calm"},
        ),
        (
            {"responses": {"DEFAULT_4XX": GatewayResponse(body="no", content_type="text/plain")}},
            "429",
            {"text/plain"},
            {"Retry-After", "RateLimit"},
        ),
    ],
)
def test_custom_responses_are_documented(settings, status, content, headers):
    app = FastAPI()
    app.add_api_route("/{pet_id}", Gateway(**settings).throttle("1/minute")(read))
    document(app)
    response = operations(app.openapi())["get /{pet_id}"]["responses"][status]
    assert set(response["content"]) == content
    assert set(response["headers"]) == headers


def test_marks_of_two_gateways_are_both_documented():
    first = Gateway()
    second = Gateway(responses={"THROTTLED": GatewayResponse(status=420)})
    app = FastAPI()
    app.add_api_route("/{pet_id}", first.throttle("1/minute")(second.throttle("1/minute")(read)))
    document(app)
    assert {"420", "429"} <= operations(app.openapi())["get /{pet_id}"]["responses"].keys()


def test_what_has_no_document_is_left_alone():
    document(lambda scope, receive, send: None)  # type: ignore[arg-type, return-value]
    app = FastAPI(openapi_url=None)
    app.router.routes.append(Route("/", Gateway().throttle("1/minute")(lambda request: None)))
    document(app)


def test_endpoints_that_are_limited_validate_and_answer_as_before():
    app = shop(gateway := Gateway(clock=FakeClock()))
    gate = GatewayMiddleware(app, gateway)
    answer = ask(gate, "/api/pets/7")
    assert (answer.status, answer.body) == (200, b'{"name":"7","age":0}')
    headers = {"content-type": "application/json"}
    answer = ask(gate, "/api/pets/7", "PUT", b'{"age": "x"}', headers=headers)
    assert answer.status == 422
