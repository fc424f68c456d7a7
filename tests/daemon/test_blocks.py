"""A block of memory that goes on- or offline changes what fits at once, and not with the next minute."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.daemon import alive
from kata_node_agent.daemon.history import History
from kata_node_agent.errors import HostError
from kata_node_agent.host import native
from kata_node_agent.host.uevents import KernelEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KIB_PER_GIB = 2**20
MIB = 2**20


def no_cpuid(cpu: int) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    raise HostError(f"CPU {cpu} is not asked", reason="CpuidUnavailable")


@pytest.mark.parametrize("action", ["online", "offline"])
def test_capacity_follows_a_block_of_memory_by_its_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    meminfo = tmp_path / "proc/meminfo"
    meminfo.parent.mkdir()
    meminfo.write_text(f"MemTotal: {32 * KIB_PER_GIB} kB\n")
    after = 33 if action == "online" else 31

    async def main() -> None:
        happen = asyncio.Event()

        async def events() -> AsyncIterator[KernelEvent]:
            await happen.wait()
            meminfo.write_text(f"MemTotal: {after * KIB_PER_GIB} kB\n")
            # A VM is made on the way: no hint.
            yield KernelEvent("change", "misc", "kvm")
            yield KernelEvent(action, "memory", "memory248")
            await asyncio.Event().wait()

        monkeypatch.setattr(alive, "kernel_events", events)
        monkeypatch.setattr(alive, "_EVENTS_AFTER_SECONDS", 0.0)
        monkeypatch.setattr(native, "read_cpuid", no_cpuid)
        seen: asyncio.Queue[int] = asyncio.Queue()
        config = Config(host_root=tmp_path)

        def on_view() -> None:
            assert watch.view is not None
            assert watch.view.budget is not None
            seen.put_nowait(watch.view.budget.capacity_bytes)

        watch = alive.NodeWatch(lambda: config, History(), on_view)
        await watch.look()
        tasks = [asyncio.create_task(watch.run()), asyncio.create_task(watch.watch_kernel())]
        try:
            async with asyncio.timeout(config.eligibility.interval_seconds / 2):
                assert await seen.get() == 32 * KIB_PER_GIB * 1024
                happen.set()
                assert await seen.get() == after * KIB_PER_GIB * 1024
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    asyncio.run(main())
