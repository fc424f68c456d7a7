"""A booted machine with the agent installed as its packages do it, and the unit in it, fresh for each test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.systemd.machine import Machine, until

if TYPE_CHECKING:
    from collections.abc import Iterator

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
sys.path.insert(0, "/opt/kata-node-agent/current")
from pathlib import Path
from kata_node_agent.api.client import ask
from kata_node_agent.pb import agent_pb2
claim = agent_pb2.Claim(sandbox=sys.argv[1], vm_bytes=1 << 30, pod="default/" + sys.argv[1])
print(ask(Path("/run/kata-node-agent"), lambda stub: stub.Admit(claim, timeout=5)).allowed)
"""
INSTALL = f"""
cd /mnt/systemd
cp {SERVICE} kata-node-agent-retry.timer /usr/lib/systemd/system/
cp kata-node-agent.sysusers /usr/lib/sysusers.d/kata-node-agent.conf
cp kata-node-agent.tmpfiles /usr/lib/tmpfiles.d/kata-node-agent.conf
cp 90-kata-node-agent.preset /usr/lib/systemd/system-preset/
mkdir -p /opt/kata-node-agent
ln -s /mnt/program /opt/kata-node-agent/current
install -m 755 /mnt/command /usr/bin/kata-node-agent
systemd-sysusers
systemd-tmpfiles --create kata-node-agent.conf
systemctl daemon-reload
systemctl preset {SERVICE}
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
        self.machine.write("/run/hooks/sitecustomize.py", code)
        self.drop_in("[Service]\nEnvironment=PYTHONPATH=/run/hooks\n")


def start(unit: Unit) -> None:
    unit.run(f"systemctl start {SERVICE}")


def admit(unit: Unit, sandbox: str) -> None:
    unit.machine.write("/run/admit.py", ADMIT)
    assert unit.run(f"python3 /run/admit.py {sandbox}").stdout.strip() == "True"


def admitted(unit: Unit) -> set[str]:
    document = json.loads(unit.run("kata-node-agent ledger list --format json").stdout)
    return {row["sandbox"] for row in document["admissions"]}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and all that it needs, installed as a wheel is."""
    folder = tmp_path_factory.mktemp("program") / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-warn-script-location",
    ]
    done = subprocess.run([*pip, f"--target={folder}", str(REPOSITORY)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[Machine]:
    """One for all tests; each begins with a unit that was never started."""
    folder = tmp_path_factory.mktemp("machine")
    (folder / "command").write_text(COMMAND)
    binds = {
        "/mnt/systemd": REPOSITORY / "systemd",
        "/mnt/program": program,
        "/mnt/command": folder / "command",
    }
    with Machine("kata-node", binds, folder / "console") as machine:
        machine.run(INSTALL)
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
            rm -rf /etc/kata-node-agent /run/kata-node-agent /var/lib/kata-node-agent
            systemctl daemon-reload
            systemctl reset-failed
            systemd-tmpfiles --create kata-node-agent.conf
            """
        )
