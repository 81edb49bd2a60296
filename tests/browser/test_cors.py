"""A refusal reaches a page of another origin, in a real browser: headless Chromium and a page that really is elsewhere.

Chromium is looked for on the path, or named by the variable CHROMIUM.
"""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from apigate.demo.server import served
from tests.browser.apis import all_of_them

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"])), None
)
DEADLINE = 60.0
SERVERS = {"asgi": "uvicorn", "wsgi": "waitress"}
READABLE = [
    "flask-cors",
    "flask by hand",
    "fastapi, gate outside",
    "fastapi, gate inside",
    "fastapi, gate around",
    "django",
    "django async",
    "asgi with CORS",
    "wsgi with CORS",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the path: install it (Debian: apt-get install chromium) or set CHROMIUM"
)


class Site(ThreadingHTTPServer):
    """The other origin: its page, which APIs to ask, and what the page could read."""

    apis: dict[str, str]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        found = {
            "/": ("text/html; charset=utf-8", Path(__file__).with_name("page.html").read_bytes()),
            "/apis": ("application/json", json.dumps(self.server.apis).encode() if self.path == "/apis" else b""),
        }.get(self.path)
        self.send_response(404 if found is None else 200)
        if found is not None:
            self.send_header("Content-Type", found[0])
        self.end_headers()
        self.wfile.write(b"" if found is None else found[1])

    def do_POST(self) -> None:
        self.server.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def browsing(url: str) -> Iterator[None]:
    """A browser with this page open."""
    switches = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        switches.append("--no-sandbox")  # it refuses to start as root otherwise
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [str(CHROMIUM), *switches, f"--user-data-dir={profile}", "--remote-debugging-port=0", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            browser.terminate()
            browser.wait(DEADLINE)


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What the page could read of each API's three responses."""
    with ExitStack() as stack:
        site = stack.enter_context(Site())
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(site.shutdown)
        apis = stack.enter_context(all_of_them(site.origin))
        site.apis = {
            name: f"http://127.0.0.1:{stack.enter_context(served(api.app, 0, SERVERS[api.protocol]))}"
            for name, api in apis.items()
        }
        stack.enter_context(browsing(site.origin))
        yield site.reports.get(timeout=DEADLINE)


@pytest.mark.parametrize("name", READABLE)
def test_a_page_of_another_origin_reads_the_refusal(seen, name):
    first, second, third = seen[name]
    assert [first["body"], second["body"]] == ["served", "served"]  # the preflights took nothing from the client
    assert third["status"] == 429
    assert 0 < int(third["retry"]) <= 3_600
    assert third["rest"].startswith('"client";r=0')
    assert json.loads(third["body"])["violated-policies"] == ["client"]


@pytest.mark.parametrize("name", ["asgi without", "wsgi, another origin"])
def test_without_the_fields_the_page_sees_a_network_error(seen, name):
    assert [each.get("status") for each in seen[name]] == [200, 200, None]
    assert seen[name][2] == {"error": "TypeError"}
