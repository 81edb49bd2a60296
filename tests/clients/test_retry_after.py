"""Clients that obey Retry-After: each call is served in the end, and none comes earlier than it was told."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx_retries
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tests.clients.wire import Wire

RETRIES = 5  # for three clients at one bucket, which gives one of them a token in each round
BURST_OF_BETA, BURST_OF_ALL = 8, 40


def ask_with_requests(url: str, calls: int) -> list[int]:
    retry = urllib3.Retry(total=RETRIES, status_forcelist=[429], respect_retry_after_header=True)
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        return [session.get(url, timeout=30).status_code for _ in range(calls)]


def ask_with_httpx(url: str, calls: int) -> list[int]:
    transport = httpx_retries.RetryTransport(retry=httpx_retries.Retry(total=RETRIES))
    with httpx.Client(transport=transport, headers={"User-Agent": "httpx"}) as client:
        return [client.get(url).status_code for _ in range(calls)]


def ask_with_async_httpx(url: str, calls: int) -> list[int]:
    async def ask() -> list[int]:
        transport = httpx_retries.RetryTransport(retry=httpx_retries.Retry(total=RETRIES))
        async with httpx.AsyncClient(transport=transport, headers={"User-Agent": "async-httpx"}) as client:
            return [(await client.get(url)).status_code for _ in range(calls)]

    return asyncio.run(ask())


CLIENTS = [ask_with_requests, ask_with_httpx, ask_with_async_httpx]


@pytest.mark.parametrize("ask", CLIENTS)
def test_client_alone_is_refused_once_and_served_when_it_comes_back(demo: Wire, ask: Callable[[str, int], list[int]]):
    calls = BURST_OF_BETA + 1
    assert ask(f"{demo.url}/beta/pets", calls) == [200] * calls
    while not demo.refusals:  # where the machine takes its time, tokens have come back meanwhile
        assert ask(f"{demo.url}/beta/pets", 1) == [200]
        calls += 1
    *served, refusal, _ = demo.exchanges
    assert [exchange.status for exchange in demo.exchanges] == [200] * (calls - 1) + [429, 200]
    assert BURST_OF_BETA <= len(served) <= BURST_OF_BETA + (refusal.left - served[0].came) / 2
    (gap,) = demo.gaps()
    assert 1 <= gap.told <= 2  # what is left of the two seconds that a token takes
    assert gap.waited >= gap.told


def test_clients_that_meet_at_one_bucket_are_all_served(demo: Wire):
    calls = BURST_OF_ALL
    assert ask_with_requests(f"{demo.url}/dev/pets", calls) == [200] * calls
    with ThreadPoolExecutor() as pool:
        while not demo.refusals:  # as above
            meeting = [pool.submit(ask, f"{demo.url}/dev/pets", 1) for ask in CLIENTS]
            assert [call.result() for call in meeting] == [[200]] * len(CLIENTS)
            calls += len(CLIENTS)
    gaps = demo.gaps()
    assert len(gaps) == len(demo.refusals) >= 1  # each refused one came back
    assert all(gap.waited >= gap.told == 1 for gap in gaps)
    assert len(demo.exchanges) == calls + len(gaps)
