"""Blocking work off the event loop, on threads that do not hold the process when it is told to end.

The executors of the standard library are joined at exit: a read that is stuck in the kernel would keep the agent from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    # What a thread is to do next; ``None`` to end.
    Calls = SimpleQueue[Callable[[], None] | None]

P = ParamSpec("P")
T = TypeVar("T")

# As many as usually work at a time: the others end when they are done.
_KEPT = 2
# Those that wait for work, each by what it takes it from. Its methods may be called on any thread.
_idle: deque[Calls] = deque()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls the function on a thread that does nothing else meanwhile, and gives what it returns or raises.

    When the caller is cancelled the thread goes on by itself, and what it gives is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    calls = _thread()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:  # noqa: BLE001 - the caller gets it
            error = caught
        # First, so that the caller's next call finds it.
        _keep(calls)
        # RuntimeError: the loop has ended meanwhile, and nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, error)

    calls.put(work)
    return await future


def _thread() -> Calls:
    """One that waits, or a new one. A stuck one never waits, so it is in nobody's way."""
    with contextlib.suppress(IndexError):
        return _idle.pop()
    calls: Calls = SimpleQueue()
    threading.Thread(target=_serve, args=(calls,), daemon=True, name="in_thread").start()
    return calls


def _keep(calls: Calls) -> None:
    if len(_idle) < _KEPT:
        _idle.append(calls)
    else:
        calls.put(None)


def _serve(calls: Calls) -> None:
    while (call := calls.get()) is not None:
        call()
        # What it has read must not stay until the next one.
        del call
