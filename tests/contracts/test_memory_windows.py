"""Windows in memory, under the contract of all stores of windows."""

import pytest

from apigate.stores.memory import MemoryStore
from tests.window_contract import WindowStoreContract


class TestMemoryWindows(WindowStoreContract):
    @pytest.fixture
    def windows(self):
        return MemoryStore().windows()
