"""What is told, and when, as a tree changes under it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kata_node_agent.sandboxes.follow import follow
from tests.sandboxes.support import ID, MIB, Tree, qemu, region, shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from kata_node_agent.sandboxes.model import Sandbox

GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"


def vm(tree: Tree, size: int = 512, virtual: int = 1 << 30) -> None:
    tree.process(501, qemu(ID, "512M", *shared("512M")), virtual=virtual)
    tree.memory(501, region(4096, size, GUEST, inode=17))


async def told(news: AsyncIterator[tuple[Sandbox, ...]]) -> list[int]:
    async with asyncio.timeout(10):
        return [sandbox.vm_memory_bytes for sandbox in await anext(news)]


def test_what_runs_is_told_at_once_and_again_at_each_change(tmp_path: Path) -> None:
    async def go() -> None:
        tree = Tree(tmp_path)
        news = follow(tree.watcher(), tree.root, glance_seconds=0.02, sweep_seconds=600)
        assert await told(news) == []
        (tmp_path / "dev/shm").mkdir(parents=True)
        vm(tree)
        assert await told(news) == [512 * MIB]
        vm(tree, 1024, virtual=2 << 30)
        assert await told(news) == [1024 * MIB]
        tree.end(501)
        assert await told(news) == []
        await news.aclose()  # type: ignore[attr-defined]

    asyncio.run(go())


def test_what_no_glance_sees_the_next_sweep_tells(tmp_path: Path) -> None:
    async def go() -> None:
        tree = Tree(tmp_path)
        vm(tree)
        news = follow(tree.watcher(), tree.root, glance_seconds=600, sweep_seconds=0.02)
        assert await told(news) == [512 * MIB]
        tree.process(501, ["/usr/bin/sleep", "1"], started=900)
        # Without a hint nothing is looked at before the glance; a folder of Kata's gives one.
        (tmp_path / "run/kata/x").mkdir(parents=True)
        assert await told(news) == []
        await news.aclose()  # type: ignore[attr-defined]

    asyncio.run(go())


def test_a_tree_that_cannot_be_read_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        tree = Tree(tmp_path)
        vm(tree)
        (tmp_path / "proc").rename(tmp_path / "away")
        news = follow(tree.watcher(), tree.root, glance_seconds=0.02, sweep_seconds=0.05)
        assert await told(news) == []
        waiting = asyncio.ensure_future(told(news))
        await asyncio.sleep(0.3)
        (tmp_path / "away").rename(tmp_path / "proc")
        assert await waiting == [512 * MIB]
        await news.aclose()  # type: ignore[attr-defined]

    asyncio.run(go())
    assert [record.message for record in caplog.records] == ["sandboxes not read"]


def test_closing_it_gives_every_descriptor_and_task_back(tmp_path: Path) -> None:
    async def go() -> None:
        tree = Tree(tmp_path)
        before = len(asyncio.all_tasks())
        news = follow(tree.watcher(), tree.root, glance_seconds=0.02)
        await told(news)
        await news.aclose()  # type: ignore[attr-defined]
        assert len(asyncio.all_tasks()) == before

    asyncio.run(go())
