"""A folder that is watched before it is there."""

import asyncio
import time
from pathlib import Path

import pytest

from kata_node_agent.host import native
from kata_node_agent.host.watch import FolderWatch


def test_a_folder_that_comes_is_told_by_events_however_deep_it_is(short_dir: Path) -> None:
    async def main() -> None:
        folder = short_dir / "run" / "vc" / "sbs"
        watch = FolderWatch(folder, poll_seconds=60)
        await watch.wait(0.01)
        assert watch.uses_inotify
        for missing in (folder.parent.parent, folder.parent, folder, folder / "sandbox"):
            await watch.wait(0.05)
            waiting = asyncio.create_task(watch.wait(4))
            await asyncio.sleep(0.05)
            missing.mkdir()
            began = time.monotonic()
            await waiting
            assert time.monotonic() - began < 3, missing
        watch.close()

    asyncio.run(main())


def test_a_folder_that_goes_with_its_parent_is_told_when_it_is_back(short_dir: Path) -> None:
    async def main() -> None:
        folder = short_dir / "kata" / "sbs"
        folder.mkdir(parents=True)
        watch = FolderWatch(folder, poll_seconds=60)
        await watch.wait(0.01)
        folder.rmdir()
        folder.parent.rmdir()
        for _ in range(3):
            await watch.wait(0.1)
        folder.mkdir(parents=True)
        began = time.monotonic()
        while not folder.exists() or time.monotonic() - began < 0.3:
            await watch.wait(0.1)
        (folder / "sandbox").mkdir()
        began = time.monotonic()
        await watch.wait(4)
        assert time.monotonic() - began < 3
        watch.close()

    asyncio.run(main())


def test_without_inotify_a_missing_folder_is_looked_for(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(native, "watch_folder", none_left)

    async def main() -> None:
        watch = FolderWatch(short_dir / "none", poll_seconds=0.02)
        began = time.monotonic()
        await watch.wait()
        assert not watch.uses_inotify
        assert time.monotonic() - began < 3

    asyncio.run(main())
