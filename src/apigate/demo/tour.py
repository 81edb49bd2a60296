"""The tour: scenarios of real HTTP requests over loopback, and whether they went as configured.

Rule: what counts is what came over the wire, and every number expected of it stands in `scenarios`. They are written
for rates per day, so that nothing flows back meanwhile, however slow the machine is.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from socket import AF_INET, SOCK_STREAM, socket
from typing import NamedTuple, final

from apigate.demo.cached import Seen, look_at_cache
from apigate.demo.frameworks import PLAIN, Framework
from apigate.demo.server import HOST, PATIENCE, served
from apigate.demo.workers import working
from apigate.gateway import Gateway
from apigate.stores.file_kernel import has_locks

__all__ = [
    "SECOND_CLIENT",
    "SHARED",
    "Answer",
    "Outcome",
    "Scenario",
    "Tour",
    "scenarios",
    "share_a_limit",
    "take_tour",
]

SECOND_CLIENT = "127.0.0.2"
"""Another address to come from; Linux and Windows have all of 127.0.0.0/8, macOS by default only the first."""

_BODY = b'{"name": "Bella"}'
_JSON = {"Content-Type": "application/json"}


@final
class Scenario(NamedTuple):
    """Requests of one client, one after the other, and what is to become of them.

    Attributes:
        title: What happens, in few words.
        request: Verb and path of each.
        sent: How many there are.
        admitted: How many of them, the first ones, are to be admitted.
        level: The level that is to refuse the others; empty if there are none.
        why: Where the numbers come from.
        client: The address they come from.
    """

    title: str
    request: str
    sent: int
    admitted: int
    level: str
    why: str
    client: str = HOST


@final
class Answer(NamedTuple):
    """A response as it came over the wire.

    Attributes:
        status: Its status code.
        reason: The reason phrase.
        fields: Its fields.
        body: Its body.
    """

    status: int
    reason: str
    fields: Sequence[tuple[str, str]]
    body: bytes

    @property
    def is_refusal(self) -> bool:
        """Whether the gateway refused the request for now."""
        return self.status == 429

    @property
    def retry_after(self) -> int:
        """Seconds to wait; 0 where it does not say."""
        return next((int(value) for name, value in self.fields if name.lower() == "retry-after"), 0)

    @property
    def refused_by(self) -> str:
        """The levels that refused, as the problem document in the body names them; empty if none did."""
        return ", ".join(json.loads(self.body).get("violated-policies", "?")) if self.is_refusal else ""


@final
class Outcome(NamedTuple):
    """A scenario and what became of it.

    Attributes:
        scenario: What was to happen.
        answers: What happened; fewer than were sent where the server did not answer.
        failure: Why it did not.
    """

    scenario: Scenario
    answers: Sequence[Answer]
    failure: str = ""

    @property
    def admitted(self) -> int:
        """How many requests the app carried out."""
        return sum(answer.status in (200, 201) for answer in self.answers)

    @property
    def refusals(self) -> Sequence[Answer]:
        """The gateway's own responses."""
        return [answer for answer in self.answers if answer.is_refusal]

    @property
    def ok(self) -> bool:
        """Whether the right ones were admitted, the right level refused the others, and each of them says how long."""
        scenario = self.scenario
        levels = [""] * scenario.admitted + [scenario.level] * (scenario.sent - scenario.admitted)
        return (
            levels == [answer.refused_by for answer in self.answers]
            and self.admitted == scenario.admitted
            and all(answer.retry_after for answer in self.refusals)
        )


@final
class Tour(NamedTuple):
    """All that was seen.

    Attributes:
        outcomes: What became of each scenario.
        stats: What the gateway counted itself, see `Gateway.stats`.
        left_out: A scenario that this machine cannot do, if there is one.
        framework: What the store is written in.
        shared: What became of the scenario for several processes; None where this system has no locks for files.
        cached: What the cache did.
    """

    outcomes: Sequence[Outcome]
    stats: Mapping[str, Mapping[str, Mapping[str, int]]]
    left_out: Scenario | None
    framework: Framework = PLAIN
    shared: Outcome | None = None
    cached: Sequence[Seen] = ()

    @property
    def is_counted_right(self) -> bool:
        """Whether the gateway counted what its clients saw."""
        counted: Counter[str] = Counter()
        for methods in self.stats.values():
            for kinds in methods.values():
                counted.update(kinds)
        seen = Counter(admitted=sum(outcome.admitted for outcome in self.outcomes))
        seen["THROTTLED"] = sum(len(outcome.refusals) for outcome in self.outcomes)
        seen["admitted"] += sum(each.tries for each in self.cached)
        return counted - Counter(_looked_up(counted)) == seen

    @property
    def ok(self) -> bool:
        """Whether everything was as configured."""
        return (
            self.is_counted_right
            and all(outcome.ok for outcome in self.all_outcomes)
            and all(each.ok for each in self.cached)
        )

    @property
    def all_outcomes(self) -> Sequence[Outcome]:
        """Those of one process, then that of several, whose gateways are others and count for themselves."""
        return self.outcomes if self.shared is None else [*self.outcomes, self.shared]


