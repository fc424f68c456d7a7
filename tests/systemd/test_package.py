"""The RPM on a system that runs: installed, updated and rolled back under the agent, removed."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.conftest import (
    BEFORE,
    FIND,
    REPOSITORY,
    RPM,
    SERVICE,
    Unit,
    admit,
    admitted,
    start_with_kubelet,
)
from tests.systemd.machine import until

pytestmark = pytest.mark.systemd

INSTALLED, NEWER = "/mnt/rpm", "/run/newer.rpm"
# What docs/install.md names.
LEFT = {
    "/etc/kata-node-agent",
    "/etc/kata-node-agent/config.toml.rpmsave",
    "/var/lib/kata-node-agent",
    "/run/kata-node-agent",
    "/var/lib/kubelet/device-plugins/.katacontainers.io_sandbox-lock",
}


def rpm(unit: Unit, arguments: str) -> str:
    """What rpm and the scriptlets have said, but for Debian's words about rpm itself."""
    done = unit.run(f"{RPM} {arguments}")
    lines = (done.stdout + done.stderr).splitlines()
    return "\n".join(line for line in lines if not line.startswith("rpm: "))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tree as version 99.0.0."""
    folder = tmp_path_factory.mktemp("newer")
    tree = folder / "tree"
    shutil.copytree(os.environ["PACKAGE_TREE"], tree, symlinks=True)
    packages = tree / "usr/lib/kata-node-agent/python/packages"
    (metadata,) = packages.glob("kata_node_agent-*.dist-info/METADATA")
    metadata.write_text(re.sub(r"(?m)^Version: .*$", "Version: 99.0.0", metadata.read_text()))
    with (packages / "kata_node_agent/__init__.py").open("a") as module:
        module.write('\n__version__ = "99.0.0"\n')
    # Compiled modules are not compared with their sources.
    (compiled,) = (packages / "kata_node_agent/__pycache__").glob("__init__.*")
    compiled.unlink()
    script = str(REPOSITORY / "packages" / "rpm.py")
    subprocess.run(["/usr/bin/python3", script, str(tree), str(folder)], check=True, timeout=300)
    (package,) = folder.glob("*.rpm")
    return package


@pytest.fixture
def package(unit: Unit) -> Iterator[None]:
    """Before and after a test all files of the package are there, and it is enabled."""
    again = f"{RPM} --upgrade --oldpackage --replacepkgs {INSTALLED}; systemctl enable {SERVICE}"
    unit.run(again)
    yield
    unit.run(f"systemctl stop {SERVICE} 2>/dev/null || true; {again}")


def version(unit: Unit) -> str:
    """The version of the agent that runs."""
    return str(unit.status()["version"])


def test_an_installation_enables_it_and_starts_nothing(unit: Unit, package: None) -> None:
    unit.run(f"{RPM} --erase kata-node-agent; groupdel kata-node-agent")
    assert unit.show("LoadState") == "not-found"

    assert rpm(unit, f"--install {INSTALLED}") == ""

    assert unit.run(f"systemctl is-enabled {SERVICE}").stdout == "enabled\n"
    assert unit.run("systemctl is-enabled kata-node-agent-retry.timer", check=False).stdout == "static\n"
    assert unit.show("ActiveState") == "inactive"
    assert unit.run("getent group kata-node-agent").stdout.startswith("kata-node-agent:")
    assert unit.run("stat -c %a /var/lib/kubelet/device-plugins").stdout == "750\n"
    assert rpm(unit, "--verify kata-node-agent") == ""


def test_an_update_and_the_way_back_restart_it_with_what_was_admitted(
    unit: Unit, newer: Path, package: None
) -> None:
    unit.configure('mode = "warn"\n')
    start_with_kubelet(unit)
    admit(unit, "one")
    old, first = version(unit), unit.pid
    kubelet = unit.run("systemctl show --value --property=MainPID kubelet.service").stdout
    unit.machine.copy(NEWER, newer)

    for arguments, expected in (
        (f"--upgrade {NEWER}", "99.0.0"),
        (f"--upgrade --oldpackage {INSTALLED}", old),
    ):
        assert rpm(unit, arguments) == ""
        # Not a moment later: the scriptlet has waited until the agent served.
        assert version(unit) == expected
        assert unit.run("kata-node-agent --version").stdout.endswith(f" {expected}\n")
        assert admitted(unit) == {"one"}
        assert unit.status()["mode"] == "warn"
        assert unit.pid not in {0, first}
        first = unit.pid
        # All that it runs are files of the package that is there now.
        maps = unit.run(f"cat /proc/{first}/maps").stdout
        assert [line for line in maps.splitlines() if "/usr/" in line and line.endswith("(deleted)")] == []
        until(lambda: unit.status()["kubelet"]["registered"], "it is registered again")
        assert unit.show("NRestarts") == "0"
    # Ordered before it, yet nobody has touched kubelet.
    assert unit.run("systemctl show --value --property=MainPID kubelet.service").stdout == kubelet


def test_an_update_starts_no_agent_that_was_stopped(unit: Unit, newer: Path, package: None) -> None:
    unit.run(f"systemctl disable {SERVICE}")
    unit.machine.copy(NEWER, newer)
    assert rpm(unit, f"--upgrade {NEWER}") == ""
    assert unit.show("ActiveState") == "inactive"
    assert unit.run(f"systemctl is-enabled {SERVICE}", check=False).stdout == "disabled\n"


def test_a_removal_stops_it_and_leaves_what_the_document_says(unit: Unit, package: None) -> None:
    unit.configure('mode = "warn"\n')
    start_with_kubelet(unit)
    admit(unit, "one")
    pid = unit.pid
    # The development kubelet's own files go with it.
    unit.run(
        """
        kata-node-agent label remove
        systemctl stop kubelet.service
        cd /var/lib/kubelet
        rm -rf pod-resources devkubelet.lock device-plugins/devkubelet_checkpoint device-plugins/kubelet.sock
        """
    )

    said = rpm(unit, "--erase kata-node-agent")

    assert (
        said == "warning: /etc/kata-node-agent/config.toml saved as /etc/kata-node-agent/config.toml.rpmsave"
    )
    assert unit.show("LoadState") == "not-found"
    assert unit.show("ActiveState") == "inactive"
    assert unit.run(f"test ! -e /proc/{pid}", check=False).returncode == 0
    # Folders of the system's, which may hold what is others', stay where they are empty, too.
    is_no_folder = 'while read -r name; do case $name in *kata*) ;; *) test ! -d "$name" || continue ;; esac; echo "$name"; done'
    names = unit.run(
        f"""
        {FIND} | comm -3 {BEFORE} - | {is_no_folder}
        find /run -name '*kata-node-agent*' -not -path '/run/kata-node-agent/*'
        """
    ).stdout
    assert set(names.split()) == LEFT
    assert unit.run("getent group kata-node-agent").stdout.startswith("kata-node-agent:")
