"""Keeps the view of the node true: looks at the start, on every hint, and every minute.

Hints are kernel events, changes in /dev (a device node made by hand sends no event) and a reload. They say "look", never what
is the case; a hint that is lost is made up for by the next minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.daemon.node import NodeView, look, verdict_line
from kata_node_agent.daemon.steady import HOLD_SECONDS, Steady
from kata_node_agent.errors import describe_os_error
from kata_node_agent.host.root import HostRoot
from kata_node_agent.host.uevents import kernel_events
from kata_node_agent.host.watch import FolderWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.history import History

log = logging.getLogger(__name__)

# A look takes milliseconds; one that takes this long is stuck in the kernel.
LOOK_TIMEOUT_SECONDS = 30.0
# Hints come in bursts: a module brings a device node and several events.
_GATHER_SECONDS = 0.05
_DEV_POLL_SECONDS = 1.0
# After registration, which must not wait for the library of the events.
_EVENTS_AFTER_SECONDS = 1.0
_EVENTS_RETRY_SECONDS = 60.0


class NodeWatch:
    """Owns the view of the node in force.

    Args:
        config: gives the configuration in force.
        history: takes the changes of the verdict.
        on_view: called after each look.
    """

    def __init__(self, config: Callable[[], Config], history: History, on_view: Callable[[], None]) -> None:
        self._config = config
        self._history = history
        self._on_view = on_view
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="look")
        self._steady = Steady()
        self._hint = asyncio.Event()
        self.view: NodeView | None = None
        self.looked_at = float("-inf")
        self.verdict_since = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the last look is not older than it should be."""
        return (
            time.monotonic() - self.looked_at
            < self._config().eligibility.interval_seconds + LOOK_TIMEOUT_SECONDS
        )

    def look_soon(self) -> None:
        """A hint."""
        self._hint.set()

    def close(self) -> None:
        """Lets go of the thread; one that is stuck in the kernel ends with the process."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            interval = (
                HOLD_SECONDS / 2 if self._steady.waiting else self._config().eligibility.interval_seconds
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._hint.wait()
                    await asyncio.sleep(_GATHER_SECONDS)
            self._hint.clear()
            await self.look()

    async def look(self) -> None:
        """One look, off the event loop. What a look that is stuck knew before stays; `fresh` tells that it is old."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                seen = await loop.run_in_executor(self._executor, look, self._config())
        except TimeoutError:
            log.error("the node's checks do not return", extra={"seconds": LOOK_TIMEOUT_SECONDS})
            return
        self.looked_at = time.monotonic()
        self._take(seen)
        self._on_view()

    def _take(self, seen: NodeView) -> None:
        before = self.view
        if not self._steady.see(seen.verdict.verdict, self.looked_at) and before is not None:
            # All but the verdict, and what follows from it, counts at once.
            seen = replace(seen, verdict=before.verdict, features=before.features)
        self.view = seen
        if before is None or before.verdict.verdict != seen.verdict.verdict:
            self.verdict_since = time.time()
            line = verdict_line(seen.verdict)
            log.info("verdict", extra={"verdict": line, "profile": seen.verdict.profile})
            self._history.record("verdict", line)
        for problem in seen.problems:
            if before is None or problem not in before.problems:
                log.warning(problem.message, extra={"reason": problem.reason, "remedy": problem.remedy})

    async def watch_devices(self) -> None:
        """Hints when /dev/kvm appears, goes, or becomes another one."""
        root = HostRoot(self._config().host_root)
        watch = FolderWatch(root.resolve("/dev"), poll_seconds=_DEV_POLL_SECONDS)
        try:
            known = _identity(root)
            while True:
                await watch.wait()
                if (now := _identity(root)) != known:
                    known = now
                    self.look_soon()
        finally:
            watch.close()

    async def watch_kernel(self) -> None:
        """Hints on kernel events that concern us; without them the other ways remain."""
        if not self._config().events.kernel:
            return
        await asyncio.sleep(_EVENTS_AFTER_SECONDS)
        while True:
            try:
                async for event in kernel_events():
                    if event.concerns_us:
                        log.debug(
                            "kernel event",
                            extra={"action": event.action, "of": f"{event.subsystem}/{event.name}"},
                        )
                        self.look_soon()
            except OSError as error:
                log.info("no kernel events", extra={"why": describe_os_error(error)})
            # What was missed meanwhile is not told.
            self.look_soon()
            await asyncio.sleep(_EVENTS_RETRY_SECONDS)


def _identity(root: HostRoot) -> tuple[int, ...] | None:
    """What tells a device node from another: number, mode, owner, and when it was last changed."""
    try:
        status = os.stat(root.resolve("/dev/kvm"))
    except OSError:
        return None
    return status.st_ino, status.st_rdev, status.st_mode, status.st_uid, status.st_gid, status.st_ctime_ns
