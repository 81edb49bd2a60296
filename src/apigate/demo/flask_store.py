"""The demo's app in Flask: an app, the extension, and a decorated view."""

from flask import Flask, Response, abort, jsonify, request

from apigate.flask import Apigate, context
from apigate.gateway import Gateway

__all__ = ["create_app"]


def create_app(gateway: Gateway) -> Flask:
    """The pet store behind a gateway.

    >>> create_app(Gateway()).test_client().get("/pets/1").json
    'Rex'
    """
    app = Flask(__name__)
    Apigate(app, gateway)
    pets = {1: "Rex", 2: "Mia", 3: "Tweety"}

    @app.get("/pets")
    def all_pets() -> Response:
        response = jsonify(pets)
        response.set_etag(str(len(pets)))  # pets come, and never go
        return response

    @app.post("/pets")
    def add_pet() -> tuple[Response, int]:
        try:
            name = str(request.get_json()["name"])
        except (TypeError, KeyError):
            abort(400, 'Send a pet, such as {"name": "Bella"}.')
        number = len(pets) + 1
        pets[number] = name
        return jsonify({number: name}), 201

    @app.get("/pets/<int:number>")
    def one_pet(number: int) -> Response:
        return jsonify(found(number))

    @app.get("/pets/<int:number>/photo")
    @gateway.throttle("2/day", per="client")
    def photo(number: int) -> Response:
        return jsonify({"photo of": found(number), "taken for": context.client})

    @app.get("/health")
    def health() -> Response:
        return jsonify("well")

    def found(number: int) -> str:
        return pets.get(number) or abort(404)

    return app
