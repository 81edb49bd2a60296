"""Policies of one's own: one contract, carried out alike by threads (`enter`) and by tasks (`enter_async`)."""

import asyncio
from typing import Any

import pytest

from apigate import ConfigurationError, ProtocolError, Rate, Window
from apigate.core.message import Response, field
from apigate.core.policy import Phase
from tests.gateway.asking import ask, ask_in_task, built, held

ASKING = pytest.mark.parametrize("asking", [ask, ask_in_task], ids=["thread", "task"])
REFUSAL = Response("THROTTLED", 451, [field("X-By", "policy")], b"no")


class Notes:
    """A policy that notes every moment, and may refuse."""

    def __init__(self, name: str, phase: Phase, journal: list[Any], outcome: Any = None) -> None:
        self.name = name
        self.phase = phase
        self.journal = journal
        self.outcome = outcome

    def on_request(self, context: Any) -> Any:
        self.journal.append(("request", self.name))
        return self.outcome

    def on_response(self, context: Any, head: Any) -> None:
        self.journal.append(("response", self.name))
        head.added.append(field(f"X-{self.name}", str(head.status)))

    def on_complete(self, context: Any, status: int | None) -> None:
        self.journal.append(("complete", self.name, status))


class Waits(Notes):
    """The same, and every answer has to be awaited."""

    def on_request(self, context: Any) -> Any:
        async def answer() -> Any:
            await asyncio.sleep(0)
            return Notes.on_request(self, context)

        return answer()

    def on_complete(self, context: Any, status: int | None) -> Any:
        async def settle() -> None:
            await asyncio.sleep(0)
            Notes.on_complete(self, context, status)

        return settle()


KINDS = pytest.mark.parametrize(
    ("kind", "asking"), [(Notes, ask), (Notes, ask_in_task), (Waits, ask_in_task)], ids=["thread", "task", "task waits"]
)


@KINDS
def test_requests_go_through_the_phases_in_their_order_and_responses_in_reverse(kind, asking):
    journal: list[Any] = []
    shuffled = [Phase.CACHE, Phase.ROUTE, Phase.THROTTLE, Phase.GUARD, Phase.AUTHORIZE]
    gateway = built(policies=[kind(phase.name, phase, journal) for phase in shuffled])
    answer = asking(gateway, status=201)
    names = [phase.name for phase in Phase]
    assert journal == [
        *[("request", name) for name in names],
        *[("response", name) for name in reversed(names)],
        *[("complete", name, 201) for name in reversed(names)],
    ]
    assert list(answer.fields) == [f"x-{name.lower()}" for name in reversed(names)]


@KINDS
def test_within_a_phase_the_order_is_that_of_registration(kind, asking):
    journal: list[Any] = []
    asking(built(policies=[kind(name, Phase.GUARD, journal) for name in "abc"]))
    assert [name for moment, name, *_ in journal if moment == "request"] == ["a", "b", "c"]


@KINDS
def test_the_first_refusal_ends_the_pass_and_every_policy_completes(kind, asking):
    journal: list[Any] = []
    policies = [
        kind("guard", Phase.GUARD, journal),
        kind("refuses", Phase.AUTHORIZE, journal, REFUSAL),
        kind("late", Phase.CACHE, journal),
    ]
    answer = asking(built(throttle=Rate(1, per=10), policies=policies))
    assert (answer.status, answer.fields, answer.body) == (451, {"x-by": "policy"}, b"no")
    assert journal == [
        ("request", "guard"),
        ("request", "refuses"),
        ("complete", "late", None),
        ("complete", "refuses", None),
        ("complete", "guard", None),
    ]


@KINDS
def test_what_an_authorizing_policy_refuses_takes_no_token_and_no_slot(kind, asking):
    journal: list[Any] = []
    refuses = kind("refuses", Phase.AUTHORIZE, journal, REFUSAL)
    gateway = built(throttle=Rate(1, per=10), in_flight=1, policies=[refuses])
    assert [asking(gateway).status for _ in range(3)] == [451] * 3
    refuses.outcome = None
    assert [asking(gateway).status for _ in range(2)] == [200, 429]
    assert held(gateway) == 0


@KINDS
def test_a_refusal_is_counted_by_its_kind(kind, asking):
    gateway = built(policies=[kind("refuses", Phase.GUARD, [], Response("MY_OWN", 418, [], b""))])
    asking(gateway)
    assert gateway.stats() == {"default": {"*": {"MY_OWN": 1}}}


@ASKING
def test_an_exception_in_a_policy_is_the_programs_and_every_policy_completes(asking):
    class Breaks(Notes):
        def on_request(self, context: Any) -> Any:
            raise RuntimeError("broken")

    journal: list[Any] = []
    policies = [Notes("before", Phase.GUARD, journal), Breaks("breaks", Phase.AUTHORIZE, journal)]
    with pytest.raises(RuntimeError, match="broken"):
        asking(built(policies=policies))
    assert journal == [("request", "before"), ("complete", "breaks", None), ("complete", "before", None)]


@ASKING
def test_a_completion_that_breaks_does_not_keep_the_others_from_completing(asking):
    class Breaks(Notes):
        def on_complete(self, context: Any, status: int | None) -> Any:
            raise RuntimeError("broken")

    journal: list[Any] = []
    policies = [Notes("first", Phase.GUARD, journal), Breaks("breaks", Phase.GUARD, journal)]
    with pytest.raises(RuntimeError, match="broken"):
        asking(built(policies=policies))
    assert journal[-1] == ("complete", "first", 200)


