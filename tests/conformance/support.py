"""A real kubelet and a real containerd on folders, cgroups and mount namespaces of their own.

Kubelet has some paths built in (/var/lib/kubelet/device-plugins) and writes sysctls: it gets a mount namespace in which these
are files of the test's. Nothing of the machine is changed but a cgroup of our own, which is removed at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.root import HostRoot
from tests.conformance.images import BUSYBOX, PAUSE, write_images
from tests.conformance.kubelet_settings import SYSCTLS, kubelet_settings
from tests.daemon.support import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable

RESOURCE = "katacontainers.io/sandbox"
NODE = "node-a"
# How often kubelet and agent are restarted; fewer when somebody is in a hurry.
RESTARTS = int(os.environ.get("CONFORMANCE_RESTARTS", "50"))


def wait_until(
    ready: Callable[[], object], what: str, seconds: float = 40, *, pause_seconds: float = 0.05
) -> None:
    """Waits; an error of what is asked counts as not yet."""
    end = time.monotonic() + seconds
    error: Exception | None = None
    while time.monotonic() < end:
        try:
            if ready():
                return
        except (OSError, KeyError, ValueError) as caught:
            error = caught
        time.sleep(pause_seconds)
    raise AssertionError(f"not within {seconds:.0f} s: {what} ({error})")


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert isinstance(port, int)
        return port


class OwnCgroup:
    """A cgroup of ours in every v1 hierarchy; all that runs in it is killed at the end."""

    def __init__(self) -> None:
        # A process's number is that of another one in another namespace.
        self.path = f"/kata-node-agent-test-{os.getpid()}-{secrets.token_hex(3)}"
        mounts = find_cgroup_mounts(HostRoot())
        if mounts.hierarchy not in {"v1", "hybrid"}:
            # On v2 kubelet's group would have to get its controllers from the root, which is the machine's.
            raise RuntimeError("these tests know cgroup v1 only")
        table = Path("/proc/self/mounts").read_text()
        lines = [line.split(" ") for line in table.splitlines()]
        places = [(Path(line[1]), line[2]) for line in lines if line[1].startswith("/sys/fs/cgroup/")]
        self._mounts = [path for path, kind in places if kind == "cgroup"]
        # runc makes its groups in the unified hierarchy, too, where one is mounted.
        self._all_mounts = [path for path, kind in places if kind in {"cgroup", "cgroup2"}]

    def __enter__(self) -> Self:
        for mount in self._mounts:
            folder = Path(f"{mount}{self.path}")
            (folder / "runtime").mkdir(parents=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (mount / name).exists():
                    for group in (folder, folder / "runtime"):
                        (group / name).write_text((mount / name).read_text())
        return self

    def join(self, pid: int) -> None:
        """Puts a process, and so its later children, into our group."""
        for mount in self._mounts:
            Path(f"{mount}{self.path}/runtime/cgroup.procs").write_text(f"{pid}\n")

    def __exit__(self, *_: object) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            pids = {
                int(line)
                for mount in self._all_mounts
                for procs in Path(f"{mount}{self.path}").rglob("cgroup.procs")
                for line in procs.read_text().split()
                # 0 is a process of another namespace, which is not ours to end.
                if line != "0"
            }
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                break
            time.sleep(0.05)
        for mount in self._all_mounts:
            top = Path(f"{mount}{self.path}")
            if not top.exists():
                continue
            folders = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
            for folder in [*folders, top]:
                folder.rmdir()


class RealNode:
    """containerd for as long as the node is entered; kubelet and agents are started and stopped by the test."""

    def __init__(self, folder: Path, programs: Path, kubeconfig: Path | None = None) -> None:
        """`kubeconfig` is how kubelet reaches an API server; without one it knows static pods only."""
        self.folder = folder
        self._kubeconfig = kubeconfig
        self.agent_settings = ""
        self.feature_gates: dict[str, bool] = {}
        self._bin = programs
        self._cgroup = OwnCgroup()
        self._containerd: subprocess.Popen[bytes] | None = None
        self._kubelet: subprocess.Popen[bytes] | None = None
        self._agents: list[subprocess.Popen[bytes]] = []
        self.port, self.read_only_port, self.health_port = free_port(), free_port(), free_port()
        self.plugins = folder / "dp"
        self.pods_folder = folder / "pods"
        self.features, self.kvm = folder / "host/features.d", folder / "host/dev/kvm"
        for name in (
            "dp",
            "pods",
            "root",
            "sysctl",
            "host/dev",
            "host/features.d",
            "var-lib/kubelet/device-plugins",
        ):
            (folder / name).mkdir(parents=True)
        # The agent sees the host through links, so that a test can take a device from it, and give it back.
        for link in {"etc", "proc", "run", "sys", "usr", "var", "dev/kvm", "dev/shm", folder.parts[1]}:
            (folder / "host" / link).symlink_to(f"/{link}")

    # containerd

    def __enter__(self) -> Self:
        self._cgroup.__enter__()
        try:
            self._start_containerd()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_containerd(self) -> None:
        config = self.folder / "containerd.toml"
        config.write_text(
            f'version = 3\nroot = "{self.folder}/cd"\nstate = "{self.folder}/state"\n'
            f'[grpc]\n  address = "{self._socket}"\n'
            '[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "native"\n'
            f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{PAUSE}"\n'
            # A handler of Kata's name: what differs here is the name, which is all that scheduling sees.
            '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]\n'
            '  runtime_type = "io.containerd.runc.v2"\n'
            # Where this test runs a process may not be allowed to lower its own score.
            '[plugins."io.containerd.cri.v1.runtime"]\n  restrict_oom_score_adj = true\n'
            f'[plugins."io.containerd.nri.v1.nri"]\n  socket_path = "{self.folder}/nri.sock"\n'
        )
        # Mounts are shared, as systemd makes them on a node: pods may ask to see those that come later.
        script = 'mount --make-rshared / && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", self._bin / "containerd", "-c", config]
        self._containerd = self._spawn("containerd", command, join=True)
        wait_until(self._socket.exists, "containerd's socket")
        for image in write_images(self.folder):
            self.import_image(image)

    def import_image(self, archive: Path) -> None:
        """Makes an image known to containerd."""
        command = [self._bin / "ctr", "-a", self._socket, "-n", "k8s.io", "images", "import", archive]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)

    def end_containers(self) -> None:
        """Kills what runs in all pods, as a reboot does: kubelet and runtime are left with what they have written down."""
        ctr = [str(self._bin / "ctr"), "-a", str(self._socket), "-n", "k8s.io", "tasks"]
        tasks = subprocess.run([*ctr, "ls", "-q"], check=True, capture_output=True, text=True).stdout.split()
        for task in tasks:
            # One may have ended with the one before.
            subprocess.run([*ctr, "kill", "-s", "SIGKILL", "-a", task], check=False, capture_output=True)
        running = [*ctr, "ls"]
        wait_until(
            lambda: (
                "RUNNING" not in subprocess.run(running, check=True, capture_output=True, text=True).stdout
            ),
            "all containers have ended",
        )

    @property
    def _socket(self) -> Path:
        return self.folder / "containerd.sock"

    # kubelet

    def start_kubelet(self) -> None:
        """Starts kubelet, in a new mount namespace over the same folders."""
        settings = kubelet_settings(
            port=self.port,
            read_only_port=self.read_only_port,
            cgroup=self._cgroup.path,
            pods=self.pods_folder,
            runtime=self._socket,
        )
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps({**settings, "featureGates": self.feature_gates}))
        binds = [(self.plugins, Path("/var/lib/kubelet/device-plugins"))]
        for name in SYSCTLS:
            copy = self.folder / "sysctl" / name.replace("/", "_")
            if not copy.exists():
                copy.write_text(Path("/proc/sys", name).read_text())
            binds.append((copy, Path("/proc/sys", name)))
        script = "set -e; mount --bind $1 /var/lib; shift; while [ $1 != -- ]; do mount --bind $1 $2; shift 2; done; shift; exec $@"
        arguments = [str(part) for bind in binds for part in bind]
        self._kubelet = self._spawn(
            "kubelet",
            ["unshare", "-m", "sh", "-c", script, "sh", self.folder / "var-lib", *arguments, "--",
             self._bin / "kubelet", f"--config={config}", f"--root-dir={self.folder}/root",
             f"--cert-dir={self.folder}/pki", f"--hostname-override={NODE}",
             *([f"--kubeconfig={self._kubeconfig}"] if self._kubeconfig else [])],
        )  # fmt: skip

    def stop_kubelet(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends kubelet by a signal; pods go on."""
        assert self._kubelet is not None
        end_child(self._kubelet, number)

    # agent

    def start_agent(self) -> None:
        """Starts an agent on kubelet's folder."""
        config = self.folder / "agent.toml"
        config.write_text(
            f'[health]\ntcp_address = "127.0.0.1:{self.health_port}"\n'
            # Who asks at this runtime's socket is another test's matter.
            "[nri]\nenabled = false\n"
            f'[kubelet]\npod_resources_socket = "{self.folder}/root/pod-resources/kubelet.sock"\n'
            f'[nfd]\nlabel = "always"\nfeatures_dir = "/features.d"\n{self.agent_settings}'
        )
        command = [
            *COMMAND, "run", "--config", config, "--device-plugin-dir", self.plugins,
            "--host-root", self.folder / "host", "--run-dir", self.folder / "run", "--state-dir", self.folder / "agent-state",
        ]  # fmt: skip
        self._agents.append(self._spawn("agent", command))

    def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the newest agent."""
        end_child(self._agents.pop(), number)

    def status(self) -> dict[str, Any]:
        """What `status` says; empty while nobody answers."""
        done = subprocess.run(
            [*COMMAND, "status", "--run-dir", self.folder / "run", "--format", "json"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def registered(self) -> bool:
        """Whether kubelet holds the agent's stream."""
        kubelet = self.status().get("kubelet", {})
        return bool(kubelet.get("registered") and kubelet.get("stream_open"))

    # pods

    def add_pod(self, name: str, devices: int = 1) -> None:
        """A static pod with so many devices.

        Names are used once: a static pod's uid follows from its content, and one that comes again meets its own past.
        """
        resources = {"limits": {RESOURCE: str(devices), "memory": "32Mi", "cpu": "50m"}} if devices else {}
        container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "resources": resources}
        self.put_pod(name, container)

    def put_pod(self, name: str, container: dict[str, Any]) -> None:
        """A static pod of this container; its file comes whole, as kubelet looks at once."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"hostNetwork": True, "terminationGracePeriodSeconds": 0, "containers": [container]},
        }
        making = self.folder / f"{name}.json"
        making.write_text(json.dumps(pod))
        making.rename(self.pods_folder / f"{name}.json")

    def remove_pod(self, name: str) -> None:
        """Takes a static pod away."""
        (self.pods_folder / f"{name}.json").unlink()

    def get(self, path: str) -> Any:
        """Kubelet's own answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.read_only_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def pods(self) -> dict[str, dict[str, Any]]:
        """Status by name, without the node's name in it."""
        items = self.get("/pods")["items"] or []
        return {item["metadata"]["name"].removesuffix(f"-{NODE}"): item["status"] for item in items}

    def running(self, name: str) -> str:
        """The id of the pod's container while it runs; else empty."""
        states = self.pods().get(name, {}).get("containerStatuses", [])
        return str(states[0]["containerID"]) if states and "running" in states[0]["state"] else ""

    # all

    def _spawn(self, name: str, command: list[Any], *, join: bool = False) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}"}
        with open(self.folder / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ
            )
        if join:
            self._cgroup.join(child.pid)
        return child

    def log(self, name: str) -> str:
        """The end of a program's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-8000:]

    def __exit__(self, *_: object) -> None:
        for child in (*self._agents, self._kubelet, self._containerd):
            if child is not None:
                end_child(child, signal.SIGKILL)
        self._cgroup.__exit__()


def end_child(child: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
    """Ends a child by a signal, and waits for its end."""
    if child.poll() is None:
        child.send_signal(number)
    child.wait(timeout=30)
