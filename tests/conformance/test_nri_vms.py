"""The whole loop with real VMs: the runtime starts a QEMU for each Kata pod, asks the agent, and the agent sees the QEMU."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kata_shim import BASE, KataShim
from tests.conformance.nri_agent import Agent
from tests.conformance.runtime import MIB, RealRuntime
from tests.conformance.runtimes import RUNTIMES
from tests.conformance.support import wait_until
from tests.sandboxes.vms import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.containerd, pytest.mark.vm]

# More than a QEMU takes that translates its guest's instructions: what is promised is then no more than this.
OVERHEAD = 256 * MIB
LIMIT = 512 * MIB
ONE = BASE + LIMIT + OVERHEAD
# Enough for one such pod and a VM without a limit; not for two such pods.
BUDGET = ONE + BASE + OVERHEAD + 128 * MIB


@dataclass
class Node:
    """A runtime whose handler `kata` has VMs, and an agent that it asks."""

    runtime: RealRuntime
    shim: KataShim
    agent: Agent

    def committed_is(self, expected: int) -> None:
        """Waits until exactly so much is promised."""
        try:
            wait_until(lambda: self.agent.status()["committed_bytes"] == expected, "that is promised")
        except AssertionError as error:
            raise AssertionError(f"{error}: {expected} bytes, but {self.agent.ledger()}") from None

    def seen_is(self, sandbox: str, vm_bytes: int) -> None:
        """Waits until the agent has seen a VM of this size."""
        wait_until(
            lambda: self.agent.ledger()[sandbox]["vm_bytes"] == vm_bytes, f"a VM of {vm_bytes} is seen"
        )


@pytest.fixture(scope="module", params=RUNTIMES, ids=lambda runtime: runtime.name)
def whole(request: pytest.FixtureRequest) -> Iterator[Node]:
    assert not missing()
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with (
        tempfile.TemporaryDirectory(prefix="kna-") as folder,
        tempfile.TemporaryDirectory(prefix="kna-") as vms,
        KataShim(Path(vms)) as shim,
        RealRuntime(Path(folder), programs, request.param, kata=shim.program) as runtime,
    ):
        agent = Agent(runtime, BUDGET, vm_memory=f"{BASE // MIB}Mi", host_overhead=f"{OVERHEAD // MIB}Mi")
        try:
            agent.start()
            yield Node(runtime, shim, agent)
        finally:
            for name in ("agent", "runtime"):
                with suppress(OSError):
                    print(f"{name}:", runtime.log(name)[-3000:])


@pytest.fixture
def node(whole: Node) -> Iterator[Node]:
    """Of which nothing is left afterwards."""
    yield whole
    for sandbox in whole.runtime.sandboxes():
        whole.runtime.remove(sandbox)
    whole.committed_is(0)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_vm_is_admitted_seen_grown_and_its_memory_free_at_its_end(node: Node) -> None:
    pod = node.runtime.pod_file(limit_bytes=LIMIT)
    code, sandbox = node.runtime.run(pod)
    assert code == 0, sandbox
    # Promised is what it will have, not what it has.
    node.seen_is(sandbox, BASE)
    node.committed_is(ONE)
    entry = node.agent.ledger()[sandbox]
    assert (entry["origin"], entry["pod"], entry["handler"]) == ("admitted", "default/pod1", "kata")
    code, container = node.runtime.create(sandbox, pod, "main", LIMIT)
    assert code == 0, container
    node.runtime.must("start", container)
    node.seen_is(sandbox, BASE + LIMIT)
    vm = node.agent.sandboxes()[sandbox]
    assert (vm["base_bytes"], vm["hotplugged_bytes"]) == (BASE, LIMIT)
    node.committed_is(ONE)
    node.runtime.remove(sandbox)
    assert gone(vm["pid"])
    node.committed_is(0)


def test_the_vm_of_a_refused_pod_is_ended_and_the_ledger_is_as_before(node: Node) -> None:
    code, first = node.runtime.run(node.runtime.pod_file(limit_bytes=LIMIT))
    assert code == 0, first
    node.committed_is(ONE)
    before, known = node.agent.ledger(), set(node.shim.started)
    code, output = node.runtime.run(node.runtime.pod_file(limit_bytes=LIMIT))
    assert code == 1
    assert "kata-node-agent refuses: the VM of default/pod" in output
    assert "allocatable memory" in output
    # It had booted, as the runtime asks that late.
    (refused,) = [vm for key, vm in node.shim.started.items() if key not in known]
    assert "guest is up" in refused.said
    assert gone(refused.pid)
    node.committed_is(ONE)
    wait_until(lambda: node.agent.ledger().keys() == before.keys(), "the ledger is as before")
    assert node.agent.ledger()[first]["admitted_bytes"] == before[first]["admitted_bytes"]
    assert node.runtime.sandboxes() == [first]
    # What is left is enough for a smaller one.
    code, small = node.runtime.run(node.runtime.pod_file())
    assert code == 0, small


def test_a_refused_resize_plugs_nothing_and_one_that_fits_does(node: Node) -> None:
    pod = node.runtime.pod_file(limit_bytes=LIMIT)
    _, sandbox = node.runtime.run(pod)
    code, container = node.runtime.create(sandbox, pod, "main", LIMIT)
    assert code == 0, container
    node.runtime.must("start", container)
    code, output = node.runtime.cri("update", "--memory", 4 * LIMIT, container)
    assert code == 1
    assert "kata-node-agent refuses" in output
    assert node.agent.sandboxes()[sandbox]["hotplugged_bytes"] == LIMIT
    node.runtime.must("update", "--memory", 2 * LIMIT, container)
    node.seen_is(sandbox, BASE + 2 * LIMIT)
    node.committed_is(ONE + LIMIT)


def test_memory_is_free_when_the_vmm_has_exited_and_not_when_the_runtime_says_so(node: Node) -> None:
    code, sandbox = node.runtime.run(node.runtime.pod_file(limit_bytes=LIMIT))
    assert code == 0, sandbox
    node.seen_is(sandbox, BASE)
    node.shim.keeps = True
    try:
        node.runtime.remove(sandbox)
    finally:
        node.shim.keeps = False
    wait_until(lambda: node.agent.ledger()[sandbox]["released"], "the runtime's word has arrived")
    assert node.agent.status()["committed_bytes"] == ONE
    assert "kata-node-agent refuses" in node.runtime.run(node.runtime.pod_file(limit_bytes=LIMIT))[1]
    node.shim.end(sandbox)
    node.committed_is(0)
    code, sandbox = node.runtime.run(node.runtime.pod_file(limit_bytes=LIMIT))
    assert code == 0, sandbox


def test_a_vm_that_was_killed_gives_its_memory_back_though_the_runtime_has_its_sandbox(node: Node) -> None:
    code, sandbox = node.runtime.run(node.runtime.pod_file(limit_bytes=LIMIT))
    assert code == 0, sandbox
    node.seen_is(sandbox, BASE)
    node.shim.end(sandbox)
    node.committed_is(0)
    assert sandbox in node.runtime.sandboxes()


def test_a_vm_that_went_past_us_is_counted_as_it_is_and_closes_the_node_for_others(node: Node) -> None:
    node.runtime.signal("agent", signal.SIGSTOP)
    try:
        pods = [node.runtime.pod_file(limit_bytes=LIMIT) for _ in range(2)]
        # The runtime waits for an answer to the first; then it has dropped us.
        sandboxes = [node.runtime.run(pod)[1] for pod in pods]
        for sandbox, pod in zip(sandboxes, pods, strict=True):
            code, container = node.runtime.create(sandbox, pod, "main", LIMIT)
            assert code == 0, container
            node.runtime.must("start", container)
    finally:
        node.runtime.signal("agent", signal.SIGCONT)
    wait_until(lambda: node.agent.status()["nri"]["connected"], "the runtime asks again")
    node.committed_is(2 * ONE)
    status = node.agent.status()
    assert "MemoryOvercommitted" in {problem["reason"] for problem in status["problems"]}
    assert status["nri"]["unseen"] + status["nri"]["late"] + status["nri"]["unanswered"] == 2
    assert {node.agent.ledger()[sandbox]["pod"] for sandbox in sandboxes} == {
        f"default/{pod.stem}" for pod in pods
    }
    assert "kata-node-agent refuses" in node.runtime.run(node.runtime.pod_file())[1]
