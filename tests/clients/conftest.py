"""`apigate demo` and `apigate run` as a user starts them, seen through a wire that notes the times."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients.wire import HOST, Wire, relayed

URL = re.compile(rf"http://{HOST}:(\d+)")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wire]]:
    """Starts a command that serves, and gives the wire to it."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, HOST)  # whatever the machine has, these requests stay on it
    with ExitStack() as stack:

        def start_command(*arguments: str) -> Wire:
            process = subprocess.Popen(
                [sys.executable, "-m", "apigate", *arguments, "--port", "0"],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout
            for line in process.stdout:
                if found := URL.search(line):
                    return stack.enter_context(relayed(int(found[1])))
            raise AssertionError(f"it ended with {process.wait()}")

        yield start_command


@pytest.fixture
def demo(start: Callable[..., Wire]) -> Wire:
    """The pet store; its stage beta has 8 tokens and gets one back in 2 s, all of it 40 and one back in 1 s."""
    return start("demo")
