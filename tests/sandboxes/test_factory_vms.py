"""Real VMs from a template and of a cache, made as Kata's factory makes them: one boots into a file, others begin as its copies."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.watcher import Watcher
from tests.sandboxes.support import shim
from tests.sandboxes.vms import MIB, RUN_VC, Machine, RunningVm, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.sandboxes.model import Cost, Sandbox

pytestmark = pytest.mark.vm
MEMORY = "256M,slots=10,maxmem=2G"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("vms"))
    try:
        yield made
    finally:
        made.close()


def backend(path: Path, share: str = "") -> list[str]:
    place = f"memory-backend-file,id=dimm1,size=256M,mem-path={path}{share}"
    return ["-object", place, "-numa", "node,memdev=dimm1"]


@pytest.fixture(scope="module")
def template(machine: Machine) -> Path:
    """The memory of a guest that has booted; its devices' state is beside it."""
    folder = machine.own_folder(Path("/dev/shm/kna-test-template"))
    memory, state = folder / "memory", folder / "state"
    memory.touch()
    vm = machine.start(backend(memory, ",share=on"), memory=MEMORY)
    wait_for(lambda: "guest is up" in vm.said, "the template has not booted")
    vm.qmp("stop")
    ignore = {"capability": "x-ignore-shared", "state": True}
    vm.qmp("migrate-set-capabilities", capabilities=[ignore])
    vm.qmp("migrate", uri=f"exec:cat > {state}")
    wait_for(lambda: vm.ask("query-migrate")["status"] == "completed", "its state is not written")
    machine.kill(vm)
    return memory


def start(machine: Machine, template: Path, sandbox_id: str = "") -> RunningVm:
    vm = machine.start(backend(template), memory=MEMORY, more=["-incoming", "defer"], sandbox_id=sandbox_id)
    wait_for((vm.folder / "qmp.sock").exists, "it does not listen")
    ignore = {"capability": "x-ignore-shared", "state": True}
    vm.qmp("migrate-set-capabilities", capabilities=[ignore])
    vm.qmp("migrate-incoming", uri=f"exec:cat {template.with_name('state')}")
    wait_for(lambda: vm.ask("query-status")["status"] == "paused", "it has not begun")
    vm.qmp("cont")
    return vm


def seen(vms: list[RunningVm]) -> list[Sandbox]:
    found = {sandbox.pid: sandbox for sandbox in Watcher(HostRoot()).sweep()}
    return [found[vm.pid] for vm in vms]


def costs(sandboxes: list[Sandbox]) -> list[Cost]:
    return [sandbox.cost for sandbox in sandboxes if sandbox.cost is not None]


def mapped(vm: RunningVm, template: Path, field: str) -> int:
    """What the kernel says of the mapping of the template."""
    smaps = Path(f"/proc/{vm.pid}/smaps").read_text()
    (amount,) = re.findall(rf" {re.escape(str(template))}\n(?:.*\n)*?{field}: +([0-9]+) kB", smaps)
    return int(amount) * 1024


def test_vms_of_a_template_share_what_none_of_them_has_written(machine: Machine, template: Path) -> None:
    vms = [start(machine, template) for _ in range(3)]
    for vm in vms:
        # All read the same pages of the template.
        vm.tell("cat /bin/busybox /*.ko > /dev/null")
        vm.qmp("stop")
    before = seen(vms)
    for sandbox in before:
        assert (sandbox.base_bytes, sandbox.hotplugged_bytes) == (256 * MIB, 0)
        assert sandbox.memory_location == "file"
        assert f"its memory began as a copy of {template}" in sandbox.notes[-1]
    together = sum(cost.guest_bytes for cost in costs(before))
    assert together == pytest.approx(sum(mapped(vm, template, "Pss") for vm in vms), rel=0.02)
    # What two of the three have mapped beside the first is there no second time.
    shared = sum(mapped(vm, template, "Shared_Dirty") + mapped(vm, template, "Shared_Clean") for vm in vms)
    assert shared > 6 * MIB
    assert sum(mapped(vm, template, "Rss") for vm in vms) - together > shared / 2
    vms[0].qmp("cont")
    vms[0].tell("dd if=/dev/zero of=/tmp/x bs=1M count=60")
    after = seen(vms)
    grown = [new.guest_bytes - old.guest_bytes for new, old in zip(costs(after), costs(before), strict=True)]
    assert grown[0] > 45 * MIB, "what it has written is its own"
    assert max(map(abs, grown[1:])) < 15 * MIB


def test_a_vm_of_the_cache_is_seen_and_becomes_the_sandboxs_that_takes_it(
    machine: Machine, template: Path
) -> None:
    vm_id = str(uuid.uuid4())
    machine.own_folder(RUN_VC / vm_id)
    vm = start(machine, template, vm_id)
    (waiting,) = seen([vm])
    assert waiting.id == vm_id
    assert any("no sandbox has taken it yet" in note for note in waiting.notes)
    watcher = Watcher(HostRoot())
    watcher.sweep()
    assert not watcher.glance()
    sandbox_id = f"{vm.pid:08x}" * 8
    machine.link(RUN_VC / sandbox_id, RUN_VC / vm_id)
    machine.begin_shim(shim(sandbox_id))
    assert watcher.glance()
    found = next(one for one in watcher.sweep() if one.pid == vm.pid)
    assert (found.id, found.shim_pid is not None) == (sandbox_id, True)
    assert not any("no sandbox has taken it" in note for note in found.notes)
