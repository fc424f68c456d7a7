"""Says what runs at each change: a sandbox that comes, grows or goes is told within a second.

What may tell of a change: folders of Kata's and of guest RAM (inotify), the end of a VMM (pidfd), and twice a second a
glance, which is enough without the other two. None of them says what has changed: a sweep does, and one is made now and
then in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from kata_node_agent.errors import HostError
from kata_node_agent.host.watch import FolderWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.sandboxes.model import Sandbox
    from kata_node_agent.sandboxes.watcher import Watcher

T = TypeVar("T")
log = logging.getLogger(__name__)

GLANCE_SECONDS = 0.5
SWEEP_SECONDS = 10.0
# To list all processes costs more than to look at the VMs that are known. On a node without any, folders tell of the first.
_LIST_SECONDS = 2.0
_LIST_NONE_SECONDS = 5.0
_BOOT_SECONDS = 3.0
# Files appear in /dev/shm in bursts, and not only Kata's.
_MIN_PAUSE_SECONDS = 0.02
_FOLDERS = ("/run/vc/sbs", "/run/kata", "/dev/shm")  # noqa: S108 - the host's, looked at only
# A folder that is not there yet is looked for so often.
_POLL_SECONDS = 2.0


class Run(Protocol):
    """Calls a blocking function off the event loop."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """What the function gives or raises."""


async def follow(
    watcher: Watcher,
    root: HostRoot,
    *,
    run: Run = asyncio.to_thread,
    glance_seconds: float = GLANCE_SECONDS,
    sweep_seconds: float = SWEEP_SECONDS,
) -> AsyncIterator[tuple[Sandbox, ...]]:
    """What runs now, and again at each change, until it is closed. What it cannot read is logged once, and tried again.

    Args:
        watcher: is called by this alone.
        root: of the host.
        run: calls the watcher; on the loop's own threads unless given.
        glance_seconds: how often to look whether something has changed.
        sweep_seconds: after so long the truth is read in any case.
    """
    hint = asyncio.Event()
    loop = asyncio.get_running_loop()
    told: tuple[Sandbox, ...] | None = None
    hinted = float("-inf")
    complained = ""
    folders = [root.resolve(folder) for folder in _FOLDERS]
    watches = [FolderWatch(folder, poll_seconds=_POLL_SECONDS) for folder in folders]
    tasks = [
        asyncio.create_task(_pass_on(watch, folder, hint))
        for watch, folder in zip(watches, folders, strict=True)
    ]
    ends = _Ends(root, hint)
    try:
        while True:
            try:
                found = await run(watcher.sweep)
                complained = ""
            except HostError as error:
                if complained != error.message:
                    log.warning("sandboxes not read", extra={"why": error.message})
                # What ran runs on, as far as we know: nobody shall take it for gone.
                complained, found = error.message, told or ()
            ends.follow(found)
            if found != told:
                told = found
                yield found
            swept = listed = loop.time()
            while (left := swept + sweep_seconds - loop.time()) > 0:
                await asyncio.sleep(_MIN_PAUSE_SECONDS)
                # A sandbox begins with a folder, and its VMM comes soon after.
                alert = watcher.follows_any or loop.time() - hinted < _BOOT_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, glance_seconds if alert else _LIST_NONE_SECONDS)):
                        await hint.wait()
                now = loop.time()
                if hint.is_set():
                    hint.clear()
                    hinted = now
                everything = now - hinted < _BOOT_SECONDS or now - listed >= _LIST_SECONDS
                if everything:
                    listed = now
                if ends.any_ended:
                    break
                if not await run(partial(watcher.glance, processes=everything)):
                    continue
                if not watcher.only_sizes:
                    break
                # What a VM has plugged is told at once: a sweep of many takes longer, most of all on a busy node.
                found = await run(watcher.resize)
                if found != told:
                    told = found
                    yield found
    finally:
        ends.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watch in watches:
            watch.close()


async def _pass_on(watch: FolderWatch, folder: Path, hint: asyncio.Event) -> None:
    before = _state(folder)
    while True:
        await watch.wait()
        # A watch also ends its wait when nothing has happened for a while.
        if (now := _state(folder)) != before:
            before = now
            hint.set()


def _state(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


class _Ends:
    """The VMMs' ends, as pidfds tell them: each is a descriptor that becomes readable."""

    def __init__(self, root: HostRoot, hint: asyncio.Event) -> None:
        # Another tree's numbers are not those of processes here.
        self._here = os.path.realpath(root.path) == "/"
        self._hint = hint
        self._descriptors: dict[tuple[int, int], int] = {}
        self.any_ended = False

    def follow(self, sandboxes: Iterable[Sandbox]) -> None:
        """Listens to these, and to no others any more."""
        self.any_ended = False
        wanted = {(sandbox.pid, sandbox.started) for sandbox in sandboxes} if self._here else set()
        for key in self._descriptors.keys() - wanted:
            self._forget(key)
        # The rest of the agent needs descriptors, too; a glance sees the end of those left over.
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - len(self._descriptors)
        for key in sorted(wanted - self._descriptors.keys())[: max(0, room)]:
            try:
                descriptor = os.pidfd_open(key[0])
            except OSError:
                # It has ended already, or this kernel has none: a glance will tell.
                continue
            self._descriptors[key] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._ended, key)

    def close(self) -> None:
        """Gives all descriptors back."""
        for key in list(self._descriptors):
            self._forget(key)

    def _ended(self, key: tuple[int, int]) -> None:
        self.any_ended = True
        self._forget(key)
        self._hint.set()

    def _forget(self, key: tuple[int, int]) -> None:
        descriptor = self._descriptors.pop(key)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