def scenarios(*, second_client: bool = True, decorated: bool = False) -> tuple[Scenario, ...]:
    """The scenarios for `demo_gateway("day")`, in an order in which one level at a time refuses.

    Args:
        second_client: Whether there is a second address to come from.
        decorated: Whether the store has a decorated view.
    """
    pets = "GET /prod/pets"
    first = [
        Scenario("ordinary traffic", pets, 5, 5, "", "5 are within every burst"),
        Scenario("a method with a tight limit", "POST /prod/pets", 5, 3, "method", "POST /pets has a burst of 3"),
        Scenario(
            title="a method tight for each client",
            request="GET /prod/pets/1",
            sent=4,
            admitted=2,
            level="client-method",
            why="GET /pets/{id} has a burst of 2 for each client",
        ),
        Scenario(
            title="the same client bursts",
            request=pets,
            sent=15,
            admitted=10,
            level="client",
            why="its bucket of 20 gave 5 + 3 + 2 tokens above; requests refused there took none, at no level",
        ),
        _SECOND,
        Scenario("a stage at its limit", "GET /beta/pets", 10, 8, "stage", "the stage beta has a burst of 8"),
    ]
    if not second_client:
        first.remove(_SECOND)
    if decorated:
        first.append(_DECORATED)
    left = 40 - sum(scenario.admitted for scenario in first)
    why = f"of 40 tokens the requests admitted above, in whatever stage, have left {left}"
    return (
        *first,
        Scenario("the whole gateway at its limit", "GET /dev/pets", 15, left, "global", why),
        Scenario("an exempt method, even now", "GET /prod/health", 5, 5, "", "GET /health takes from no level"),
    )


_SECOND = Scenario(
    title="a second client, meanwhile",
    request="GET /prod/pets",
    sent=5,
    admitted=5,
    level="",
    why=f"{SECOND_CLIENT} has a bucket of its own, untouched by what the first client did",
    client=SECOND_CLIENT,
)
_DECORATED = Scenario(
    title="a view with a decorator",
    request="GET /dev/pets/1/photo",
    sent=4,
    admitted=2,
    level="client-method",
    why="""@gateway.throttle("2/day", per="client") stands on the view, nothing in the settings""",
)


SHARED = Scenario(
    title="two processes, one limit",
    request="POST /prod/pets",
    sent=8,
    admitted=3,
    level="method",
    why="the same burst of 3, of two processes that are asked by turns: they share a file",
)
"""The scenario of several processes."""


def take_tour(gateway: Gateway, port: int = 0, framework: Framework = PLAIN) -> Tour:
    """Serve a pet store behind a gateway, and send it the requests of every scenario.

    Args:
        gateway: The gateway.
        port: The port to serve on; 0 for any that is free.
        framework: What the store is written in.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    second_client = _is_ours(SECOND_CLIENT)
    planned = scenarios(second_client=second_client, decorated=framework.decorated)
    with served(framework.create_app(gateway), port, framework.server) as actual:
        outcomes = [_outcome([actual], scenario) for scenario in planned]
        cached = look_at_cache(actual, gateway.clock)
    return Tour(outcomes, gateway.stats(), None if second_client else _SECOND, framework, cached=cached)


def share_a_limit(framework: Framework = PLAIN) -> Outcome | None:
    """Serve the store in several processes that share their limits, and send them the requests of `SHARED` by turns.

    None where this system has no locks for files.

    Raises:
        ConfigurationError: A process does not start.
    """
    if not has_locks():
        return None
    with working(framework) as ports:
        return _outcome(ports, SHARED)


def _outcome(ports: Sequence[int], scenario: Scenario) -> Outcome:
    """Send the requests of a scenario to each port in turn, on one connection to each."""
    verb, path = scenario.request.split()
    body, fields = (_BODY, _JSON) if verb == "POST" else (None, {})
    answers: list[Answer] = []
    try:
        with ExitStack() as opened:
            connections = [
                opened.enter_context(
                    closing(HTTPConnection(HOST, port, timeout=PATIENCE, source_address=(scenario.client, 0)))
                )
                for port in ports
            ]
            for connection in islice(cycle(connections), scenario.sent):
                connection.request(verb, path, body, fields)
                answer = connection.getresponse()
                answers.append(Answer(answer.status, answer.reason, answer.getheaders(), answer.read()))
    except (OSError, HTTPException) as error:
        return Outcome(scenario, answers, f"the server did not answer: {error!r}")
    return Outcome(scenario, answers)


def _looked_up(counted: Mapping[str, int]) -> Mapping[str, int]:
    """What became of requests at the cache, which are counted as admitted too."""
    return {kind: count for kind, count in counted.items() if kind.startswith("cache:")}


def _is_ours(address: str) -> bool:
    """Tell whether this machine has an address."""
    with socket(AF_INET, SOCK_STREAM) as candidate:
        try:
            candidate.bind((address, 0))
        except OSError:
            return False
    return True
