"""Blocking work off the loop."""

import asyncio
import contextlib
import threading

import pytest

from kata_node_agent.daemon import threads
from kata_node_agent.daemon.threads import in_thread


@pytest.fixture(autouse=True)
def _none_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just started."""
    while threads._idle:
        threads._idle.pop().put(None)


def test_one_call_after_the_other_is_made_on_the_same_thread() -> None:
    async def main() -> set[int]:
        return {await in_thread(threading.get_ident) for _ in range(20)}

    seen = asyncio.run(main())
    assert len(seen) == 1
    assert seen != {threading.get_ident()}


def test_calls_at_the_same_time_do_not_wait_for_each_other() -> None:
    together = threading.Barrier(5, timeout=10)

    async def main() -> None:
        await asyncio.gather(*(in_thread(together.wait) for _ in range(5)))
        await asyncio.gather(*(in_thread(together.wait) for _ in range(5)))

    asyncio.run(main())
    assert len(threads._idle) <= 2


def test_what_is_raised_is_raised_at_the_caller_and_the_thread_goes_on() -> None:
    def fail() -> None:
        raise ValueError("so")

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="so"):
                await in_thread(fail)
        assert await in_thread(lambda text: text + "!", "well") == "well!"

    asyncio.run(main())


def test_a_call_that_is_stuck_is_in_nobodys_way() -> None:
    leave = threading.Event()

    async def main() -> None:
        stuck = asyncio.create_task(in_thread(leave.wait, 30))
        await asyncio.sleep(0)
        assert await in_thread(lambda: 7) == 7
        stuck.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stuck
        assert await in_thread(lambda: 8) == 8
        leave.set()

    asyncio.run(main())


def test_nothing_of_a_call_stays_when_it_is_over() -> None:
    import gc
    import weakref

    class Big:
        pass

    async def main() -> None:
        big = await in_thread(Big)
        gone = weakref.ref(big)
        del big
        for _ in range(100):
            gc.collect()
            if gone() is None:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the thread holds what it has read")

    asyncio.run(main())
