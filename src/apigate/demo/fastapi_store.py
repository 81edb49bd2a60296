"""The demo's app in FastAPI: an app, the middleware, a decorated endpoint, and the request context as a dependency."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Response
from pydantic import BaseModel

from apigate.asgi import GatewayMiddleware
from apigate.core.context import RequestContext
from apigate.fastapi import context
from apigate.gateway import Gateway

__all__ = ["NewPet", "create_app"]


class NewPet(BaseModel):
    """What a client sends to add a pet."""

    name: str


def create_app(gateway: Gateway) -> FastAPI:
    """The pet store behind a gateway."""
    app = FastAPI(title="Pet store")
    app.add_middleware(GatewayMiddleware, gateway=gateway)
    pets = {1: "Rex", 2: "Mia", 3: "Tweety"}

    @app.get("/pets")
    def all_pets(response: Response) -> dict[int, str]:
        response.headers["ETag"] = f'"{len(pets)}"'  # pets come, and never go
        return pets

    @app.post("/pets", status_code=201)
    def add_pet(pet: NewPet) -> dict[int, str]:
        number = len(pets) + 1
        pets[number] = pet.name
        return {number: pet.name}

    @app.get("/pets/{number}")
    def one_pet(number: int) -> str:
        if number not in pets:
            raise HTTPException(404)
        return pets[number]

    @app.get("/pets/{number}/photo")
    @gateway.throttle("2/day", per="client")
    async def photo(number: int, context: Annotated[RequestContext, Depends(context)]) -> dict[str, str]:
        return {"photo of": one_pet(number), "taken for": context.client}

    @app.get("/health")
    async def health() -> str:
        return "well"

    return app
