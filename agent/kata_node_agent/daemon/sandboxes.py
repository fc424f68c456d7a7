"""Which VMs run, as the daemon follows them: the last sweep, and each new one as it is made."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.errors import HostError
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kata_node_agent.sandboxes.model import Sandbox, Unbelieved
    from kata_node_agent.sandboxes.watcher import Watcher

T = TypeVar("T")
log = logging.getLogger(__name__)

_NOT_FOLLOWED = Problem(
    "SandboxesNotFollowed",
    "sandbox.follow is false: VMs that nobody announced are not counted",
    "set sandbox.follow = true and restart the agent",
)


class SandboxWatch:
    """Sweeps, and tells of each sweep.

    Attributes:
        sandboxes: what the last good sweep found.
        unbelieved: who claimed to belong to one then, without evidence.
        follows: whether anything is followed at all.
        problem: why there is none now; ``None`` while there is.
    """

    def __init__(
        self,
        host_root: Path,
        on_sweep: Callable[[tuple[Sandbox, ...], float], None],
        *,
        follows: bool = True,
    ) -> None:
        """Reads nothing yet.

        Args:
            host_root: of the host.
            on_sweep: called on the event loop with what runs, and when the sweep began (`time.monotonic`).
            follows: without, nothing is ever read nor told.
        """
        self.follows = follows
        self._news = asyncio.Event()
        self._root = HostRoot(host_root)
        self._on_sweep = on_sweep
        self._watcher: Watcher | None = None
        self._began = 0.0
        self.sandboxes: tuple[Sandbox, ...] = ()
        self.unbelieved: tuple[Unbelieved, ...] = ()
        self.problem: Problem | None = None if follows else _NOT_FOLLOWED

    async def changes(self) -> AsyncIterator[None]:
        """Goes on at once, and after each sweep that found something new."""
        while True:
            news = self._news
            yield
            await news.wait()

    async def look(self) -> None:
        """One sweep, now."""
        if not self.follows:
            return
        try:
            await self._call(self._ours().sweep)
        except HostError as error:
            log.warning("sandboxes not read", extra={"why": error.message})

    async def run(self) -> None:
        """Follows until cancelled: a VM that comes, grows or goes is told within a second."""
        if not self.follows:
            return
        from kata_node_agent.sandboxes.follow import follow

        async for _ in follow(self._ours(), self._root, run=self._call):
            # Each sweep has been told already, and one that failed is no sweep that found nothing.
            pass

    def _ours(self) -> Watcher:
        if self._watcher is None:
            from kata_node_agent.sandboxes.watcher import Watcher

            self._watcher = Watcher(self._root)
        return self._watcher

    async def _call(self, function: Callable[[], T]) -> T:
        """Calls the watcher off the event loop, and tells of its sweeps."""
        is_sweep = function == self._ours().sweep
        if is_sweep:
            self._began = time.monotonic()
        try:
            result = await in_thread(function)
        except HostError as error:
            if is_sweep:
                self.problem = Problem("SandboxesUnreadable", error.message, error.hint)
            raise
        if is_sweep:
            self.problem = None
            before = self.sandboxes, self.unbelieved
            self.sandboxes, self.unbelieved = self._ours().sandboxes, self._ours().unbelieved
            if before != (self.sandboxes, self.unbelieved):
                # Who waits has the event before this one.
                self._news.set()
                self._news = asyncio.Event()
            self._on_sweep(self.sandboxes, self._began)
        return result
