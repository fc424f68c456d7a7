"""The daemon's looks at the VMs: one at a time, and one that does not come back is said."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.daemon import sandboxes
from kata_node_agent.daemon.sandboxes import SandboxWatch
from kata_node_agent.sandboxes.watcher import Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.sandboxes.model import Sandbox


class SlowSweep:
    """In place of the watcher's own: waits until it is let go, and counts who is in it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = self.most = self.calls = 0

    def sweep(self) -> tuple[Sandbox, ...]:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.go.wait(20)
        self.inside -= 1
        return ()


def reason(watch: SandboxWatch) -> str:
    return watch.problem.reason if watch.problem else ""


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> SlowSweep:
    slow = SlowSweep()
    monkeypatch.setattr(Watcher, "sweep", lambda _: slow.sweep())
    return slow


def test_a_look_that_nobody_waits_for_any_more_is_not_joined_by_another(
    tmp_path: Path, sweep: SlowSweep
) -> None:
    async def scenario() -> None:
        watch = SandboxWatch(tmp_path, lambda found, began: None)
        first = asyncio.create_task(watch.look())
        while not sweep.inside:
            await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.create_task(watch.look())
        # Long enough for the second to be in there, too, if it were let.
        await asyncio.sleep(0.1)
        assert sweep.most == 1
        sweep.go.set()
        await second
        assert sweep.calls == 2
        assert sweep.most == 1

    asyncio.run(scenario())


def test_a_look_that_does_not_come_back_is_a_problem_until_it_does(
    tmp_path: Path, sweep: SlowSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        watch = SandboxWatch(tmp_path, lambda found, began: None)
        look = asyncio.create_task(watch.look())
        while not sweep.inside:
            await asyncio.sleep(0.01)
        assert reason(watch) == ""
        monkeypatch.setattr(sandboxes, "_STUCK_SECONDS", 0.0)
        assert reason(watch) == "SandboxesStuck"
        sweep.go.set()
        await look
        assert reason(watch) == ""

    asyncio.run(scenario())


def test_each_look_is_told_with_its_own_beginning(tmp_path: Path, sweep: SlowSweep) -> None:
    """What was released since then is not judged by it: its VM may have come after that look had passed by."""

    async def scenario() -> None:
        told: list[float] = []
        watch = SandboxWatch(tmp_path, lambda found, began: told.append(began))
        first = asyncio.create_task(watch.look())
        while not sweep.inside:
            await asyncio.sleep(0.01)
        between = time.monotonic()
        second = asyncio.create_task(watch.look())
        await asyncio.sleep(0)
        sweep.go.set()
        await asyncio.gather(first, second)
        assert told[0] <= between <= told[1]

    asyncio.run(scenario())
