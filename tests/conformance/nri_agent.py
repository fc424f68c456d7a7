"""The agent itself at a real container runtime, without a kubelet."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.root import HostRoot
from tests.conformance.support import free_port, wait_until
from tests.daemon.support import COMMAND

if TYPE_CHECKING:
    from tests.conformance.runtime import RealRuntime


class Agent:
    """An agent at a runtime, without a kubelet."""

    def __init__(
        self,
        runtime: RealRuntime,
        budget_bytes: int,
        settings: str = "",
        *,
        vm_memory: str = "1Gi",
        host_overhead: str = "60Mi",
    ) -> None:
        """The budget is what it may give of allocatable memory; settings are more lines of its configuration."""
        self._runtime = runtime
        self.health_port = free_port()
        reserved = read_meminfo(HostRoot()).total_bytes - budget_bytes
        (runtime.folder / "dp").mkdir()
        (runtime.folder / "agent.toml").write_text(
            f'[kubelet]\nsystem_reserved_memory = "{reserved}"\neviction_hard_memory = "0"\n'
            f'[sandbox]\nvm_memory = "{vm_memory}"\nhost_overhead = "{host_overhead}"\n{settings}'
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
        return self._ask("status")

    def ledger(self) -> dict[str, dict[str, Any]]:
        """What `ledger list` says, by sandbox."""
        return {entry["sandbox"]: entry for entry in self._ask("ledger", "list")["admissions"]}

    def sandboxes(self) -> dict[str, dict[str, Any]]:
        """What `sandboxes` says of the VMs that run, by their ids."""
        done = subprocess.run(
            [*COMMAND, "sandboxes", "--format", "json"], capture_output=True, text=True, timeout=60
        )
        return {entry["id"]: entry for entry in json.loads(done.stdout)["sandboxes"]}

    def _ask(self, *words: str) -> dict[str, Any]:
        command = [*COMMAND, *words, "--run-dir", self._runtime.folder / "run", "--format", "json"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
        return dict(json.loads(done.stdout)) if done.stdout else {}
