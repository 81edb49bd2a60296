"""Steps that are written once: at once where nothing waits, else as something to await that leaves nothing behind."""

import asyncio
import warnings

import pytest

from apigate.core.steps import run


async def later(value):
    await asyncio.sleep(0)
    return value


def sum_of(first, second):
    return (yield first) + (yield second)


def mended(log):
    try:
        yield later(1)
    except GeneratorExit:
        log.append("ended")
        raise
    except BaseException:
        log.append((yield later("put right")))
        raise


def test_what_need_not_wait_is_there_at_once():
    assert run(sum_of(1, 2)) == 3


def test_the_rest_is_awaited_from_the_first_that_has_to_wait_on():
    async def asked():
        return await run(sum_of(1, later(2)))

    assert asyncio.run(asked()) == 3


def test_whoever_cannot_wait_leaves_no_coroutine_behind():
    log = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(mended(log)).close()
    assert log == ["ended"]


def test_a_cancelled_caller_still_puts_things_right():
    log = []

    async def asked():
        task = asyncio.ensure_future(run(mended(log)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asked())
    assert log == ["put right"]


def test_a_coroutine_that_is_closed_midway_ends_its_steps_without_waiting():
    log = []

    async def asked():
        await run(mended(log))

    coroutine = asked()
    coroutine.send(None)
    coroutine.close()
    assert log == ["ended"]
