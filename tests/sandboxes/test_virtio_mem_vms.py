"""A real virtio-mem device in memory without a name: the kernel shows the same of it, plugged or not."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.watcher import Watcher
from tests.sandboxes.test_vms import seen_after
from tests.sandboxes.vms import MIB, Machine, RunningVm, memfd_memory, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.sandboxes.model import Sandbox

pytestmark = pytest.mark.vm
PORT = ["-device", "pcie-root-port,id=port0,chassis=1"]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


def see(vm: RunningVm) -> Sandbox:
    return next(sandbox for sandbox in Watcher(HostRoot()).sweep() if sandbox.id == vm.id)


def guest_mib(vm: RunningVm) -> int:
    vm.tell("grep MemTotal /proc/meminfo")
    return int(re.findall(r"MemTotal: +([0-9]+) kB", vm.said)[-1]) // 1024


@pytest.mark.parametrize("kind", ["ram", "memfd"])
def test_what_is_requested_of_a_device_without_a_name_is_its_size(machine: Machine, kind: str) -> None:
    vm = machine.start(
        memfd_memory("256M") if kind == "memfd" else (), memory="256M,slots=10,maxmem=1G", more=PORT
    )
    wait_for(lambda: "guest is up" in vm.said, vm.said[-300:])
    booted = guest_mib(vm)
    # As Kata adds its one device when the VM has started.
    backend = {"qom-type": f"memory-backend-{kind}", "id": "virtiomem", "size": 768 * MIB}
    vm.qmp("object-add", **backend)
    vm.qmp("device_add", driver="virtio-mem-pci", id="virtiomem0", memdev="virtiomem", bus="port0")
    found = see(vm)
    assert (found.base_bytes, found.virtio_mem_bytes) == (256 * MIB, 768 * MIB)
    assert (found.hotplugged_bytes, found.size_certainty) == (0, "at_least")
    place = machine.own_folder(Path("/run/vc/sbs") / vm.id) / "persist.json"

    def resize(mib: int) -> None:
        vm.qmp("qom-set", path="/machine/peripheral/virtiomem0", property="requested-size", value=mib * MIB)
        state = {
            "HypervisorState": {"HotpluggedMemory": mib},
            "Config": {"HypervisorConfig": {"VirtioMem": True}},
        }
        place.write_text(json.dumps(state))

    for mib in (384, 128):
        wanted = mib * MIB
        seconds, found_or_none = asyncio.run(
            seen_after(
                lambda mib=mib: resize(mib),  # type: ignore[misc]
                vm,
                lambda now, wanted=wanted: now is not None and now.hotplugged_bytes == wanted,  # type: ignore[misc]
            )
        )
        assert found_or_none is not None
        assert found_or_none.size_certainty == "requested"
        assert seconds < 1.0
        if mib == 384:
            # It has as much more, though the kernel shows the same mappings. To give back takes a guest as long as it likes.
            wait_for(lambda: abs(guest_mib(vm) - booted - 384) < 16, "the guest has not taken it", 20)
