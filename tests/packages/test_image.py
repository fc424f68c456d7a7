"""The image from scratch, run by a real podman with what the Quadlet file says: mounts, capabilities, read-only root."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packages.support import end, wait_until
from tests.systemd.quadlet import FILE, podman_arguments, sections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = [pytest.mark.host, pytest.mark.kvm]

ROOT = Path(__file__).parents[2]
# Of capabilities(7).
SYS_PTRACE = 19
# podman asks for more by itself than a machine may allow.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
# Host paths that the test must not touch, and those that a host without Kubernetes lacks.
OWN = (
    "/run/kata-node-agent",
    "/var/lib/kata-node-agent",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet/pod-resources",
    "/var/run/nri",
    "/etc",
    "/etc/kata-node-agent",
    "/etc/kubernetes/node-feature-discovery/features.d",
    "/var/lib/kubelet",
)


class Podman:
    """podman with storage of its own, for the kind of control groups that is mounted here."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", f"{folder}/storage", "--runroot", f"{folder}/run", "--storage-driver=vfs"]
        self._options += ["--cgroup-manager=cgroupfs", "--runtime=runc"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *self._options, *arguments], capture_output=True, text=True, timeout=120
        )

    def must(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="kna-") as folder:
        podman = Podman(Path(folder))
        file = str(ROOT / "packages" / "Containerfile")
        tree = os.environ["PACKAGE_TREE"]
        podman.must("build", "--isolation=chroot", "--tag=localhost/kata-node-agent", "--file", file, tree)
        yield podman


def test_is_the_tree_and_nothing_else(podman: Podman) -> None:
    (image,) = json.loads(podman.must("image", "inspect", "localhost/kata-node-agent"))

    assert image["Config"]["Entrypoint"] == ["/usr/bin/kata-node-agent"]
    assert image["Size"] <= 64 * 1024 * 1024
    assert len(image["RootFS"]["Layers"]) == 1


def test_serves_with_what_the_quadlet_gives_it(podman: Podman, short_dir: Path) -> None:
    container = sections(FILE.read_text())["Container"]
    arguments = podman_arguments([(key, _elsewhere(key, value, short_dir)) for key, value in container])
    plugins = _folder(short_dir, "/var/lib/kubelet")
    kubelet = subprocess.Popen(
        [sys.executable, "-m", "kata_node_agent", "devkubelet", "serve", "--dir", str(plugins)],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(plugins.joinpath("device-plugins/kubelet.sock").exists, "the development kubelet serves")
        podman.must("run", "--detach", *LIMITS, *arguments, "localhost/kata-node-agent", *_exec(container))
        try:
            wait_until(
                lambda: _status(podman).get("kubelet", {}).get("registered"), "the agent is registered"
            )
            found = _status(podman)
            assert found["verdict"] == "eligible"
            assert found["slots"]["healthy"] > 0
            _has_only_what_is_declared(podman)
        finally:
            podman.run("stop", "--time=10", "kata-node-agent")
        (state,) = json.loads(podman.must("inspect", "kata-node-agent"))
        assert state["State"]["ExitCode"] == 0, podman.run("logs", "kata-node-agent").stderr
    finally:
        podman.run("rm", "--force", "kata-node-agent")
        end(kubelet)


def test_does_without_the_calls_that_an_old_systemd_refuses(podman: Podman, tmp_path: Path) -> None:
    unit = (ROOT / "systemd" / "kata-node-agent.service").read_text()
    (name,) = re.findall(r"^SystemCallErrorNumber=(\w+)$", unit, re.MULTILINE)
    # Younger than systemd 239, so in none of its groups.
    calls = ["clone3", "close_range", "faccessat2", "openat2", "rseq"]
    rule = {"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": getattr(errno, name)}
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    program = "from threading import Thread as T; t = T(target=print, args=['done']); t.start(); t.join()"
    options = ["--rm", "--network=none", f"--security-opt=seccomp={profile}", *LIMITS]
    python = "--entrypoint=/usr/lib/kata-node-agent/bin/python3"

    assert podman.must("run", *options, python, "localhost/kata-node-agent", "-c", program) == "done\n"


def _has_only_what_is_declared(podman: Podman) -> None:
    (state,) = json.loads(podman.must("inspect", "kata-node-agent"))
    status = Path(f"/proc/{state['State']['Pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(fields[name], 16) == 1 << SYS_PTRACE, name
    assert fields["NoNewPrivs"] == "1"
    for place in ("/x", "/usr/lib/x", "/host/etc/x", "/host/run/x"):
        program = f"import errno, os\ntry: os.mkdir({place!r})\nexcept OSError as error: print(errno.errorcode[error.errno])"
        python = "/usr/lib/kata-node-agent/bin/python3"
        assert podman.must("exec", "kata-node-agent", python, "-c", program) == "EROFS\n", place


def _elsewhere(key: str, value: str, folder: Path) -> str:
    """A setting whose host path is one of the test's where the real one is not the test's to use."""
    place, colon, rest = value.partition(":")
    if key != "Volume" or place not in OWN:
        return value
    # No SELinux, no label.
    return f"{_folder(folder, place)}{colon}{rest.removesuffix(':z')}"


def _folder(root: Path, place: str) -> Path:
    folder = root / place.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _exec(container: list[tuple[str, str]]) -> list[str]:
    (command,) = (value for key, value in container if key == "Exec")
    return command.split()


def _status(podman: Podman) -> dict[str, Any]:
    done = podman.run("exec", "kata-node-agent", "/usr/bin/kata-node-agent", "status", "--format=json")
    document: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return document
