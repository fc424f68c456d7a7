"""Fixtures for all tests, and the guard that keeps unit tests away from the machine they run on.

A unit test that reads /proc, /sys or /dev, starts a program or probes the processor would pass on one machine and fail
on another. Such a test must say so with a marker (`host`, `kvm`, …); without one the guard fails it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# A machine that is busy is no reason for a test to fail: nothing here is timed.
settings.register_profile("kata-node-agent", deadline=None)
settings.load_profile("kata-node-agent")

REAL_MARKERS = frozenset({"host", "kvm", "vm", "kubelet", "containerd", "systemd", "browser", "prometheus"})
# In CI a missing real part is a failure, not a skip.
IN_CI = os.environ.get("CI", "") not in {"", "0", "false"}

_GUARDED = (
    "/proc",
    "/sys/",
    "/dev/",
    "/etc/",
    "/run/",
    "/var/lib/kubelet",
    "/usr/lib/modules",
    "/lib/modules",
)
# What the interpreter and its libraries open by themselves.
_ALLOWED = (
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
    "/dev/tty",
    "/proc/self/",
    "/dev/shm/",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
)


class _Guard:
    """Watches the interpreter's audit events while `active` names a unit test."""

    def __init__(self) -> None:
        self.active = ""
        self.violations: list[str] = []

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by the interpreter; an audit hook cannot be removed, so it looks at `active` first."""
        if not self.active:
            return
        if event in {"open", "os.listdir", "os.scandir", "os.chmod", "os.remove", "os.mkdir"}:
            path = arguments[0]
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, str) and path.startswith(_GUARDED) and not path.startswith(_ALLOWED):
                self._fail(f"{event} {path}")
        elif event in {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"}:
            self._fail(f"{event} {arguments[0]}")

    def _fail(self, what: str) -> None:
        # Remembered as well as raised: the code under test may swallow the exception.
        self.violations.append(what)
        raise RuntimeError(f"unit test {self.active} touches the host: {what}")


_guard = _Guard()
sys.addaudithook(_guard.hook)


class _NoNative:
    """Stands where the native module stands, and fails whoever probes the machine.

    Watching a folder is no probe, nor is reading below one that was opened: of the real /proc that is seen above.
    """

    def __init__(self, lib: Any) -> None:
        reading = ("list_processes", "read_processes", "open_sizes", "read_sizes", "read_memory")
        for name in ("watch_folder", *reading):
            setattr(self, f"kna_{name}", getattr(lib, f"kna_{name}"))

    def __getattr__(self, name: str) -> Any:
        _guard.violations.append(f"native call {name}")
        raise RuntimeError(f"unit test {_guard.active} touches the host: native call {name}")


@pytest.fixture(autouse=True)
def _keep_off_the_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a unit test that touches the host; leaves tests with a marker of a real part alone."""
    for name in [name for name in os.environ if name.startswith("KATA_NODE_AGENT_")]:
        monkeypatch.delenv(name)
    if any(request.node.get_closest_marker(name) for name in REAL_MARKERS):
        yield
        return
    from kata_node_agent.host import native

    # By name: the package shows the function `load` where the module would be.
    monkeypatch.setattr(
        import_module("kata_node_agent.config.load"), "DEFAULT_FILE", Path("/nonexistent/config.toml")
    )
    monkeypatch.setattr(native, "_lib", _NoNative(native._lib))
    _guard.violations.clear()
    _guard.active = request.node.name
    try:
        yield
    finally:
        _guard.active = ""
    if _guard.violations:
        pytest.fail(f"touches the host: {'; '.join(sorted(set(_guard.violations)))}")


def _missing(marker: str) -> str:
    """Why a real part cannot be used here; empty when it can."""
    if marker == "kvm":
        try:
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return f"/dev/kvm: {error.strerror}"
    if marker == "vm":
        from tests.sandboxes import vms

        return vms.missing()
    if marker == "prometheus" and not (shutil.which("prometheus") and shutil.which("promtool")):
        return "Debian's prometheus is not installed"
    if marker == "systemd":
        from tests.systemd import machine

        return machine.missing()
    if marker == "browser":
        from tests.publish import browser

        return browser.missing()
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose real part is not here; in CI that is a failure."""
    for marker in sorted(REAL_MARKERS):
        if item.get_closest_marker(marker) and (reason := _missing(marker)):
            missing(f"{marker}: {reason}")


def need(*programs: str) -> None:
    """Skips a test where one of these is not installed; in CI that is a failure."""
    for program in programs:
        if shutil.which(program) is None:
            missing(f"{program} is not installed")


def missing(what: str) -> NoReturn:
    """Ends a test whose real part is not here."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's has at most 107 bytes, and pytest's own folders can be longer."""
    with tempfile.TemporaryDirectory(prefix="kna-") as folder:
        yield Path(folder)
