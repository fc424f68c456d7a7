"""The account with the real kubelet and real VMs: each step is seen in status, slots, fit and at kubelet, and no pod ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.root import HostRoot
from kata_node_agent.kubelet.podresources import allocatable_devices
from tests.conformance.images import BUSYBOX
from tests.conformance.support import NODE, RESOURCE, RealNode, wait_until
from tests.daemon.support import COMMAND
from tests.sandboxes.vms import Machine, RunningVm, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kubelet, pytest.mark.containerd, pytest.mark.kvm, pytest.mark.vm]

MIB = 1 << 20
BUDGET = 6144 * MIB
VM, BESIDE = 512 * MIB, 256 * MIB
ONE = VM + BESIDE
LIMIT = 256 * MIB
SETTINGS = f"""
[sandbox]
vm_memory = "{VM}"
# More than QEMU takes here, so that all sums are exact.
host_overhead = "{BESIDE}"
[accounting]
margin = "0"
rise_seconds = 0
pressure_stop = false
"""


class VmNode(RealNode):
    """A real node that has a budget, and a pod with a VM in its control group."""

    def __init__(self, folder: Path, programs: Path) -> None:
        super().__init__(folder, programs)
        self.agent_settings = SETTINGS
        # Kubelet's folder where the agent looks for it: what it has allocated to pods is there.
        var = folder / "host/var"
        var.unlink()
        (var / "lib").mkdir(parents=True)
        (var / "lib/kubelet").symlink_to(folder / "root")
        (var / "log").symlink_to("/var/log")

    def add_vm_pod(self, name: str) -> None:
        """A static pod that asks for a device, with a limit of memory."""
        resources = {"limits": {RESOURCE: "1", "memory": str(LIMIT), "cpu": "50m"}}
        container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "resources": resources}
        self.put_pod(name, container)

    def group_of(self, name: str) -> str:
        """The pod's control group, below the memory hierarchy."""
        (item,) = [
            item for item in self.get("/pods")["items"] if item["metadata"]["name"] == f"{name}-{NODE}"
        ]
        # Of a static pod kubelet has another id than the API server would.
        uid = (
            item["metadata"].get("annotations", {}).get("kubernetes.io/config.hash")
            or item["metadata"]["uid"]
        )
        top = Path("/sys/fs/cgroup/memory", self.cgroup.lstrip("/"))
        (found,) = [path for path in top.rglob(f"pod{uid}") if path.is_dir()]
        return f"/{found.relative_to('/sys/fs/cgroup/memory')}"

    @property
    def cgroup(self) -> str:
        """Of all that the test starts."""
        return self._cgroup.path

    def ask(self, *words: str) -> dict[str, Any]:
        """What a command prints as JSON; empty while nobody answers."""
        done = subprocess.run(
            [*COMMAND, *words, "--run-dir", self.folder / "run", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def at_kubelet(self) -> int:
        """How many devices kubelet would allocate."""
        socket = self.folder / "root/pod-resources/kubelet.sock"
        try:
            return len(asyncio.run(allocatable_devices(socket, RESOURCE)))
        except HostError as error:
            raise OSError(str(error)) from error

    def expect(self, what: str, *, committed: int, in_use: int) -> None:
        """The account, the slots, `fit` and kubelet come to say this, and agree."""
        count = (BUDGET - committed) // ONE

        def agreed() -> bool:
            status, fit = self.status(), self.ask("fit")
            slots = status["slots"]
            return (
                status["committed_bytes"] == committed
                and status["free_bytes"] == BUDGET - committed
                and (slots["in_use"], slots["healthy"]) == (in_use, in_use + count)
                and (fit["count"], fit["free_bytes"]) == (count, BUDGET - committed)
                and fit["limited_by"] == "allocatable_memory"
                and self.at_kubelet() == in_use + count
            )

        try:
            wait_until(agreed, what)
        except AssertionError as error:
            said = self.status(), self.ask("fit"), self.ask("ledger", "list"), self.at_kubelet()
            raise AssertionError(f"{error}\n{said}") from error


@contextmanager
def budget() -> Iterator[None]:
    """What the agent takes for allocatable, whatever the machine has."""
    name = "KATA_NODE_AGENT_KUBELET_"
    reserved = read_meminfo(HostRoot()).total_bytes - BUDGET
    values = {
        f"{name}SYSTEM_RESERVED_MEMORY": str(reserved),
        f"{name}KUBE_RESERVED_MEMORY": "0",
        f"{name}EVICTION_HARD_MEMORY": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key, value)
        yield


@pytest.fixture
def node() -> Iterator[VmNode]:
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with (
        budget(),
        tempfile.TemporaryDirectory(prefix="kna-") as folder,
        VmNode(Path(folder), programs) as real,
    ):
        real.start_kubelet()
        real.start_agent()
        try:
            wait_until(real.registered, "the agent is registered")
            yield real
        except BaseException:
            print(real.log("kubelet"), real.log("agent"))
            raise


@pytest.fixture
def machine(node: VmNode) -> Iterator[Machine]:
    folder = node.folder / "vms"
    folder.mkdir()
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.close()


def start(machine: Machine, group: str = "") -> RunningVm:
    """A VM of the usual size. It does not run its guest: what is counted is its memory."""
    vm = machine.start(memory=f"{VM // MIB}M,slots=10,maxmem=8G", group=group, more=["-S"])
    wait_for((vm.folder / "qmp.sock").exists, "no QEMU", 20)
    return vm


def test_slots_status_and_fit_follow_vms_at_each_step_and_the_pod_goes_on(
    node: VmNode, machine: Machine
) -> None:
    node.expect("an empty node", committed=0, in_use=0)
    node.add_vm_pod("vm")
    wait_until(lambda: node.running("vm"), "a pod runs")
    container = node.running("vm")
    node.expect("its device stands for a VM of the usual size", committed=ONE, in_use=1)

    def the_pod_goes_on(what: str) -> None:
        wait_until(lambda: node.running("vm") == container, f"the pod goes on in its container: {what}")

    vm = start(machine, node.group_of("vm"))
    node.expect("its VM counts once, with the limit that is plugged later", committed=ONE + LIMIT, in_use=1)
    vm.hotplug("mem0", LIMIT, "ram")
    wait_until(lambda: vm_bytes(node, vm) == VM + LIMIT, "the hotplug is seen")
    node.expect("what was expected takes nothing more", committed=ONE + LIMIT, in_use=1)
    vm.hotplug("mem1", 1024 * MIB, "ram")
    grown = ONE + LIMIT + 1024 * MIB
    node.expect("what was not expected takes slots", committed=grown, in_use=1)
    the_pod_goes_on("after hotplug")

    stray = start(machine)
    node.expect("a VM that nobody announced is in use", committed=grown + ONE, in_use=2)
    node.stop_agent(signal.SIGKILL)
    node.start_agent()
    wait_until(node.registered, "registered again")
    node.expect("the same after kill -9 of the agent", committed=grown + ONE, in_use=2)
    the_pod_goes_on("after kill -9 of the agent")

    node.stop_agent(signal.SIGKILL)
    node.stop_kubelet(signal.SIGKILL)
    machine.kill(stray)
    node.start_agent()
    node.start_kubelet()
    wait_until(node.registered, "registered again")
    node.expect("a VM that ended while nobody looked is gone", committed=grown, in_use=1)
    the_pod_goes_on("after kill -9 of both")

    # Fewer fit than are in use: no device that is held turns unhealthy.
    big = start(machine)
    big.hotplug("all", BUDGET, "ram")
    wait_until(lambda: node.at_kubelet() == 2, "only what is in use is healthy")
    reasons = {problem["reason"] for problem in node.status()["problems"]}
    assert {"MemoryOvercommitted", "PlacesTakenWithoutDevice"} <= reasons
    assert node.ask("fit")["count"] == 0
    the_pod_goes_on("on a node that is promised too much")
    machine.kill(big)
    node.expect("its end makes room at once", committed=grown, in_use=1)
    machine.kill(vm)
    node.expect("the device stands for a VM to come again", committed=ONE, in_use=1)
    the_pod_goes_on("without its VM")


def vm_bytes(node: VmNode, vm: RunningVm) -> int:
    """The size of a VM as `ledger list` has it."""
    listed = node.ask("ledger", "list")["admissions"]
    return next((int(one["vm_bytes"]) for one in listed if one["sandbox"] == vm.id), 0)
