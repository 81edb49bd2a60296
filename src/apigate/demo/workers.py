"""Several processes behind one limit: each serves the pet store on a port of its own, and all share one file."""

from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from apigate.core.errors import ConfigurationError
from apigate.demo.frameworks import FRAMEWORKS, Framework
from apigate.demo.server import PATIENCE, served
from apigate.demo.settings import demo_gateway

__all__ = ["WORKERS", "working"]

WORKERS = 2


@contextmanager
def working(framework: Framework) -> Generator[list[int]]:
    """Have workers serve the store with the limits of `configuration("day")`, as long as the block runs; gives ports.

    Args:
        framework: What the store is written in.

    Raises:
        ConfigurationError: This system has no locks for files, or a worker does not start.
    """
    context = get_context("spawn")  # as servers with several workers start them
    with TemporaryDirectory(prefix="apigate-demo-") as folder:
        store = f"file://{Path(folder) / 'apigate.state'}"
        demo_gateway("day", store)  # fails here rather than in the workers
        lines = [context.Pipe() for _ in range(WORKERS)]
        workers = [context.Process(target=_work, args=(store, framework.option, line)) for _, line in lines]
        for worker in workers:
            worker.start()
        try:
            yield [_port(ours) for ours, _ in lines]
        finally:
            for ours, theirs in lines:
                ours.close()
                theirs.close()
            for worker in workers:
                worker.join()


def _port(line: Connection) -> int:
    if not line.poll(PATIENCE):
        raise ConfigurationError(f"demo: a worker did not start within {PATIENCE} s")
    port: int = line.recv()
    return port


def _work(store: str, option: str, line: Connection) -> None:
    """Serve until the other end of the line is closed."""
    framework = FRAMEWORKS[option]
    with served(framework.create_app(demo_gateway("day", store)), 0, framework.server) as port:
        line.send(port)
        try:
            line.recv()
        except EOFError:
            return
