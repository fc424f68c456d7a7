"""Which VMs run, as the daemon follows them: the last sweep, and each new one as it is made."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import threading
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

# A sweep takes milliseconds; one that takes so long is stuck in the kernel, and what is shown is old.
_STUCK_SECONDS = 30.0
# To read the cost of one large VM takes tens of milliseconds: after a start sizes are known first.
_COST_SECONDS = 0.25
_AGAIN_SECONDS = 1.0
# Enough for a thousand VMs.
_DESCRIPTORS = 8192

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
        sees_all: whether there was no process then that may belong to a VM and may not be looked into.
        follows: whether anything is followed at all.
    """

    def __init__(
        self,
        host_root: Path,
        on_sweep: Callable[[tuple[Sandbox, ...], float], None],
        beat: Callable[[], None] = lambda: None,
        *,
        follows: bool = True,
    ) -> None:
        """Reads nothing yet.

        Args:
            host_root: of the host.
            on_sweep: called on the event loop with what runs, and when the sweep began (`time.monotonic`).
            beat: called with each look at the VMs that comes back, be it with an error; see `pulse.Pulse`.
            follows: without, nothing is ever read nor told.
        """
        self.follows = follows
        self._beat = beat
        self._news = asyncio.Event()
        self._root = HostRoot(host_root)
        self._on_sweep = on_sweep
        self._watcher: Watcher | None = None
        # A sweep whose caller gave up goes on by itself; the next one waits for its end.
        self._one_at_a_time = threading.Lock()
        self._began = self._told_began = 0.0
        self._sweeping = False
        self.sandboxes: tuple[Sandbox, ...] = ()
        self.unbelieved: tuple[Unbelieved, ...] = ()
        self.blind: tuple[HostError, ...] = ()
        self.sees_all = True
        self._problem: Problem | None = None if follows else _NOT_FOLLOWED

    @property
    def problems(self) -> list[Problem]:
        """What is to be said of the looks at the VMs."""
        missing = [Problem(error.reason, error.message, error.hint) for error in self.blind]
        return [self.problem, *missing] if self.problem is not None else missing

    @property
    def problem(self) -> Problem | None:
        """Why there is no good sweep now; ``None`` while there is."""
        if self._problem is None and self._sweeping and time.monotonic() - self._began > _STUCK_SECONDS:
            seconds = round(time.monotonic() - self._began)
            return Problem(
                "SandboxesStuck",
                f"a look at the VMs has not returned for {seconds} s: what is shown of them is old",
                "see the kernel's log for tasks that are blocked",
            )
        return self._problem

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

    async def look_again(self) -> None:
        """One for who should not decide by what was seen a moment ago; whoever waits for it does so for a second at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_SECONDS):
                await self.look()

    async def run(self) -> None:
        """Follows until cancelled: a VM that comes, grows or goes is told within a second."""
        if not self.follows:
            return
        from kata_node_agent.sandboxes.follow import follow

        _make_room_for_descriptors()
        self._beat()
        async for _ in follow(self._ours(), self._root, run=self._call):
            # Each sweep has been told already, and one that failed is no sweep that found nothing.
            pass

    def _ours(self) -> Watcher:
        if self._watcher is None:
            from kata_node_agent.sandboxes.watcher import Watcher

            self._watcher = Watcher(self._root, cost_seconds=_COST_SECONDS)
        return self._watcher

    def _take_blind(self) -> None:
        self.sees_all, saw_all = self._ours().sees_all, self.sees_all
        self.blind = self._ours().blind
        if saw_all and not self.sees_all:
            log.warning(
                "sandboxes not read", extra={"why": self.blind[0].message, "remedy": self.blind[0].hint}
            )

    async def _call(self, function: Callable[[], T]) -> T:
        """Calls the watcher off the event loop, and tells of its sweeps."""
        is_sweep = function == self._ours().sweep
        is_told = is_sweep or function == self._ours().resize

        def alone() -> T:
            with self._one_at_a_time:
                return function()

        began = time.monotonic()
        if is_sweep:
            self._began, self._sweeping = began, True
        try:
            result = await in_thread(alone)
        except HostError as error:
            self._beat()
            if is_sweep:
                self._sweeping = False
                self._problem = Problem("SandboxesUnreadable", error.message, error.hint)
            raise
        self._beat()
        if is_sweep:
            # By now another one may have begun.
            self._told_began, self._sweeping, self._problem = began, False, None
            self._take_blind()
        if is_told:
            # Other sizes are those of the VMs of the sweep before: no more is known to have ended than then.
            before = self.sandboxes, self.unbelieved
            self.sandboxes, self.unbelieved = self._ours().sandboxes, self._ours().unbelieved
            if before != (self.sandboxes, self.unbelieved):
                # Who waits has the event before this one.
                self._news.set()
                self._news = asyncio.Event()
            self._on_sweep(self.sandboxes, self._told_began)
        return result


def _make_room_for_descriptors() -> None:
    """Each VM has two: one that tells of its end, one that tells its size. systemd gives 1,024 to those that do not ask."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
