"""A real container runtime alone, with NRI, and pods by crictl as an administrator makes them: no kubelet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from tests.conformance.images import BUSYBOX, write_images
from tests.conformance.runtimes import RUNC, Containerd, Place
from tests.conformance.support import OwnCgroup, end_child, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.conformance.runtimes import Runtime

MIB = 1 << 20
_HOST_NETWORK = {"namespace_options": {"network": 2}}


class RealRuntime:
    """A container runtime while it is entered; stopped and started by the test."""

    def __init__(
        self, folder: Path, programs: Path, runtime: Runtime | None = None, *, kata: str | Path = RUNC
    ) -> None:
        """`runtime` is the newest containerd unless given; `kata` runs the containers of the handler of that name."""
        self.folder = folder
        self.runtime = runtime or Containerd()
        self.place = Place(folder, programs, str(kata))
        self._cgroup = OwnCgroup()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._pods = 0

    def __enter__(self) -> Self:
        (self.folder / "crictl.yaml").touch()
        self._cgroup.__enter__()
        try:
            self.start()
            self.runtime.load(self.place, write_images(self.folder))
        except BaseException:
            print(self.log("runtime"))
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._children):
            self.end(name)
        self._cgroup.__exit__()

    @property
    def nri(self) -> Path:
        """Where it asks plugins."""
        return self.place.nri

    def start(self, *, wait: bool = True) -> None:
        """Starts it; its pods of before are still there. Without waiting it may not answer yet."""
        self.place.socket.unlink(missing_ok=True)
        command = self.runtime.command(self.place)
        self.spawn("runtime", ["unshare", "-m", *command], in_cgroup=True)
        if wait:
            self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        """Until crictl hears of it."""
        wait_until(lambda: not self.cri("version")[0], f"{self.runtime.name} answers")

    def spawn(self, name: str, command: Sequence[object], *, in_cgroup: bool = False) -> None:
        """Starts a program; it ends with the runtime at the latest."""
        environ = {**os.environ, "PATH": f"{self.runtime.path(self.place)}:{os.environ['PATH']}"}
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
            self.place.programs / "crictl",
            *("--config", self.folder / "crictl.yaml"),
            *(
                "--runtime-endpoint",
                f"unix://{self.place.socket}",
                "--image-endpoint",
                f"unix://{self.place.socket}",
            ),
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
        with grpc.insecure_channel(f"unix:{self.place.socket}") as channel:
            call: Any = channel.unary_unary("/runtime.v1.RuntimeService/UpdatePodSandboxResources")
            call(request, timeout=30)

    def groups_of(self, pod: Path) -> dict[str, Path]:
        """The memory cgroups of a pod's containers by their ids, its pause container's included."""
        group = Path(f"/sys/fs/cgroup/memory{self._cgroup.path}/runtime/{pod.stem}")
        # CRI-O has a monitor in a group beside each.
        found = [
            path for path in group.iterdir() if path.is_dir() and not path.name.startswith("crio-conmon-")
        ]
        return {path.name.removeprefix("crio-"): path for path in found}

    def limit_of(self, pod: Path, container: str) -> int:
        """The memory limit that a container has now."""
        return int((self.groups_of(pod)[container] / "memory.limit_in_bytes").read_text())

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
        sandboxes = self._runtime.runtime.sandboxes(self._runtime.place)
        self._runtime.spawn("plugin", [*command, self._socket, self._state, self._budget, sandboxes])
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

    def wait_for_synchronization(self, number: int, pause_seconds: float = 0.05) -> None:
        """Until the runtime has taken this process in so often."""
        wait_until(
            lambda: self.state()["synchronizations"] >= number,
            "the runtime has taken us in",
            pause_seconds=pause_seconds,
        )

    def wait_for_decisions(self, decisions: dict[str, int]) -> None:
        """Until these were counted, and no others."""
        wait_until(lambda: self.state()["decisions"] == decisions, f"{decisions} are counted", 5)

    @property
    def committed_bytes(self) -> int:
        """Of all sandboxes."""
        return sum(claim["vm_bytes"] for claim in self.state()["claims"])
