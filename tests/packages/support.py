"""A root folder with nothing but the package, and programs that run in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

# What the kernel gives every root: /proc, /sys, devices, folders in memory. No file of the host is among it but /dev/kvm.
_MOUNTS = """
set -e
cd "$1"
mkdir -p proc sys dev run tmp var/lib
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs dev
mkdir dev/shm
for node in null zero urandom kvm; do : >dev/$node; mount --bind /dev/$node dev/$node; done
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
echo ready
exec sleep infinity
"""


class Installed:
    """Mounts below a root folder, in a mount namespace of their own that ends with this."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _MOUNTS, "sh", str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        line = self._holder.stdout.readline()
        assert line == "ready\n", line + self._holder.communicate()[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.communicate()

    def command(self, *command: str) -> list[str]:
        """What runs a program of the root folder in it."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "chroot", str(self.root), *command]

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in it, to its end."""
        return subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment(environment),
        )

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a program in it; nsenter and chroot become the program, so the PID is its own."""
        return subprocess.Popen(
            self.command(*command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment(environment),
        )

    @staticmethod
    def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(more or {})}


def rpm(root: Path, *arguments: str) -> str:
    """Runs rpm on a root folder, and gives what it printed; its warnings count as failures."""
    done = subprocess.run(
        ["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Debian's rpm warns of itself, on every system without a package database of its own.
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("rpm: ")]
    assert (done.returncode, complaints) == (0, []), done.stdout + done.stderr
    return done.stdout


def mapped_files(pid: int) -> set[Path]:
    """The files that a process has in memory: its program, libraries, data."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {
        Path(fields[5])
        for line in lines
        if len(fields := line.split(None, 5)) == 6 and fields[5].startswith("/")
    }


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Asks processes to end, and waits for them."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    for process in processes:
        process.wait(timeout=20)


def wait_until(look: Callable[[], T], what: str, seconds: float = 30) -> T:
    """The first true answer of ``look``."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return answer


def all_files(root: Path) -> set[str]:
    """Paths of all that is below a folder, and no folder."""
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    }
