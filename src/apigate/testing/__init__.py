"""For the tests of your own app: a clock to move by hand, a pytest fixture for it, and the contract of stores.

`FakeClock` goes wherever a `clock=` is taken. `pytest_plugins = ["apigate.testing.plugin"]` gives the fixture
`fake_clock`; nothing else here needs pytest. Whoever writes a store derives a test class from `ThrottleStoreContract`.
"""

from apigate.testing.clock import FakeClock as FakeClock
from apigate.testing.contracts import ThrottleStoreContract as ThrottleStoreContract

__all__ = ["FakeClock", "ThrottleStoreContract"]
