"""The agent as a process of its own, on folders of the test's own, with a development kubelet in the test's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "kata_node_agent"]


class Node:
    """Folders of a small node: `root` is the host as the agent sees it, with the real /proc and /sys."""

    def __init__(self, folder: Path, *, kvm: bool = False) -> None:
        self.folder = folder
        self.root = folder / "root"
        (self.root / "dev").mkdir(parents=True)
        (self.root / "etc").mkdir()
        for name in ("proc", "sys"):
            (self.root / name).symlink_to(f"/{name}")
        if kvm:
            (self.root / "dev" / "kvm").symlink_to("/dev/kvm")
        self.plugins = folder / "dp"
        self.nri = folder / "nri.sock"
        self.run_dir = folder / "run"
        self.config = folder / "c.toml"
        self.config.write_text("")
        self.log = folder / "log"

    @property
    def arguments(self) -> list[str]:
        """Flags that keep an agent on these folders."""
        return [
            *("--config", str(self.config), "--host-root", str(self.root), "--run-dir", str(self.run_dir)),
            *("--device-plugin-dir", str(self.plugins), "--state-dir", str(self.folder / "state")),
        ]

    @property
    def environ(self) -> dict[str, str]:
        """Environment for it: sockets of the test's own for what is not below `root`."""
        sockets = {
            "KATA_NODE_AGENT_KUBELET_POD_RESOURCES_SOCKET": self.folder / "pod-resources" / "kubelet.sock",
            "KATA_NODE_AGENT_NRI_SOCKET": self.nri,
        }
        return {**os.environ, **{name: str(path) for name, path in sockets.items()}}

    def agent(self, *extra: str, environ: dict[str, str] | None = None) -> Agent:
        """Starts an agent."""
        return Agent(self, [*COMMAND, "run", *self.arguments, *extra], {**self.environ, **(environ or {})})

    def status(self) -> dict[str, Any]:
        """What `status` prints."""
        command = [
            *COMMAND,
            "status",
            "--config",
            str(self.config),
            "--run-dir",
            str(self.run_dir),
            "--format",
            "json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode in {0, 1}, done.stderr
        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document


class Agent:
    """A running agent; ends with the test at the latest."""

    def __init__(self, node: Node, command: list[str], environ: dict[str, str]) -> None:
        self.node = node
        self._log = node.log.open("ab")
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def text(self) -> str:
        """The log of all agents of this node so far."""
        return self.node.log.read_text()

    def wait_for(self, words: str, times: int = 1, timeout: float = 15.0) -> None:
        """Waits until the log has the words so many times."""
        deadline = time.monotonic() + timeout
        while self.text.count(words) < times:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.text}"
            assert time.monotonic() < deadline, f"no {words!r} in: {self.text}"
            time.sleep(0.01)

    def reload(self) -> None:
        """Has it read its configuration anew."""
        self.process.send_signal(signal.SIGHUP)

    def end(self, number: int = signal.SIGTERM) -> float:
        """Sends a signal and returns how many seconds the end took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=10)
        return time.monotonic() - started
