"""The agent itself at the real containerd: its account decides, its status and health say so."""

from __future__ import annotations

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.nri_agent import Agent
from tests.conformance.runtime import MIB, RealRuntime
from tests.conformance.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containerd

# What the account may give: two pods with the limit below, and not a third.
BUDGET = 3584 * MIB
LIMIT = 512 * MIB
ONE_VM = 1024 * MIB + LIMIT + 60 * MIB


@pytest.fixture(scope="module")
def agent() -> Iterator[tuple[RealRuntime, Agent]]:
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, RealRuntime(Path(folder), programs) as runtime:
        # After its restart containerd tells of no pod's end, and here is no VM to be seen: then this is waited for.
        ours = Agent(runtime, BUDGET, "[accounting]\nboot_grace_seconds = 20\n")
        try:
            ours.start()
            yield runtime, ours
        finally:
            print(runtime.log("agent")[-3000:], runtime.log("runtime")[-1000:])


def test_what_does_not_fit_is_refused_in_the_accounts_words(agent: tuple[RealRuntime, Agent]) -> None:
    runtime, ours = agent
    sandboxes = []
    for _ in range(2):
        pod = runtime.pod_file(limit_bytes=LIMIT)
        code, sandbox = runtime.run(pod)
        assert code == 0, sandbox
        sandboxes.append(sandbox)
        code, container = runtime.create(sandbox, pod, "main", LIMIT)
        assert code == 0, container
    before = ours.status()
    assert before["committed_bytes"] == 2 * ONE_VM
    code, output = runtime.run(runtime.pod_file(limit_bytes=LIMIT))
    assert code == 1
    assert "kata-node-agent refuses: the VM of default/pod3 needs 1.6Gi" in output
    assert "free of 3.5Gi allocatable memory" in output
    assert sorted(runtime.sandboxes()) == sorted(sandboxes)
    after = ours.status()
    assert after["committed_bytes"] == before["committed_bytes"]
    assert {(d["question"], d["outcome"], d["count"]) for d in after["nri"]["decisions"]} == {
        ("admit", "allowed", 2),
        ("admit", "refused", 1),
    }
    # Another handler is none of the account's business.
    assert runtime.run(runtime.pod_file(limit_bytes=LIMIT), "runc")[0] == 0


def test_what_was_admitted_is_known_to_the_agent_after_kill_9(agent: tuple[RealRuntime, Agent]) -> None:
    runtime, ours = agent
    ours.end()
    ours.start()
    assert ours.status()["committed_bytes"] == 2 * ONE_VM
    assert ours.status()["nri"]["unseen"] == 0
    assert "kata-node-agent refuses" in runtime.run(runtime.pod_file(limit_bytes=LIMIT))[1]


def test_health_and_status_say_whether_the_runtime_asks(agent: tuple[RealRuntime, Agent]) -> None:
    runtime, ours = agent
    probe = [
        f"{os.environ['CONFORMANCE_BIN']}/grpc-health-probe",
        f"-addr=127.0.0.1:{ours.health_port}",
        "-service=nri",
    ]

    def serves() -> bool:
        return subprocess.run(probe, capture_output=True, timeout=20).returncode == 0

    wait_until(serves, "the gate serves")
    assert ours.status()["nri"]["runtime"].startswith("containerd ")
    runtime.end("runtime")
    wait_until(lambda: not serves(), "it serves no more")
    wait_until(
        lambda: "NriNotConnected" in {problem["reason"] for problem in ours.status()["problems"]},
        "that is a problem",
    )
    runtime.start()
    wait_until(serves, "the gate serves again")


def test_memory_is_free_when_the_pods_have_gone(agent: tuple[RealRuntime, Agent]) -> None:
    runtime, ours = agent
    for sandbox in runtime.sandboxes():
        runtime.remove(sandbox)
    wait_until(lambda: ours.status()["committed_bytes"] == 0, "nothing is left behind", 120)
    code, sandbox = runtime.run(runtime.pod_file(limit_bytes=LIMIT))
    assert code == 0, sandbox
    runtime.remove(sandbox)


SMALL_LIMIT, SMALL_VM, SMALL_OVERHEAD = 128 * MIB, 64 * MIB, 16 * MIB
SMALL = SMALL_VM + SMALL_LIMIT + SMALL_OVERHEAD


@pytest.fixture
def roomy() -> Iterator[tuple[RealRuntime, Agent]]:
    """An agent with room for thirty small pods."""
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, RealRuntime(Path(folder), programs) as runtime:
        ours = Agent(runtime, 30 * SMALL, vm_memory="64Mi", host_overhead="16Mi")
        try:
            ours.start()
            yield runtime, ours
        finally:
            print(runtime.log("agent")[-3000:], runtime.log("runtime")[-1000:])


def test_of_fifty_pods_at_once_the_account_takes_thirty_and_nothing_is_left_of_any(
    roomy: tuple[RealRuntime, Agent],
) -> None:
    runtime, ours = roomy
    pods = [runtime.pod_file(limit_bytes=SMALL_LIMIT) for _ in range(50)]

    def whole(pod: Path) -> tuple[int, str]:
        code, sandbox = runtime.run(pod)
        if code == 0:
            created, container = runtime.create(sandbox, pod, "main", SMALL_LIMIT)
            assert created == 0, container
        return code, sandbox

    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(whole, pods))
    admitted = [text for code, text in results if code == 0]
    assert len(admitted) == 30
    assert all("kata-node-agent refuses: the VM of default/pod" in text for code, text in results if code)
    status = ours.status()
    assert status["committed_bytes"] == 30 * SMALL
    assert {(d["outcome"], d["count"]) for d in status["nri"]["decisions"]} == {
        ("allowed", 30),
        ("refused", 20),
    }
    assert ours.ledger().keys() == set(admitted)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(runtime.remove, admitted))
    wait_until(lambda: not ours.ledger(), "nothing is left behind", 60)
    assert ours.status()["committed_bytes"] == 0
