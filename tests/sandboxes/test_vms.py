"""Real VMs as the watcher sees them. They are booted once, and the tests go on with each other's VMs."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.follow import follow
from kata_node_agent.sandboxes.watcher import Watcher
from tests.sandboxes.support import UID
from tests.sandboxes.vms import MIB, Machine, RunningVm, file_memory, memfd_memory, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kata_node_agent.sandboxes.model import Sandbox

pytestmark = pytest.mark.vm

FILE_BYTES = 300 * MIB


class Fleet:
    """Three VMs of 512 MiB: one shares files, one has a memfd, one is in a pod with less memory than the VM."""

    def __init__(self, machine: Machine, share: Path) -> None:
        self.machine = machine
        self.pod = machine.group(f"burstable/pod{UID}")
        shares = machine.group(f"burstable/pod{UID}/kata_files")
        self.files = machine.start(file_memory(), share=share, group=shares)
        self.memfd = machine.start(memfd_memory(), group=machine.group("kata_overhead/memfd"))
        tight = machine.group(f"pod{UID[::-1]}", limit=450 * MIB)
        port = ["-device", "pcie-root-port,id=port0,chassis=1"]
        self.tight = machine.start(group=tight, more=port)
        self.watcher = Watcher(HostRoot())

    @property
    def all(self) -> tuple[RunningVm, ...]:
        return self.files, self.memfd, self.tight

    def see(self, vm: RunningVm) -> Sandbox:
        (found,) = [sandbox for sandbox in self.watcher.sweep() if sandbox.id == vm.id]
        return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("vms")
    share = folder / "share"
    share.mkdir()
    (share / "file").write_bytes(os.urandom(MIB) * 300)
    # Whoever reads it first shall be charged for it.
    descriptor = os.open(share / "file", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    machine = Machine(folder)
    try:
        fleet = Fleet(machine, share)
        for vm in fleet.all:
            wait_for(
                lambda vm=vm: "guest is up" in vm.said,  # type: ignore[misc]
                f"{vm.said[-300:]} {(vm.folder / 'qemu.log').read_text()}",
            )
        yield fleet
    finally:
        machine.close()


def pss_bytes(pid: int) -> int:
    """What the kernel sums up by itself."""
    match = re.search(r"^Pss: +([0-9]+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def test_three_vms_are_seen_with_their_size_and_where_their_memory_lives(fleet: Fleet) -> None:
    fleet.watcher.sweep()
    found = {sandbox.id: sandbox for sandbox in fleet.watcher.sandboxes}
    seen = [found[vm.id] for vm in fleet.all]
    assert [sandbox.pid for sandbox in seen] == [vm.pid for vm in fleet.all]
    assert [sandbox.memory_location for sandbox in seen] == ["shm", "memfd", "anonymous"]
    for sandbox in seen:
        assert (sandbox.vmm, sandbox.base_bytes, sandbox.hotplugged_bytes) == ("qemu", 512 * MIB, 0)
        assert sandbox.max_bytes == 4096 * MIB
        assert sandbox.notes == ()
    ours = {vm.pid for vm in fleet.all}
    assert not [one for one in fleet.watcher.unbelieved if one.pid in ours]


def test_the_pod_is_the_one_of_the_group(fleet: Fleet) -> None:
    found = fleet.see(fleet.files)
    assert found.pod_uid == UID
    assert found.cgroup == f"{fleet.pod}/kata_files"
    assert [process.role for process in found.processes] == ["vmm", "virtiofsd", "virtiofsd"]


def test_file_cache_of_the_guest_is_counted_once(fleet: Fleet) -> None:
    before = fleet.see(fleet.files).cost
    fleet.files.tell("cat /mnt/file > /dev/null")
    found = fleet.see(fleet.files)
    cost = found.cost
    assert before is not None
    assert cost is not None
    grown = cost.resident_bytes - before.resident_bytes
    assert 0.8 * FILE_BYTES < grown < 1.15 * FILE_BYTES
    # QEMU's and virtiofsd's mappings of the same pages: adding up resident sets says so much more.
    assert cost.rss_sum_bytes - cost.resident_bytes > 0.8 * FILE_BYTES
    assert cost.host_overhead_bytes < 250 * MIB
    truth = sum(pss_bytes(process.pid) for process in found.processes)
    assert cost.resident_bytes - cost.page_table_bytes == pytest.approx(truth, rel=0.03)


def test_what_the_group_is_charged_beyond_the_cost_is_cache_of_the_host(fleet: Fleet) -> None:
    found = fleet.see(fleet.files)
    assert found.charge is not None
    assert found.cost is not None
    assert found.charge.file_cache_bytes is not None
    assert found.charge.file_cache_bytes > 0.8 * FILE_BYTES
    assert found.charge.bytes > found.cost.guest_bytes + 0.8 * FILE_BYTES
    assert "file cache" in found.charge.difference


def test_a_gibibyte_that_is_plugged_is_seen_within_a_second(fleet: Fleet) -> None:
    def act() -> None:
        fleet.memfd.hotplug("mem0", 1024 * MIB)

    seconds, found = asyncio.run(seen_after(act, fleet.memfd, lambda vm: bool(vm and vm.hotplugged_bytes)))
    assert found is not None
    assert (found.base_bytes, found.hotplugged_bytes) == (512 * MIB, 1024 * MIB)
    assert seconds < 1.0


def test_memory_without_a_file_that_is_plugged_is_seen_within_a_second(fleet: Fleet) -> None:
    """Nothing shows it but the mapping: no folder changes."""

    def act() -> None:
        fleet.memfd.hotplug("mem1", 128 * MIB, "ram")
        fleet.memfd.hotplug("mem2", 256 * MIB, "memfd")

    seconds, found = asyncio.run(
        seen_after(act, fleet.memfd, lambda vm: bool(vm and vm.hotplugged_bytes == 1408 * MIB))
    )
    assert found is not None
    assert seconds < 1.0


def test_a_virtio_mem_device_is_not_taken_for_plugged_memory(fleet: Fleet) -> None:
    fleet.tight.qmp(
        "object-add",
        **{
            "qom-type": "memory-backend-file",
            "id": "virtiomem",
            "size": 1 << 30,
            "mem-path": "/dev/shm",
            "share": True,
        },
    )
    device = {"requested-size": 256 * MIB, "bus": "port0"}
    fleet.tight.qmp("device_add", driver="virtio-mem-pci", id="virtiomem0", memdev="virtiomem", **device)
    found = fleet.see(fleet.tight)
    assert found.virtio_mem_bytes == 1 << 30
    assert found.hotplugged_bytes <= 256 * MIB


def test_a_limit_below_the_vm_is_shown_and_kills_it(fleet: Fleet) -> None:
    found = fleet.see(fleet.tight)
    assert found.charge is not None
    assert found.charge.limit_bytes == 450 * MIB < found.vm_memory_bytes

    def act() -> None:
        fleet.tight.begin("dd if=/dev/zero of=/tmp/x bs=1M count=400")

    _, left = asyncio.run(seen_after(act, fleet.tight, lambda vm: vm is None, seconds=60))
    assert left is None


def test_the_end_of_a_vm_is_seen_at_once(fleet: Fleet) -> None:
    seconds, _ = asyncio.run(
        seen_after(lambda: fleet.machine.kill(fleet.memfd), fleet.memfd, lambda vm: vm is None)
    )
    assert seconds < 0.3


async def seen_after(
    act: Callable[[], None], vm: RunningVm, holds: Callable[[Sandbox | None], bool], seconds: float = 10
) -> tuple[float, Sandbox | None]:
    """How long after `act` the VM is told to be so, and how it is told to be."""
    root = HostRoot()
    begun = float("inf")
    news = follow(Watcher(root), root)
    try:
        async with asyncio.timeout(seconds):
            async for sandboxes in news:
                found = next((sandbox for sandbox in sandboxes if sandbox.id == vm.id), None)
                if holds(found):
                    assert begun < float("inf"), "it was so before anything was done"
                    return time.monotonic() - begun, found
                if begun == float("inf"):
                    # What is there now was told. The change comes at any moment between two glances.
                    await asyncio.sleep(0.13)
                    begun = time.monotonic()
                    await asyncio.to_thread(act)
    finally:
        await news.aclose()  # type: ignore[attr-defined]
    raise AssertionError("it is not told any more")
