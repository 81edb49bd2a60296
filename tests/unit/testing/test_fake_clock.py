"""The clock that is given to users' tests."""

import asyncio
import threading

import pytest

from apigate.core.clock import Clock
from apigate.testing import FakeClock


def readings(clock: Clock) -> tuple[int, float]:
    return clock.now_us(), clock.wall()


def test_starts_at_a_fixed_time_and_stands_still():
    clock = FakeClock()
    assert readings(clock) == readings(clock) == readings(FakeClock())
    assert clock.wall() == 1_767_225_600.0  # 2026-01-01T00:00:00Z


def test_the_two_readings_differ_so_that_mixing_them_up_shows():
    clock = FakeClock()
    assert abs(clock.now_us() / 1_000_000 - clock.wall()) > 10**9


@pytest.mark.parametrize("seconds", [0, 0.000001, 0.1, 1, 59.999999, 86_400, 10**9])
def test_advances_to_the_microsecond(seconds):
    clock = FakeClock()
    now, wall = readings(clock)
    clock.advance(seconds)
    assert clock.now_us() - now == round(seconds * 1_000_000)
    assert clock.wall() == pytest.approx(wall + seconds, abs=0.000001)


def test_small_steps_add_up_exactly():
    clock = FakeClock()
    now = clock.now_us()
    for _ in range(10_000):
        clock.advance(0.1)
    assert clock.now_us() - now == 1_000_000_000


def test_time_does_not_run_backwards_but_a_clock_can_be_set():
    clock = FakeClock()
    now, wall = readings(clock)
    with pytest.raises(ValueError, match="see step"):
        clock.advance(-1)
    assert readings(clock) == (now, wall)
    clock.step(-3_600)
    assert readings(clock) == (now - 3_600_000_000, wall - 3_600)
    clock.step(7_200)
    assert readings(clock) == (now + 3_600_000_000, wall + 3_600)


def test_whoever_waits_has_moved_it():
    clock = FakeClock()
    now = clock.now_us()
    clock.sleep(1.5)
    asyncio.run(clock.sleep_async(2.5))
    assert clock.now_us() - now == 4_000_000
    assert repr(clock) == "<FakeClock +4.000000 s>"


def test_threads_may_share_it():
    clock = FakeClock()
    now = clock.now_us()
    threads = [threading.Thread(target=lambda: [clock.advance(0.001) for _ in range(1_000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now_us() - now == 8_000_000


def test_the_kit_needs_no_pytest_but_for_its_plugin():
    import subprocess
    import sys

    script = "import apigate.testing, sys; print('pytest' in sys.modules, 'asyncio' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == ["False", "False"]
