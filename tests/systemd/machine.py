"""A Debian that is booted with its own systemd by systemd-nspawn, for tests; all that it writes is gone when it ends.

The tree is made once, by debootstrap, from the mirror that apt has here, and kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUITE = "bookworm"
PYTHON = (3, 11)  # of that suite: what is installed into the tree is built for it
PACKAGES = "systemd,systemd-sysv,dbus,python3,rpm"
# To be changed with what is in the tree.
TREE = f"{SUITE}-{platform.machine()}-2"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kata-node-agent" / "trees"
ENVIRON = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "cat",
}
CGROUPS = Path("/sys/fs/cgroup")


def missing() -> str:
    """Why no machine can be booted here; empty when one can."""
    if os.geteuid():
        return "only root can boot a machine"
    for program, package in (
        ("systemd-nspawn", "systemd-container"),
        ("debootstrap", "debootstrap"),
        ("nsenter", "util-linux"),
    ):
        if shutil.which(program) is None:
            return f"{program} is not installed (package {package})"
    if sys.version_info[:2] != PYTHON:
        return f"the tests run with another Python than the {'.'.join(map(str, PYTHON))} of {SUITE}"
    return "" if (CACHE / TREE).is_dir() or mirror() else f"apt knows no mirror of {SUITE} here"


def mirror() -> str:
    """Where apt has the suite from; empty where it does not."""
    columns = "$(SITE) $(CODENAME) $(ORIGIN)"
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", columns, "Created-By: Packages"],
        capture_output=True,
        text=True,
    )
    rows = (line.split() for line in done.stdout.splitlines())
    return next((row[0] for row in rows if row[1:] == [SUITE, "Debian"]), "")


def tree() -> Path:
    """The folder with the system; made if it is not there yet, which takes a minute or two."""
    folder = CACHE / TREE
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f".{TREE}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = CACHE / f".{TREE}"
            shutil.rmtree(unfinished, ignore_errors=True)
            command = [
                "debootstrap",
                "--variant=minbase",
                f"--include={PACKAGES}",
                SUITE,
                str(unfinished),
                mirror(),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            shutil.rmtree(unfinished / "var/cache/apt", ignore_errors=True)
            unfinished.rename(folder)
    return folder


def until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Polls until it holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.1)


class Machine:
    """One that is booted, from `with` until its end.

    Args:
        name: its host name.
        binds: folders and files of this machine that it shall see, read-only: there → here.
        log: takes what its console says.
    """

    def __init__(self, name: str, binds: dict[str, Path], log: Path) -> None:
        self.name = name
        self._binds = binds
        self._log = log
        # Of one name in each hierarchy: nspawn makes the one like the other.
        group = f"{name}-{os.urandom(4).hex()}"
        self._groups = [root / group for root in _hierarchies()]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        folder = tree()
        for group in self._groups:
            group.mkdir()
        command = [
            # It ends with the tests, whatever ends them.
            *("setpriv", "--pdeathsig=TERM"),
            *("systemd-nspawn", "--quiet", f"--directory={folder}", "--volatile=overlay", "--boot"),
            # Nothing of it is known to a systemd of this machine, if there is one.
            *(
                "--register=no",
                "--keep-unit",
                f"--machine={self.name}",
                "--private-network",
                "--console=pipe",
            ),
            "--bind=/dev/kvm",
            # Which a real machine's units can be given, and nspawn withholds.
            "--capability=CAP_SYS_RAWIO",
            *[f"--bind-ro={here}:{there}" for there, here in self._binds.items()],
        ]
        # In a control group of its own, as it makes others beside itself. $0… are words, never read as a script.
        move = 'for group in $GROUPS_OF_IT; do echo $$ > "$group/cgroup.procs"; done; exec "$@"'
        groups = " ".join(map(str, self._groups))
        with open(self._log, "wb") as log:
            self._nspawn = subprocess.Popen(
                ["/bin/sh", "-euc", move, "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GROUPS_OF_IT": groups},
                start_new_session=True,
            )
        try:
            until(self._find_leader, f"{self.name} boots: {self.console}")
            until(self._is_up, f"{self.name} is up: {self.console}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._nspawn is not None
        with contextlib.suppress(ProcessLookupError):
            # nspawn passes it on as the signal that a systemd powers off by.
            self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(timeout=30)
        except subprocess.TimeoutExpired:
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)
            self._nspawn.kill()
            self._nspawn.wait()
        for group in self._groups:
            until(lambda group=group: _removed(group), f"{group} is empty", timeout=10)  # type: ignore[misc]

    @property
    def console(self) -> str:
        """What it has said on its console."""
        return self._log.read_text(errors="replace")[-2000:]

    def _find_leader(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self.console
        pid = self._nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._leader = int(children[0]) if children else 0
        return bool(children)

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self.console
        with contextlib.suppress(subprocess.SubprocessError):
            done = self.run("systemctl is-system-running", check=False)
            return done.stdout.strip() in {"running", "degraded"}
        return False

    def inside(self, *command: str) -> list[str]:
        """The command line, of this machine, that runs a command in that one: in its namespaces, with all capabilities."""
        environ = [f"{name}={value}" for name, value in ENVIRON.items()]
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
        return ["nsenter", f"--target={self._leader}", *spaces, "env", "-i", *environ, *command]

    def run(
        self, script: str, *, check: bool = True, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script of /bin/sh in there; it may take `timeout` seconds, and fails the test if it fails and `check`."""
        done = subprocess.run(
            self.inside("sh", "-euc", script), capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def write(self, path: str, text: str) -> None:
        """Writes a file in there."""
        command = self.inside("sh", "-euc", 'mkdir -p "$(dirname "$1")"; cat > "$1"', "sh", path)
        subprocess.run(command, input=text, text=True, check=True, timeout=30)

    def copy(self, path: str, here: Path, *, mode: str = "644") -> None:
        """Copies a file of this machine to a path in there."""
        command = self.inside("sh", "-euc", 'cat > "$1"; chmod "$2" "$1"', "sh", path, mode)
        with here.open("rb") as file:
            subprocess.run(command, stdin=file, check=True, timeout=30)


def _hierarchies() -> Iterator[Path]:
    """Where a control group has to be made, so that a systemd in it has its own."""
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS
    else:
        yield from (folder for name in ("systemd", "unified") if (folder := CGROUPS / name).is_dir())


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not group.exists()
