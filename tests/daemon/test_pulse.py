import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.daemon import alive
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.pulse import Pulses
from kata_node_agent.daemon.sandboxes import SandboxWatch
from kata_node_agent.kubelet.registrar import Registrar


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_does_not_turn_in_time_is_stuck_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    pulses = Pulses(clock)
    node, sweep = pulses.pulse("node"), pulses.pulse("sweep")
    node.beat(10)
    sweep.beat(100)
    clock.now += 10
    assert pulses.check()
    clock.now += 1
    with caplog.at_level("INFO"):
        assert not pulses.check()
        assert not pulses.check()
        assert "no progress: node (for 11 s)" in str(pulses.problem)
        node.beat(10)
        assert pulses.check()
    assert str(pulses.problem) == "None"
    assert [record.message for record in caplog.records] == ["no progress", "all loops make progress again"]


def test_a_loop_that_has_not_begun_is_not_waited_for() -> None:
    clock = Clock()
    pulses = Pulses(clock)
    pulses.pulse("switched off")
    clock.now += 1e6
    assert pulses.all_beat


class Beats(list[float]):
    async def more_than(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self) <= count:
            assert time.monotonic() < deadline, f"{len(self)} beats"
            await asyncio.sleep(0.01)


def test_waiting_for_kubelet_is_progress(short_dir: Path) -> None:
    """Without its folder, with an empty folder, and with a socket that nobody answers on."""

    async def main() -> None:
        beats = Beats()
        folder = short_dir / "plugins"
        registrar = Registrar(
            folder,
            "example.com/x",
            lambda: pytest.fail("no kubelet, no service"),
            on_turn=lambda: beats.append(0),
        )
        task = asyncio.create_task(registrar.run())
        await beats.more_than(3)
        folder.mkdir()
        # A watch's longest wait is some seconds; a sign ends it.
        seen = len(beats)
        registrar.register_again("a sign")
        await beats.more_than(seen)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_look_that_does_not_come_back_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        beats = Beats()
        stuck = asyncio.Event()

        async def never(*_: Any) -> Any:
            stuck.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(alive, "in_thread", never)
        monkeypatch.setattr(alive, "LOOK_TIMEOUT_SECONDS", 0.05)
        watch = alive.NodeWatch(Config, History(), lambda: None, beats.append)
        task = asyncio.create_task(watch.run())
        watch.look_soon()
        await stuck.wait()
        await asyncio.sleep(0.2)
        assert len(beats) == 1, "it beats when it begins, and not again"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_sweeps_that_come_back_are_progress_also_with_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        beats = Beats()
        watch = SandboxWatch(tmp_path, lambda found, began: None, lambda: beats.append(0))
        task = asyncio.create_task(watch.run())
        # There is no /proc below this root, which is an error; the loop goes on.
        await beats.more_than(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
