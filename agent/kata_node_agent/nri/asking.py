"""Asking the account within a part of the time that the runtime waits, whatever becomes of the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kata_node_agent.nri.connection import Call

log = logging.getLogger(__name__)

T = TypeVar("T")

# The account's part: enough for a slow disk, far from what makes the runtime drop us.
_SHARE = 0.25
# Questions that were not answered in time and still may be. With so many nothing more is asked.
_MAX_OUTSTANDING = 16


class Asking:
    """Questions under way. One whose time is over is heard to its end all the same: the account has to know of it."""

    def __init__(self) -> None:
        self._outstanding: set[asyncio.Task[Any]] = set()

    async def within(
        self, call: Call, timeout_seconds: float, ask: Callable[[], Coroutine[Any, Any, T]]
    ) -> T | None:
        """The answer; ``None`` when it takes too long, fails, or too many others take too long.

        Args:
            call: on whose behalf; it may have a shorter time limit of its own.
            timeout_seconds: how long the runtime waits.
            ask: asks.
        """
        if len(self._outstanding) >= _MAX_OUTSTANDING:
            return None
        if call.deadline is not None:
            timeout_seconds = min(timeout_seconds, call.deadline - call.arrived)
        task = asyncio.create_task(ask())
        self._outstanding.add(task)
        task.add_done_callback(self._heard)
        try:
            async with asyncio.timeout(call.arrived + timeout_seconds * _SHARE - time.monotonic()):
                return await asyncio.shield(task)
        except Exception:  # noqa: BLE001 - too late, or a fault of the account's, which `_heard` tells
            # We ourselves may have been kept waiting: an answer that is there counts.
            return task.result() if task.done() and not task.cancelled() and not task.exception() else None

    def _heard(self, task: asyncio.Task[Any]) -> None:
        self._outstanding.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the account failed", exc_info=error)

    async def close(self) -> None:
        """Drops what was not answered."""
        for task in self._outstanding:
            task.cancel()
        await asyncio.gather(*self._outstanding, return_exceptions=True)
