"""The store in a file under the contract of stores."""

import pytest

from apigate.stores.file import FileStore
from apigate.testing import ThrottleStoreContract


class TestFileStore(ThrottleStoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.paths = (tmp_path / f"{number}.state" for number in range(1_000))

    def make_store(self):
        return FileStore(next(self.paths), max_keys=1_000)
