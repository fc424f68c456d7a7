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
from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.daemon.node import NodeView, look, verdict_line
from kata_node_agent.daemon.steady import HOLD_SECONDS, Steady
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.errors import describe_os_error
from kata_node_agent.host import native
from kata_node_agent.host.root import HostRoot
from kata_node_agent.host.uevents import kernel_events
from kata_node_agent.host.watch import FolderWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.history import History
    from kata_node_agent.host.cpuid import Leaves

log = logging.getLogger(__name__)

# A look takes milliseconds; one that takes this long is stuck in the kernel.
LOOK_TIMEOUT_SECONDS = 30.0
# Hints come in bursts: a module brings a device node and several events.
_GATHER_SECONDS = 0.05
_DEV_POLL_SECONDS = 1.0
# After registration, which must not wait for the library of the events.
_EVENTS_AFTER_SECONDS = 1.0
_EVENTS_RETRY_SECONDS = 5.0


class NodeWatch:
    """Owns the view of the node in force.

    Args:
        config: gives the configuration in force.
        history: takes the changes of the verdict.
        on_view: called after each look.
        beat: called with each look that comes back; see `pulse.Pulse`.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        history: History,
        on_view: Callable[[], None],
        beat: Callable[[float], None] = lambda within_seconds: None,
    ) -> None:
        self._config = config
        self._history = history
        self._on_view = on_view
        self._beat = beat
        self._looking: asyncio.Task[NodeView] | None = None
        self._cpuid: dict[int, Leaves] = {}
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

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        self._beat(LOOK_TIMEOUT_SECONDS)
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
        if self._looking is None or self._looking.done():
            known = self.view.kubelet if self.view is not None else None
            self._looking = asyncio.create_task(in_thread(look, self._config(), known, self._read_cpuid))
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                # Shielded: one that is stuck is waited for again, never doubled.
                seen = await asyncio.shield(self._looking)
        except TimeoutError:
            log.error("the node's checks do not return", extra={"seconds": LOOK_TIMEOUT_SECONDS})
            return
        self.looked_at = time.monotonic()
        interval = self._config().eligibility.interval_seconds
        self._beat(interval + LOOK_TIMEOUT_SECONDS)
        self._take(seen)
        self._on_view()

    def _read_cpuid(self, cpu: int) -> Leaves:
        """CPUID of a CPU, read once: it does not change, and reading moves a thread there, also to an isolated CPU."""
        if cpu not in self._cpuid:
            self._cpuid[cpu] = native.read_cpuid(cpu)
        return self._cpuid[cpu]

    def _take(self, seen: NodeView) -> None:
        before = self.view
        if not self._steady.see(seen.verdict.verdict, self.looked_at) and before is not None:
            # All but the verdict, and what follows from it, counts at once.
            seen = replace(seen, verdict=before.verdict, features=before.features)
        self.view = seen
        if before is None or before.verdict.verdict != seen.verdict.verdict:
            self.verdict_since = time.time()
            line = verdict_line(seen.verdict)
            extra = {"verdict": line, "profile": seen.verdict.profile}
            if blocking := seen.verdict.blocking:
                log.warning("verdict", extra={**extra, "remedy": blocking[0].remedy})
            else:
                log.info("verdict", extra=extra)
            self._history.record("verdict", line)
        for problem in seen.problems:
            if before is None or problem not in before.problems:
                extra = {"reason": problem.reason, "what": problem.message, "remedy": problem.remedy}
                log.warning("problem", extra=extra)

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
                        if event.subsystem == "cpu":
                            # Microcode may be loaded when a CPU comes back.
                            self._cpuid.clear()
                        self.look_soon()
            except Exception as error:  # noqa: BLE001 - trouble of a library with an event is none of the agent's
                why = describe_os_error(error) if isinstance(error, OSError) else repr(error)
                log.info("no kernel events", extra={"why": why})
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
