"""The documents' commands for systemd, in a booted machine, in the order in which a person gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.commands import commands, in_page, page

if TYPE_CHECKING:
    from tests.systemd.conftest import Unit

pytestmark = pytest.mark.systemd

# Unit files, not removed at the end of the test.
_INSTALLED = ("/etc/systemd/system/kata-node-agent*", "/etc/sysusers.d/kata-*", "/etc/tmpfiles.d/kata-*")


def test_the_service_of_a_pip_installation_is_set_up_by_the_printed_commands(unit: Unit) -> None:
    """The lines below `pip`, with the folder that came along: the machine has it at /mnt."""
    section = page("install.md").partition("\n## pip\n")[2].partition("\n## ")[0]
    lines = [command.line for command in in_page("install.md", section)]
    first = next(n for n, line in enumerate(lines) if line.startswith("cp "))
    last = next(n for n, line in enumerate(lines) if line.startswith("systemctl enable"))
    lines = lines[first : last + 1]
    assert [line.split()[0] for line in lines] == [
        "cp", "cp", "cp", "systemd-sysusers", "systemd-tmpfiles", "systemctl", "systemctl",
    ]  # fmt: skip
    try:
        # What the packages brought is out of the way.
        unit.run(
            "mkdir /run/aside; mv /usr/lib/systemd/system/kata-node-agent* /run/aside; systemctl daemon-reload"
        )
        unit.run("mkdir -p /etc/sysusers.d /etc/tmpfiles.d")
        unit.run("set -e; cd /mnt/systemd; " + "; ".join(lines))
        assert unit.show("ActiveState") == "active"
        assert unit.show("FragmentPath") == "/etc/systemd/system/kata-node-agent.service"
        assert unit.run("systemctl is-enabled kata-node-agent").stdout.strip() == "enabled"
    finally:
        unit.run("systemctl disable --now kata-node-agent", check=False)
        unit.run(f"rm -f {' '.join(_INSTALLED)}; mv /run/aside/* /usr/lib/systemd/system/; rmdir /run/aside")
        unit.run("systemctl daemon-reload; systemctl preset kata-node-agent")


def test_each_systemctl_command_does_what_the_documents_say(unit: Unit) -> None:
    printed = {
        command.line
        for command in commands()
        if command.program == "systemctl" and "kata-node-agent" in command.line and "edit" not in command.line
    }
    expected = [
        ("systemctl daemon-reload", "inactive"),
        ("systemctl enable --now kata-node-agent", "active"),
        ("systemctl status kata-node-agent", "active"),
        ("systemctl reload kata-node-agent", "active"),
        ("systemctl restart kata-node-agent", "active"),
        ("systemctl disable --now kata-node-agent", "inactive"),
        ("systemctl start kata-node-agent", "active"),
        ("systemctl stop kata-node-agent", "inactive"),
    ]
    assert printed <= {line for line, _ in expected}
    assert "1.7" in unit.run("systemd-analyze security kata-node-agent --no-pager").stdout
    for line, state in expected:
        unit.run(line)
        assert unit.show("ActiveState") == state, line
    assert "serving socket=" in unit.run("journalctl -u kata-node-agent").stdout
    assert "serving socket=" not in unit.run("journalctl -u kata-node-agent -p warning").stdout
    unit.run("systemctl preset kata-node-agent")