@ASKING
def test_an_identity_set_by_an_authorizing_policy_is_who_is_counted(asking):
    class ByHeader:
        phase = Phase.AUTHORIZE

        def on_request(self, context: Any) -> None:
            context.api_key = context.request.headers.get("x-key")
            context.principal = context.request.headers.get("x-user")

    gateway = built(client_throttle=Rate(1, per=10), client=None, policies=[ByHeader()])
    assert [asking(gateway, x_key=key).status for key in ("a", "b", "a")] == [200, 200, 429]
    assert [asking(gateway, x_user=user).status for user in ("a", "b", "a")] == [200, 200, 429]
    assert asking(gateway).status == 200  # the address: the kinds share no bucket
    assert asking(gateway, x_key="a", x_user="c").status == 429  # the key goes before the principal


@ASKING
def test_a_policy_leaves_what_it_needs_later_in_the_context(asking):
    class Timed:
        phase = Phase.GUARD

        def on_request(self, context: Any) -> None:
            context.state[self] = context.now_us

        def on_response(self, context: Any, head: Any) -> None:
            head.added.append(field("X-Since", str(context.state[self])))

    gateway = built(policies=[Timed()])
    assert asking(gateway).fields == {"x-since": str(gateway.clock.now_us())}


@pytest.mark.parametrize("hook", ["on_request", "on_response", "on_complete"])
@ASKING
def test_one_hook_is_enough(asking, hook):
    calls = []
    policy = type("Policy", (), {"phase": Phase.GUARD, hook: lambda self, *given: calls.append(given)})()
    asking(built(policies=[policy]))
    assert len(calls) == 1


# ---- what has to be awaited, in a thread


@pytest.mark.parametrize("settings", [{}, {"in_flight": 1}])
def test_a_policy_that_has_to_be_awaited_is_refused_by_a_thread_that_says_why(settings):
    gateway = built(policies=[Waits("waits", Phase.AUTHORIZE, [])], **settings)
    with pytest.raises(ProtocolError, match="has to be awaited, which a synchronous gate cannot do"):
        ask(gateway)
    assert held(gateway) == 0
    assert ask_in_task(gateway).status == 200


class AsyncStore:
    """A store whose every answer has to be awaited."""

    def __init__(self) -> None:
        from apigate.stores.memory import MemoryStore

        self._store = MemoryStore()

    def open(self, limits: Any, now: int) -> Any:
        buckets = self._store.open(limits, now)

        class Awaited:
            async def acquire(self, *given: Any) -> Any:
                await asyncio.sleep(0)
                return buckets.acquire(*given)

            async def adjust(self, *given: Any) -> None:
                await asyncio.sleep(0)
                buckets.adjust(*given)

        return Awaited()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_store_that_has_to_be_awaited_works_for_tasks_and_is_refused_by_a_thread():
    gateway = built(throttle=Rate(1, per=10), store=AsyncStore(), in_flight=1, refund="5xx")
    assert [ask_in_task(gateway).status for _ in range(2)] == [200, 429]
    with pytest.raises(ProtocolError, match="has to be awaited"):
        ask(gateway)
    assert held(gateway) == 0


def test_a_store_that_has_to_be_awaited_is_settled_by_tasks():
    from apigate import Method

    methods = {"GET /": Method(throttle=Rate(1, per=10), refund="5xx")}
    gateway = built(methods=methods, store=AsyncStore())
    assert [ask_in_task(gateway, status=500).status for _ in range(4)] == [500] * 4


# ---- what is no policy


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (object(), "phase"),
        (type("NoHook", (), {"phase": Phase.GUARD})(), "on_request"),
        (type("NoPhase", (), {"phase": 2, "on_request": print})(), "ROUTE, GUARD, AUTHORIZE, THROTTLE, CACHE"),
        (Notes, "phase"),
    ],
    ids=["no phase", "no hook", "a number", "a class"],
)
def test_what_is_no_policy_is_refused_by_name(policy, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        built(policies=[policy])
    assert str(caught.value).startswith("policies: ")
    assert repr(policy) in str(caught.value)


class Slow:
    """Verifies by asking somebody, which takes 100 s for whoever is slow; meanwhile others take all that there is."""

    phase = Phase.AUTHORIZE

    def __init__(self, asks_anew: Any) -> None:
        self.asks_anew = asks_anew
        self.meanwhile: list[int] = []

    def on_request(self, context: Any) -> Any:
        if "x-slow" in context.request.headers:
            self.asks_anew.clock.advance(100)
            self.meanwhile += [ask(self.asks_anew).status for _ in range(11)]


class SlowTask(Slow):
    """The same, to be awaited."""

    def on_request(self, context: Any) -> Any:
        async def answer() -> Any:
            await asyncio.sleep(0)
            return Slow.on_request(self, context)

        return answer() if "x-slow" in context.request.headers else None


@pytest.mark.parametrize(
    ("kind", "asking"),
    [(Slow, ask), (Slow, ask_in_task), (SlowTask, ask_in_task)],
    ids=["thread", "task", "task waits"],
)
@pytest.mark.parametrize(
    "limit",
    [Rate(10, per=10), *[Window("10/10 seconds", kind=kind) for kind in ("fixed", "sliding", "moving")]],
    ids=str,
)
def test_who_is_verified_slowly_is_counted_at_the_time_at_which_that_ended(kind, asking, limit):
    """By the time at which it came, its bucket would be filled a second time."""
    slow = kind(None)
    gateway = slow.asks_anew = built(policies=[slow], throttle=limit)
    for _ in range(10):
        ask(gateway)
    assert asking(gateway, x_slow="yes").status == 429
    assert slow.meanwhile == [200] * 10 + [429]
    assert ask(gateway).status == 429
