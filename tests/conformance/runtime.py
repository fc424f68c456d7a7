"""A real containerd alone, with NRI, and pods by crictl as an administrator makes them: no kubelet.

The handlers `kata` and `runc` are both run by runc: what differs is the name, which is all that a plugin sees before there is a VM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from tests.conformance.images import BUSYBOX, PAUSE, write_images
from tests.conformance.support import OwnCgroup, end_child, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIB = 1 << 20
_RUNTIME = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{}]\n  runtime_type = "io.containerd.runc.v2"\n'
_HOST_NETWORK = {"namespace_options": {"network": 2}}


class RealRuntime:
    """containerd while it is entered; stopped and started by the test."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._bin = programs
        self._cgroup = OwnCgroup()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._pods = 0
        self.nri = folder / "nri.sock"
        self._socket = folder / "containerd.sock"

    def __enter__(self) -> Self:
        (self.folder / "crictl.yaml").touch()
        self._cgroup.__enter__()
        try:
            self.start()
            for image in write_images(self.folder):
                subprocess.run(
                    [self._bin / "ctr", "-a", self._socket, "-n", "k8s.io", "images", "import", image],
                    check=True,
                    capture_output=True,
                )
        except BaseException:
            print(self.log("containerd"))
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._children):
            self.end(name)
        self._cgroup.__exit__()

    def start(self) -> None:
        """Starts containerd; its pods of before are still there."""
        config = self.folder / "containerd.toml"
        config.write_text(
            f'version = 3\nroot = "{self.folder}/cd"\nstate = "{self.folder}/state"\n'
            f'[grpc]\n  address = "{self._socket}"\n'
            '[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "native"\n'
            f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{PAUSE}"\n'
            + "".join(_RUNTIME.format(name) for name in ("kata", "runc"))
            # Where this test runs a process may not be allowed to lower its own score.
            + '[plugins."io.containerd.cri.v1.runtime"]\n  restrict_oom_score_adj = true\n'
            f'[plugins."io.containerd.nri.v1.nri"]\n  socket_path = "{self.nri}"\n'
            f'  plugin_path = "{self.folder}/none"\n  plugin_config_path = "{self.folder}/none"\n'
            '  [plugins."io.containerd.nri.v1.nri".default_validator]\n    enable = true\n'
        )
        self._socket.unlink(missing_ok=True)
        self.spawn("containerd", ["unshare", "-m", self._bin / "containerd", "-c", config], in_cgroup=True)
        wait_until(lambda: not self.cri("version")[0], "containerd answers")

    def spawn(self, name: str, command: Sequence[object], *, in_cgroup: bool = False) -> None:
        """Starts a program; it ends with the runtime at the latest."""
        environ = {**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}"}
        with open(self.folder / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ
            )
        self._children[name] = child
        if in_cgroup:
            self._cgroup.join(child.pid)

    def peer(self, name: str, *arguments: object) -> None:
        """Starts one of the programs in `nri_peers`."""
        (self.folder / f"{name}.log").unlink(missing_ok=True)
        self.spawn(name, [sys.executable, "-m", "tests.conformance.nri_peers", *arguments])

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends a program by a signal."""
        end_child(self._children.pop(name), number)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a program."""
        self._children[name].send_signal(number)

    def log(self, name: str) -> str:
        """What a program has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # pods

    def cri(self, *arguments: object) -> tuple[int, str]:
        """crictl: its exit code, and what it printed."""
        command = [
            self._bin / "crictl",
            *("--config", self.folder / "crictl.yaml"),
            *("--runtime-endpoint", f"unix://{self._socket}", "--image-endpoint", f"unix://{self._socket}"),
            *("--timeout", "60s"),
            *arguments,
        ]
        done = subprocess.run(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
        )
        return done.returncode, done.stdout.decode(errors="replace").strip()

    def must(self, *arguments: object) -> str:
        """As `cri`, and it has to succeed; the last line."""
        code, text = self.cri(*arguments)
        assert code == 0, text
        return text.splitlines()[-1] if text else ""

    def pod_file(
        self, *, limit_bytes: int = 0, overhead_bytes: int = 0, annotations: Mapping[str, str] | None = None
    ) -> Path:
        """A new pod's configuration, as kubelet would give it."""
        self._pods += 1
        name = f"pod{self._pods}"
        linux: dict[str, Any] = {
            "cgroup_parent": f"{self._cgroup.path}/runtime/{name}",
            "security_context": _HOST_NETWORK,
        }
        if limit_bytes:
            linux["resources"] = {"memory_limit_in_bytes": limit_bytes}
        if overhead_bytes:
            linux["overhead"] = {"memory_limit_in_bytes": overhead_bytes}
        path = self.folder / f"{name}.json"
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": 0}
        path.write_text(
            json.dumps({"metadata": metadata, "linux": linux, "annotations": dict(annotations or {})})
        )
        return path

    def run(self, pod: Path, handler: str = "kata") -> tuple[int, str]:
        """RunPodSandbox: exit code, and the sandbox's id or what was said."""
        code, text = self.cri("runp", "--runtime", handler, pod)
        return code, text.splitlines()[-1] if code == 0 else text

    def create(self, sandbox: str, pod: Path, name: str = "main", limit_bytes: int = 0) -> tuple[int, str]:
        """CreateContainer: exit code, and the container's id or what was said."""
        linux: dict[str, Any] = {"security_context": _HOST_NETWORK}
        if limit_bytes:
            linux["resources"] = {"memory_limit_in_bytes": limit_bytes}
        path = pod.with_name(f"{pod.stem}-{name}.json")
        metadata = {"name": name, "attempt": 0}
        command = ["/bin/sleep", "1000000"] if name != "init" else ["/bin/sleep", "0"]
        path.write_text(
            json.dumps(
                {"metadata": metadata, "image": {"image": BUSYBOX}, "command": command, "linux": linux}
            )
        )
        code, text = self.cri("create", "--no-pull", sandbox, path, pod)
        return code, text.splitlines()[-1] if code == 0 else text

    def remove(self, sandbox: str) -> None:
        """StopPodSandbox and RemovePodSandbox."""
        self.must("stopp", sandbox)
        self.must("rmp", sandbox)

    def resize_pod(self, sandbox: str, limit_bytes: int) -> None:
        """UpdatePodSandboxResources, which crictl has not. Field numbers are the CRI's, k8s.io/cri-api v1."""
        limit = bytes([4 << 3]) + _varint(limit_bytes)
        request = _field(1, sandbox.encode()) + _field(3, limit)
        with grpc.insecure_channel(f"unix:{self._socket}") as channel:
            call: Any = channel.unary_unary("/runtime.v1.RuntimeService/UpdatePodSandboxResources")
            call(request, timeout=30)

    def groups_of(self, pod: Path) -> list[Path]:
        """The memory cgroups of a pod's containers, its pause container's included."""
        group = Path(f"/sys/fs/cgroup/memory{self._cgroup.path}/runtime/{pod.stem}")
        return [path for path in group.iterdir() if path.is_dir()]

    def limit_of(self, pod: Path, container: str) -> int:
        """The memory limit that a container has now."""
        groups = [path for path in self.groups_of(pod) if path.name == container]
        return int((groups[0] / "memory.limit_in_bytes").read_text())

    def forgotten(self, pod: Path) -> bool:
        """Removes all sandboxes of a pod; whether that could be done."""
        code, text = self.cri("pods", "--quiet", "--no-trunc", "--name", f"^{pod.stem}$")
        gone = [
            self.cri(*verb, sandbox)[0] for sandbox in text.split() for verb in (["stopp"], ["rmp", "-f"])
        ]
        return code == 0 and not any(gone)

    def sandboxes(self) -> list[str]:
        """Ids of all sandboxes, those that have stopped included."""
        return self._ids("pods", "--quiet", "--no-trunc")

    def containers(self) -> list[str]:
        """Ids of all containers, those that have exited included."""
        return self._ids("ps", "--all", "--quiet", "--no-trunc")

    def _ids(self, *arguments: str) -> list[str]:
        code, text = self.cri(*arguments)
        assert code == 0, text
        return text.split()


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


