"""The kill that is foretold happens: a pod's cgroup with less memory than the VM in it, and a guest that fills its own."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.root import HostRoot
from kata_node_agent.report.sandboxes import SandboxObserver, SandboxView
from tests.sandboxes.support import MIB
from tests.sandboxes.vms import Machine, RunningVm, wait_for

pytestmark = pytest.mark.vm
UID = "5c0ffee0-0000-4000-8000-00000000cafe"
LIMIT_BYTES = 450 * MIB


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


def look(vm: RunningVm) -> SandboxView | None:
    views = SandboxObserver(HostRoot(), Config()).look().views
    return next((view for view in views if view.sandbox.id == vm.id), None)


def oom_kills(group: str) -> int:
    mounts = find_cgroup_mounts(HostRoot())
    name = "memory.events" if mounts.hierarchy == "v2" else "memory.oom_control"
    lines = Path(f"{mounts.memory}{group}/{name}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def test_a_vm_larger_than_its_pods_limit_is_told_to_be_killed_and_is(machine: Machine) -> None:
    group = machine.group(f"burstable/pod{UID}", limit=LIMIT_BYTES)
    vm = machine.start(group=group)
    wait_for(lambda: "guest is up" in vm.said, vm.said[-500:])
    view = look(vm)
    assert view is not None
    assert view.sandbox.cost is not None
    risk = next(risk for risk in view.risks if risk.reason == "CgroupLimitBelowVm")
    assert "may use 450Mi, but its VM has 512Mi" in risk.message
    # While the guest stays below what is left, nothing happens: the VM is not killed for being large.
    assert view.sandbox.charge is not None
    left = LIMIT_BYTES - view.sandbox.charge.bytes
    vm.tell(f"dd if=/dev/zero of=/tmp/some bs=1M count={left // MIB // 2}")
    assert oom_kills(group) == 0
    vm.begin("dd if=/dev/zero of=/tmp/more bs=1M count=450")
    wait_for(lambda: oom_kills(group) > 0, "the kernel has killed nothing")
    assert machine.wait(vm) == -signal.SIGKILL
    assert look(vm) is None
