"""A booted machine with the agent installed, and the unit in it, fresh for each test.

Installed is the wheel of these sources, with its files put where the packages put them; or, where PACKAGE_RPM names it, the RPM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.systemd.machine import Machine, until

if TYPE_CHECKING:
    from collections.abc import Iterator

if not os.environ.get("PACKAGE_RPM"):
    collect_ignore = ["test_package.py"]

REPOSITORY = Path(__file__).parents[2]
SERVICE = "kata-node-agent.service"
# As an entry point, but with the libraries from a folder of ours; a test may put its hooks before them.
COMMAND = """#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/kata-node-agent/current")
from kata_node_agent.cli.main import main
main()
"""
# A kubelet whose folder is the real one's.
KUBELET = """
[Service]
Type=exec
ExecStart=/usr/bin/kata-node-agent devkubelet serve --dir /var/lib/kubelet
"""
ADMIT = """
import sys
from pathlib import Path
from kata_node_agent.api.client import ask
from kata_node_agent.pb import agent_pb2
claim = agent_pb2.Claim(sandbox=sys.argv[1], vm_bytes=1 << 30, pod="default/" + sys.argv[1])
print(ask(Path("/run/kata-node-agent"), lambda stub: stub.Admit(claim, timeout=5)).allowed)
"""
# Beside the command there is an interpreter that finds the same modules.
PYTHON = "/opt/agent-python"
INSTALL_WHEEL = f"""
cd /mnt/systemd
cp {SERVICE} kata-node-agent-retry.timer /usr/lib/systemd/system/
cp kata-node-agent.sysusers /usr/lib/sysusers.d/kata-node-agent.conf
cp kata-node-agent.tmpfiles /usr/lib/tmpfiles.d/kata-node-agent.conf
cp 90-kata-node-agent.preset /usr/lib/systemd/system-preset/
mkdir -p /opt/kata-node-agent
ln -s /mnt/program /opt/kata-node-agent/current
install -m 755 /mnt/command /usr/bin/kata-node-agent
printf '#!/bin/sh\\nPYTHONPATH=/opt/kata-node-agent/current exec python3 "$@"\\n' > {PYTHON}
chmod 755 {PYTHON}
systemd-sysusers
systemd-tmpfiles --create kata-node-agent.conf
systemctl daemon-reload
systemctl preset {SERVICE}
"""
# Debian's rpm installs nothing on a Debian unless it is told to.
RPM = "rpm --force-debian"
# All names (but those of logs and rpm's own) before there was anything of the agent.
BEFORE = "/run/before"
FIND = "find / -xdev \\( -path /tmp -o -path /var/tmp -o -path /var/log -o -path /root/.rpmdb \\) -prune -o -print | sort"
INSTALL_RPM = f"""
printf '#!/bin/sh\\nexec /usr/lib/kata-node-agent/bin/python3 "$@"\\n' > {PYTHON}
chmod 755 {PYTHON}
# As on RHEL: what no preset names is not enabled.
echo 'disable *' > /usr/lib/systemd/system-preset/99-default-disable.preset
{FIND} > {BEFORE}
{RPM} --install /mnt/rpm
"""


class Unit:
    """The agent's unit in a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, script: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """See `Machine.run`."""
        return self.machine.run(script, **how)

    def show(self, name: str) -> str:
        """A property, as systemd has it."""
        return self.run(f"systemctl show --value --property={name} {SERVICE}").stdout.strip()

    @property
    def pid(self) -> int:
        """Its main process, by the machine's numbers; 0 without one."""
        return int(self.show("MainPID"))

    def log(self) -> str:
        """What it and systemd have said of it since the test began."""
        command = f"journalctl --output=cat --unit={SERVICE} --cursor-file=/run/cursor.read --no-pager"
        return self.run(f"cp /run/cursor /run/cursor.read; {command}").stdout

    def wait_for_log(self, words: str, timeout: float = 60) -> None:
        """Until it has said this."""
        until(lambda: words in self.log(), f"{words!r} in its log", timeout)

    def status(self) -> dict[str, Any]:
        """What `kata-node-agent status` tells."""
        document = json.loads(self.run("kata-node-agent status --format json", check=False).stdout)
        assert isinstance(document, dict)
        return document

    def drop_in(self, text: str) -> None:
        """Changes the unit for this test."""
        self.machine.write(f"/run/systemd/system/{SERVICE}.d/test.conf", text)
        self.run("systemctl daemon-reload")

    def configure(self, text: str) -> None:
        """Writes the configuration."""
        self.machine.write("/etc/kata-node-agent/config.toml", text)

    def hook(self, code: str) -> None:
        """Runs code in the agent before anything of its own: Python's sitecustomize."""
        if os.environ.get("PACKAGE_RPM"):
            pytest.skip("the RPM's interpreter runs nobody else's code")
        self.machine.write("/run/hooks/sitecustomize.py", code)
        self.drop_in("[Service]\nEnvironment=PYTHONPATH=/run/hooks\n")


def start(unit: Unit) -> None:
    unit.run(f"systemctl start {SERVICE}")


def start_with_kubelet(unit: Unit) -> None:
    unit.machine.write("/run/systemd/system/kubelet.service", KUBELET)
    unit.run(f"systemctl daemon-reload; systemctl start {SERVICE} kubelet.service")
    unit.wait_for_log("registered resource=")


def admit(unit: Unit, sandbox: str) -> None:
    unit.machine.write("/run/admit.py", ADMIT)
    assert unit.run(f"{PYTHON} /run/admit.py {sandbox}").stdout.strip() == "True"


def admitted(unit: Unit) -> set[str]:
    document = json.loads(unit.run("kata-node-agent ledger list --format json").stdout)
    return {row["sandbox"] for row in document["admissions"]}


def wheel(folder: Path) -> Path:
    """A folder with the package and all that it needs, installed as a wheel is."""
    site = folder / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-warn-script-location",
    ]
    done = subprocess.run([*pip, f"--target={site}", str(REPOSITORY)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return site


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One for all tests; each begins with a unit that was never started."""
    folder = tmp_path_factory.mktemp("machine")
    binds = {"/mnt/systemd": REPOSITORY / "systemd"}
    if rpm := os.environ.get("PACKAGE_RPM"):
        binds["/mnt/rpm"] = Path(rpm).resolve()
        script = INSTALL_RPM
    else:
        (folder / "command").write_text(COMMAND)
        binds |= {"/mnt/program": wheel(folder), "/mnt/command": folder / "command"}
        script = INSTALL_WHEEL
    with Machine("kata-node", binds, folder / "console") as machine:
        machine.run(script)
        yield machine


@pytest.fixture
def unit(machine: Machine) -> Iterator[Unit]:
    """The unit, as after an installation; afterwards nothing of the test is left."""
    machine.run(
        "journalctl --sync; journalctl --lines=0 --cursor-file=/run/cursor >/dev/null; rm -f /run/cursor.read"
    )
    try:
        yield Unit(machine)
    finally:
        machine.run(
            f"""
            systemctl stop kata-node-agent-retry.timer {SERVICE} kubelet.service vms.service 2>/dev/null || true
            rm -rf /run/systemd/system/*.service* /run/systemd/system/*.d /run/hooks
            rm -rf /etc/kata-node-agent /run/kata-node-agent /var/lib/kata-node-agent /var/lib/kubelet
            systemctl daemon-reload
            systemctl reset-failed
            systemd-tmpfiles --create kata-node-agent.conf
            """
        )