class TestPlugin:
    """Our plugin on an account in a file, as a process of its own."""

    __test__ = False

    def __init__(self, runtime: RealRuntime, budget_bytes: int, socket: Path | None = None) -> None:
        self._runtime = runtime
        self._socket = socket or runtime.nri
        self._state = runtime.folder / "account.json"
        self._budget = budget_bytes

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Starts it, and waits until the runtime has taken it in."""
        before = self._state.stat().st_mtime_ns if self._state.exists() else 0
        command = [sys.executable, "-m", "tests.conformance.nri_plugin"]
        bundles = self._runtime.folder / "state/io.containerd.runtime.v2.task/k8s.io"
        self._runtime.spawn("plugin", [*command, self._socket, self._state, self._budget, bundles])
        wait_until(
            lambda: self._state.stat().st_mtime_ns != before and self.state()["synchronizations"] > 0,
            "the plugin is synchronized",
        )

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it."""
        self._runtime.end("plugin", number)

    def state(self) -> dict[str, Any]:
        """The account, and what was counted, as after its last change."""
        return dict(json.loads(self._state.read_text()))

    def wait_for_synchronization(self, number: int) -> None:
        """Until the runtime has taken this process in so often."""
        wait_until(lambda: self.state()["synchronizations"] >= number, "the runtime has taken us in")

    def wait_for_decisions(self, decisions: dict[str, int]) -> None:
        """Until these were counted, and no others."""
        wait_until(lambda: self.state()["decisions"] == decisions, f"{decisions} are counted", 5)

    @property
    def committed_bytes(self) -> int:
        """Of all sandboxes."""
        return sum(claim["vm_bytes"] for claim in self.state()["claims"])
