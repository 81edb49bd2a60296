"""The machine's clocks; nothing else of apigate reads the time."""

import asyncio
import time

import pytest

from apigate.core.clock import SystemClock, pause


@pytest.fixture
def machine(monkeypatch):
    """What the clock asked the machine for."""
    asked = []
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1_999_999_999)
    monkeypatch.setattr(time, "time", lambda: 1_767_225_600.5)
    monkeypatch.setattr(time, "sleep", asked.append)

    async def sleep(seconds):
        asked.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return asked


def test_reads_and_waits_by_the_machine(machine):
    clock = SystemClock()
    assert clock.now_us() == 1_999_999
    assert clock.wall() == 1_767_225_600.5
    clock.sleep(0.25)
    asyncio.run(clock.sleep_async(0.5))
    assert machine == [0.25, 0.5]


def test_never_goes_back():
    clock = SystemClock()
    readings = [clock.now_us() for _ in range(1_000)]
    assert readings == sorted(readings)


def test_pauses_by_the_machine(machine):
    pause(0.000_05)
    assert machine == [0.000_05]
