"""Which versions the agent was tried against, in their own words."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BUILT = (
    "kubelet",
    "kube-apiserver",
    "kube-scheduler",
    "containerd",
    "crio",
    "crictl",
    "nfd-master",
    "nfd-worker",
    "butane",
    "quadlet",
)
_INSTALLED = ("etcd", "runc", "conmon", "qemu-system-x86_64")


def versions(programs: Path) -> dict[str, str]:
    """By program; `?` for one that does not say."""
    path = f"{programs}:{os.environ['PATH']}"
    found = {name: _ask(name, path) for name in (*_BUILT, *_INSTALLED)}
    found["containerd 1.7"] = _ask("containerd", f"{programs / 'containerd17'}:{path}")
    # Says nothing itself: Go knows what it was built from.
    command = ["go", "version", "-m", str(programs / "grpc-health-probe")]
    probe = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    found["grpc-health-probe"] = _first_version(probe.partition("\tmod\t")[2])
    return {**found, "kernel": platform.release(), "Python": platform.python_version()}


def _ask(name: str, path: str) -> str:
    command = ["env", f"PATH={path}", name, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return _first_version(done.stdout)


def _first_version(text: str) -> str:
    match = re.search(r"v?[0-9]+\.[0-9]+\.[0-9]+[-+.0-9a-z]*", text)
    return match[0].removesuffix("+unknown") if match else "?"
