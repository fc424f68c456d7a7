"""The verdict follows the node while the agent runs: a device node goes and comes back, as in a private /dev."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.devkubelet.kubelet import DevKubelet
from tests.daemon.support import Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.host, pytest.mark.kvm]


def make_kvm(node: Node) -> None:
    """A device node of our own where we may make one, else a link to the machine's."""
    path = node.root / "dev" / "kvm"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.stat("/dev/kvm").st_rdev)
    except PermissionError:
        path.symlink_to("/dev/kvm")


async def within(seconds: float, condition: Callable[[], bool], what: str) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def test_verdict_slots_and_features_follow_the_device_node(short_dir: Path) -> None:
    node = Node(short_dir)
    make_kvm(node)
    features = node.root / "etc/kubernetes/node-feature-discovery/features.d"
    features.mkdir(parents=True)
    file = features / "kata-node-agent.features"
    node.config.write_text(
        '[device_plugin]\nmax_slots = 4\n[eligibility]\nprofile = "upstream"\ninterval_seconds = 3600\n'
    )

    def says(text: str) -> bool:
        return file.exists() and text in file.read_text()

    async def main() -> None:
        async with DevKubelet(node.plugins) as kubelet:
            with node.agent() as agent:
                await kubelet.wait_for_devices(4, timeout_seconds=15)
                assert (await kubelet.admit("default", "a", {"main": 1})).phase == "Running"
                await within(5, lambda: says("katacontainers.io/eligible=true"), "features file")
                # What udev does when a module is loaded anew must not show.
                (node.root / "dev" / "kvm").unlink()
                make_kvm(node)
                await asyncio.sleep(1.5)
                assert kubelet.counts().allocatable == 4
                assert agent.text.count(" verdict ") == 1
                (node.root / "dev" / "kvm").unlink()
                await kubelet.wait_for_devices(1, timeout_seconds=3)
                await within(2, lambda: says("katacontainers.io/eligible=false"), "features file")
                make_kvm(node)
                await kubelet.wait_for_devices(4, timeout_seconds=3)
                await within(2, lambda: says("katacontainers.io/eligible=true"), "features file")
                status = await asyncio.to_thread(node.status)
                assert [change["message"].split(":")[0] for change in status["history"] if change["what"] == "verdict"] == [
                    "eligible", "not eligible", "eligible",
                ]  # fmt: skip
                assert status["change_counts"]["verdict"] == 3

    asyncio.run(main())


def test_the_features_file_outlives_the_agent(short_dir: Path) -> None:
    node = Node(short_dir, kvm=True)
    features = node.root / "etc/kubernetes/node-feature-discovery/features.d"
    features.mkdir(parents=True)
    file = features / "kata-node-agent.features"

    async def main() -> None:
        with node.agent() as agent:
            await within(10, file.exists, "features file")
            await asyncio.to_thread(agent.end)
        assert "# +expiry-time=" in file.read_text()

    asyncio.run(main())
