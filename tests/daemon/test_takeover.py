"""Another plugin takes our resource and leaves, with our stream open all the time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.config.schema import Config, KubeletConfig
from kata_node_agent.daemon import pods as module
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.pods import PodWatch
from kata_node_agent.devkubelet.kubelet import DevKubelet, Timing
from kata_node_agent.kubelet import takeover
from tests.devkubelet.support import TinyPlugin
from tests.kubelet.support import Plugin, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

THEIRS = ("rival-0", "rival-1", "rival-2")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "_INTERVAL_SECONDS": 0.05,
        "_SECOND_LOOK_SECONDS": 0.05,
        "_TAKE_BACK_FIRST_SECONDS": 0.4,
        "_TAKE_BACK_LAST_SECONDS": 0.8,
    }.items():
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(takeover, "SETTLING_SECONDS", 0.1)


@contextlib.asynccontextmanager
async def watching(folder: Path, kubelet: DevKubelet) -> AsyncIterator[tuple[Plugin, PodWatch, History]]:
    """Our plugin with four devices, registered, and who asks kubelet about it."""
    config = Config(kubelet=KubeletConfig(pod_resources_socket=kubelet.pod_resources_socket))
    history = History()
    async with Plugin(folder / "dp").running() as ours:
        watch = PodWatch(lambda: config, ours.table, ours.holdings, ours.registrar, history, lambda: None)
        await kubelet.wait_for_devices(4)
        task = asyncio.create_task(watch.run())
        try:
            yield ours, watch, history
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("minor", [36, 37])
def test_our_devices_are_back_while_the_other_plugin_is_there_and_after_it_has_left(
    short_dir: Path, minor: int
) -> None:
    async def main() -> None:
        async with (
            DevKubelet(short_dir / "dp", minor=minor) as kubelet,
            watching(short_dir, kubelet) as (ours, watch, history),
        ):
            pod = await kubelet.admit("default", "stays", {"main": 1})
            async with TinyPlugin(short_dir / "dp", "rival.sock", device_ids=THEIRS):
                await kubelet.wait_for_devices(3)
                await kubelet.wait_for_devices(4)
                assert "another plugin" in history.changes[-1].message
            await until(lambda: "rival.sock" not in kubelet.endpoints())
            await until(lambda: ours.registrar.stream_open and kubelet.counts().allocatable == 4)
            await until(lambda: watch.problem is None)
            assert (await kubelet.admit("default", "new", {"main": 1})).phase == "Running"
            assert kubelet.pods()[0] == pod
            assert history.counts["takeover"] in {1, 2}

    asyncio.run(main())


@pytest.mark.parametrize("minor", [36, 37])
def test_our_devices_are_back_when_the_other_plugin_leaves_before_it_is_seen(
    short_dir: Path, minor: int
) -> None:
    async def main() -> None:
        async with (
            DevKubelet(short_dir / "dp", minor=minor) as kubelet,
            watching(short_dir, kubelet) as (ours, _, history),
        ):
            async with TinyPlugin(short_dir / "dp", "rival.sock", device_ids=THEIRS):
                await kubelet.wait_for_devices(3)
            await kubelet.wait_for_devices(4)
            await until(lambda: ours.registrar.stream_open)
            assert history.counts == {"takeover": 1}

    asyncio.run(main())


def test_two_that_want_the_resource_do_not_take_it_from_each_other_all_the_time(short_dir: Path) -> None:
    async def main() -> None:
        async with (
            DevKubelet(short_dir / "dp") as kubelet,
            watching(short_dir, kubelet) as (_, watch, history),
            TinyPlugin(short_dir / "dp", "rival.sock", device_ids=THEIRS) as rival,
        ):
            loop = asyncio.get_running_loop()
            began = loop.time()
            reasons: set[str] = set()
            while loop.time() - began < 3:
                # It says its list at once whenever it has lost.
                if kubelet.counts().allocatable != len(THEIRS):
                    await rival.change()
                if watch.problem is not None:
                    reasons.add(watch.problem.reason)
                await asyncio.sleep(0.02)
            assert reasons == {"ResourceTaken"}
            assert 2 <= history.counts["takeover"] <= 10

    asyncio.run(main())


def test_kubelets_restart_is_no_takeover(short_dir: Path) -> None:
    async def main() -> None:
        timing = Timing(pod_resources_empty_seconds=0.2)
        async with (
            DevKubelet(short_dir / "dp", timing=timing) as kubelet,
            watching(short_dir, kubelet) as (ours, _, history),
        ):
            for count in range(5):
                await kubelet.restart(0.1)
                await kubelet.wait_for_registrations(count + 2)
                await kubelet.wait_for_devices(4)
                ours.show(3)
                await kubelet.wait_for_devices(3)
                ours.show(4)
                await asyncio.sleep(0.3)
            assert history.counts == {}

    asyncio.run(main())


def test_without_pod_resources_nothing_is_doubted(short_dir: Path) -> None:
    async def main() -> None:
        async with (
            DevKubelet(short_dir / "dp") as kubelet,
            watching(short_dir, kubelet) as (_, watch, history),
            TinyPlugin(short_dir / "dp", "rival.sock", device_ids=THEIRS),
        ):
            kubelet.pod_resources_socket.unlink()
            await kubelet.wait_for_devices(3)
            await asyncio.sleep(0.5)
            assert (history.counts, watch.problem) == ({}, None)

    asyncio.run(main())
