"""The agent itself at the real containerd: its account decides, its status and health say so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.root import HostRoot
from tests.conformance.runtime import MIB, RealRuntime
from tests.conformance.support import free_port, wait_until
from tests.daemon.support import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containerd

# What the account may give: two pods with the limit below, and not a third.
BUDGET = 3584 * MIB
LIMIT = 512 * MIB
ONE_VM = 1024 * MIB + LIMIT + 60 * MIB


class Agent:
    """An agent at a runtime, without a kubelet."""

    def __init__(self, runtime: RealRuntime) -> None:
        self._runtime = runtime
        self.health_port = free_port()
        reserved = read_meminfo(HostRoot()).total_bytes - BUDGET
        (runtime.folder / "dp").mkdir()
        (runtime.folder / "agent.toml").write_text(
            f'[kubelet]\nsystem_reserved_memory = "{reserved}"\neviction_hard_memory = "0"\n'
            '[sandbox]\nvm_memory = "1Gi"\nhost_overhead = "60Mi"\n'
            # After its restart containerd tells of no pod's end, and here is no VM to be seen: then this is waited for.
            "[accounting]\nboot_grace_seconds = 20\n"
            f'[nri]\nsocket = "{runtime.nri}"\n'
            f'[health]\ntcp_address = "127.0.0.1:{self.health_port}"\n[nfd]\npublish = false\n'
        )

    def start(self) -> None:
        """Until the runtime has taken it in."""
        folder = self._runtime.folder
        arguments = ["--config", folder / "agent.toml", "--run-dir", folder / "run"]
        arguments += ["--device-plugin-dir", folder / "dp", "--state-dir", folder / "agent-state"]
        self._runtime.spawn("agent", [*COMMAND, "run", *arguments])
        wait_until(lambda: self.status()["nri"]["connected"], "the runtime asks the agent")

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it."""
        self._runtime.end("agent", number)

    def status(self) -> dict[str, Any]:
        """What `status` says; KeyError while nobody answers."""
        done = subprocess.run(
            [*COMMAND, "status", "--run-dir", self._runtime.folder / "run", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        return dict(json.loads(done.stdout)) if done.stdout else {}


@pytest.fixture(scope="module")
def agent() -> Iterator[tuple[RealRuntime, Agent]]:
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with tempfile.TemporaryDirectory(prefix="kna-") as folder, RealRuntime(Path(folder), programs) as runtime:
        ours = Agent(runtime)
        try:
            ours.start()
            yield runtime, ours
        finally:
            print(runtime.log("agent")[-3000:], runtime.log("containerd")[-1000:])


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
    runtime.end("containerd")
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
