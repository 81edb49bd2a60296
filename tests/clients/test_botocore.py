"""botocore does not read Retry-After: it backs off by itself, and is served where that is longer than the wait."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.retries.standard import RetryEventAdapter, ThrottlingErrorDetector
from botocore.session import Session

from tests.clients.wire import Wire

SERVICE = {
    "version": "2.0",
    "metadata": {
        "apiVersion": "2026-01-01",
        "endpointPrefix": "petstore",
        "protocol": "rest-json",
        "serviceFullName": "Pet store",
        "serviceId": "Petstore",
        "signatureVersion": "v4",
        "uid": "petstore-2026-01-01",
    },
    "operations": {
        "ListPets": {
            "name": "ListPets",
            "http": {"method": "GET", "requestUri": "/pets"},
            "output": {"shape": "Listed"},
        },
        "AddPet": {"name": "AddPet", "http": {"method": "POST", "requestUri": "/pets"}, "input": {"shape": "Pet"}},
    },
    "shapes": {
        "Name": {"type": "string"},
        "Pet": {"type": "structure", "members": {"name": {"shape": "Name"}}},
        "Pets": {"type": "map", "key": {"shape": "Name"}, "value": {"shape": "Name"}},
        "Listed": {"type": "structure", "payload": "pets", "members": {"pets": {"shape": "Pets"}}},
    },
}
"""The pet store, as a service model that botocore makes a client of."""

PETS = {"1": "Rex", "2": "Mia", "3": "Tweety"}
ATTEMPTS = 3  # botocore's default in the mode standard
SETTINGS = {
    "problem": "",
    "amazon": 'error_format = "amazon"\n',
    "amazon-with-wait": """\
error_format = "amazon"
responses.THROTTLED.headers = { "x-amz-retry-after" = "1000" }
""",
}
"""Ways to refuse, as in `apigate.toml`."""


class Client(NamedTuple):
    api: Any  # botocore makes its class of the model
    codes: list[str]  # of the errors that were throttling to botocore


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Client]]:
    """Makes a client of an address, in the mode standard."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_DATA_PATH"):
        monkeypatch.delenv(name, raising=False)
    models = tmp_path / "models" / "petstore" / "2026-01-01"
    models.mkdir(parents=True)
    (models / "service-2.json").write_text(json.dumps(SERVICE), encoding="utf-8")
    with ExitStack() as stack:

        def make(url: str) -> Client:
            session = Session()
            session.get_component("data_loader").search_paths.append(str(tmp_path / "models"))
            made = session.create_client(
                "petstore",
                region_name="eu-central-1",
                endpoint_url=url,
                aws_access_key_id="nobody",
                aws_secret_access_key="none",
                config=Config(retries={"mode": "standard"}),
            )
            stack.enter_context(closing(made))
            detector, codes = ThrottlingErrorDetector(RetryEventAdapter()), []

            def note(response: Any, **about: Any) -> None:
                if detector.is_throttling_error(response=response, **about):
                    codes.append(response[1]["Error"]["Code"])

            made.meta.events.register("needs-retry", note)
            return Client(made, codes)

        yield make


def back_offs(*between: tuple[float, float]) -> None:
    """Let botocore's next random back-offs, in seconds, lie between these."""

    def drawn(seed: int) -> bool:
        random.seed(seed)
        return all(low <= random.random() * 2**number <= high for number, (low, high) in enumerate(between))

    random.seed(next(filter(drawn, range(1_000_000))))


def retries(answer: dict[str, Any]) -> int:
    return answer["ResponseMetadata"]["RetryAttempts"]


@pytest.fixture
def store(start: Callable[..., Wire], tmp_path: Path) -> Callable[[str], Wire]:
    """The pet store behind settings of a test's own."""

    def started(settings: str) -> Wire:
        (tmp_path / "pets.py").write_text("from apigate.demo.store import PetStore\n\napp = PetStore()\n")
        (tmp_path / "apigate.toml").write_text(settings)
        return start("run", "pets:app", "--config", "apigate.toml", "--interface", "asgi")

    return started


def test_wait_shorter_than_its_back_off_is_served_within_its_attempts(start, client):
    for _ in range(20):
        demo = start("demo")
        pets = client(f"{demo.url}/beta")
        assert all(retries(pets.api.list_pets()) == 0 for _ in range(8))
        back_offs((0.3, 0.6), (1.75, 1.9))  # 2.05 s at least
        answer = pets.api.list_pets()
        begun = demo.exchanges[0].came
        if all(each.left - begun < second for each, second in zip(demo.exchanges[8:], (1, 2), strict=False)):
            break  # else the machine took so long that a token came back meanwhile
    assert (answer["pets"], retries(answer)) == (PETS, ATTEMPTS - 1)
    early, _ = demo.gaps()
    assert early.waited < early.told == 2  # and was refused again, which cost no token
    assert pets.codes == ["429"] * 2


def test_wait_longer_than_its_back_offs_is_not_outlasted(store, client):
    wire = store('throttle = "10/hour; burst=3"\n')
    pets = client(wire.url)
    assert all(retries(pets.api.add_pet(name="Bella")) == 0 for _ in range(3))
    back_offs((0, 0.1), (0, 0.1))
    with pytest.raises(ClientError) as failure:
        pets.api.add_pet(name="Bella")
    assert retries(failure.value.response) == len(wire.gaps()) == ATTEMPTS - 1
    assert 300 < int(failure.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) <= 360
    assert all(gap.waited < gap.told for gap in wire.gaps())


@pytest.mark.parametrize(
    ("way", "code", "message"),
    [
        ("problem", "429", ""),
        ("amazon", "TooManyRequestsException", "Too Many Requests"),
    ],
)
def test_refusal_is_throttling_to_botocore(store, client, way, code, message):
    pets = client(store(f'throttle = "1/day"\n{SETTINGS[way]}').url)
    pets.api.list_pets()
    back_offs((0, 0.1), (0, 0.1))
    with pytest.raises(ClientError) as failure:
        pets.api.list_pets()
    assert failure.value.response["Error"] == {"Code": code, "Message": message}
    assert pets.codes == [code] * ATTEMPTS


def test_its_own_field_makes_botocore_wait(store, client):
    wire = store(f'throttle = "1/second"\n{SETTINGS["amazon-with-wait"]}')
    pets = client(wire.url)
    back_offs((0, 0.1))
    answers = (pets.api.list_pets() for _ in range(100))  # a machine that takes a second for one has the token back
    assert next(filter(None, map(retries, answers))) == 1
    (gap,) = wire.gaps()
    assert gap.waited >= gap.told == 1
