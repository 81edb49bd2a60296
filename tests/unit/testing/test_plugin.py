"""The pytest plugin, as a user's project enables it."""

pytest_plugins = ["pytester"]

IN_CONFTEST = """
pytest_plugins = ["apigate.testing.plugin"]
"""

A_TEST = """
from apigate import Rate, Throttle

def test_limit(fake_clock):
    throttle = Throttle({"global": Rate(1, per=60)}, clock=fake_clock)
    assert [throttle.acquire().allowed for _ in range(2)] == [True, False]
    fake_clock.advance(60)
    assert throttle.acquire().allowed

def test_each_test_has_its_own(fake_clock):
    assert repr(fake_clock) == "<FakeClock +0.000000 s>"
"""


def test_enabled_in_a_conftest(pytester):
    pytester.makeconftest(IN_CONFTEST)
    pytester.makepyfile(A_TEST)
    pytester.runpytest_inprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_enabled_in_a_test_module(pytester):
    pytester.makepyfile(IN_CONFTEST + A_TEST)
    pytester.runpytest_inprocess("-p", "no:randomly").assert_outcomes(passed=2)


def test_a_contract_class_itself_is_not_collected(pytester):
    pytester.makepyfile("from apigate.testing import ThrottleStoreContract")
    pytester.runpytest_inprocess().assert_outcomes()


def test_a_contract_is_run_for_the_store_that_a_class_makes(pytester):
    pytester.makepyfile(
        """
        from apigate.stores.memory import MemoryStore
        from apigate.testing import ThrottleStoreContract

        class TestMemory(ThrottleStoreContract):
            def make_store(self):
                return MemoryStore()
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=result.parseoutcomes()["passed"])
    assert result.parseoutcomes()["passed"] > 30
