"""The agent as a service of a systemd that has really booted."""

import os
import signal
import textwrap

import pytest

from tests.systemd.conftest import KUBELET, SERVICE, Unit, admit, admitted, start, start_with_kubelet
from tests.systemd.machine import until

pytestmark = pytest.mark.systemd


def test_started_means_serving_also_without_a_kubelet(unit: Unit) -> None:
    start(unit)
    status = unit.status()
    assert status["kubelet"]["registered"] is False
    assert status["slots"]["healthy"] > 0
    assert unit.show("StatusText").startswith("waiting for kubelet's socket")


def test_not_ready_while_it_does_not_serve_and_kubelet_is_not_kept_waiting(unit: Unit) -> None:
    """An agent that hangs in its start costs kubelet a bounded time, and comes up by itself when it can."""
    unit.hook("import os, time\nwhile os.path.exists('/run/hooks/hang'): time.sleep(0.1)")
    unit.run("touch /run/hooks/hang")
    unit.machine.write(f"/run/systemd/system/{SERVICE}.d/z.conf", "[Service]\nTimeoutStartSec=3\n")
    unit.machine.write("/run/systemd/system/kubelet.service", KUBELET)
    unit.run(f"systemctl daemon-reload; systemctl start --no-block {SERVICE} kubelet.service")
    until(lambda: unit.show("ActiveState") == "activating", "the agent is being started")
    assert unit.run("systemctl is-active kubelet.service", check=False).stdout.strip() == "inactive"
    until(
        lambda: unit.run("systemctl is-active kubelet.service", check=False).stdout.strip() == "active",
        "kubelet starts although the agent does not",
    )
    assert unit.show("ActiveState") != "active"
    unit.run("rm /run/hooks/hang")
    until(lambda: unit.show("ActiveState") == "active", "the agent is up in the end")
    unit.wait_for_log("registered resource=katacontainers.io/sandbox")


# A loop by its name, and what has to hang for it to be stuck.
STUCK = {
    "node": ("kata_node_agent.daemon.alive", "look"),
    "sweep": ("kata_node_agent.sandboxes.watcher", "Watcher.sweep"),
    "account": ("kata_node_agent.daemon.memory", "MemoryReader.read"),
    "kubelet": ("kata_node_agent.kubelet.registrar", "Registrar._wait"),
    # The loop of all, which has nobody to tell on it but systemd.
    "all": ("kata_node_agent.daemon.account", "AccountKeeper._take"),
}
# Waits for a file that names the module and what in it shall never return. The limits of the loops are made short, so that
# the test is: they are the product's otherwise, and so is all that notices.
HANG = """
import sys, threading, time
def watch():
    while True:
        time.sleep(0.2)
        try:
            module, name = open("/run/hooks/hang").read().split()
        except (OSError, ValueError):
            continue
        import asyncio
        holder = sys.modules[module]
        *path, last = name.split(".")
        for part in path:
            holder = getattr(holder, part)
        def never(*args, **kwargs):
            time.sleep(3600)
        async def never_either(*args, **kwargs):
            await asyncio.sleep(3600)
        if asyncio.iscoroutinefunction(getattr(holder, last)):
            never = never_either
        setattr(holder, last, never)
        def silent_seconds(self):
            seconds = time.monotonic() - self._beat_at
            return seconds if seconds > 20 else 0.0
        sys.modules["kata_node_agent.daemon.pulse"].Pulse.silent_seconds = property(silent_seconds)
        return
threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.parametrize("loop", list(STUCK))
def test_the_watchdog_ends_an_agent_of_which_one_loop_is_stuck(unit: Unit, loop: str) -> None:
    unit.hook(textwrap.dedent(HANG))
    unit.configure("[eligibility]\ninterval_seconds = 1\n")
    unit.machine.write(f"/run/systemd/system/{SERVICE}.d/z.conf", "[Service]\nWatchdogSec=3\n")
    unit.machine.write("/run/systemd/system/kubelet.service", KUBELET)
    unit.run("systemctl daemon-reload")
    start(unit)
    unit.run("systemctl start kubelet.service")
    unit.wait_for_log("registered resource=")
    before = unit.pid
    unit.machine.write("/run/hooks/hang", " ".join(STUCK[loop]))
    until(lambda: unit.pid not in {0, before}, "it was started anew", timeout=90)
    log = unit.log()
    assert "Watchdog timeout" in log
    if loop != "all":
        assert f"no progress loops={loop}" in log
    # The log tells where each thread was.
    assert "Fatal Python error: Aborted" in log
    assert loop == "kubelet" or " in never" in log
    assert unit.show("NRestarts") != "0"


def test_the_watchdog_leaves_an_agent_alone_whose_kubelet_is_away(unit: Unit) -> None:
    unit.drop_in("[Service]\nWatchdogSec=2\n")
    start(unit)
    before = unit.pid
    unit.run("sleep 8")
    assert (unit.pid, unit.show("NRestarts")) == (before, "0")


def test_the_watchdog_ends_an_agent_that_is_stopped(unit: Unit) -> None:
    unit.drop_in("[Service]\nWatchdogSec=3\n")
    start(unit)
    before = unit.pid
    unit.run(f"kill -STOP {before}")
    until(lambda: unit.pid not in {0, before}, "it was started anew")
    until(lambda: unit.show("ActiveState") == "active", "it serves again")
    assert "Watchdog timeout" in unit.log()


@pytest.mark.parametrize("how", ["restart", "kill", "stop and start"])
def test_what_was_admitted_outlives_the_agent(unit: Unit, how: str) -> None:
    start(unit)
    admit(unit, "one")
    before = unit.pid
    match how:
        case "restart":
            unit.run(f"systemctl restart {SERVICE}")
        case "kill":
            unit.run(f"kill -{signal.SIGKILL} {before}")
            until(lambda: unit.pid not in {0, before}, "it was started anew")
            until(lambda: unit.show("ActiveState") == "active", "it serves again")
        case _:
            unit.run(f"systemctl stop {SERVICE}; systemctl start {SERVICE}")
    assert unit.pid != before
    assert admitted(unit) == {"one"}


@pytest.mark.skipif("PACKAGE_RPM" in os.environ, reason="test_package.py does it with two RPMs")
def test_an_upgrade_in_place_keeps_what_was_admitted(unit: Unit) -> None:
    start(unit)
    admit(unit, "one")
    try:
        # As a package does it: other files under the same names, then systemd is told.
        unit.run(
            f"""
            cp -r /mnt/program /opt/kata-node-agent/next
            echo '__version__ = "99.0.0"' >> /opt/kata-node-agent/next/kata_node_agent/__init__.py
            ln -sfn next /opt/kata-node-agent/current
            systemctl daemon-reload
            systemctl try-restart {SERVICE}
            """
        )
        assert unit.run("kata-node-agent status", check=False).stdout.count("99.0.0") == 1
        assert admitted(unit) == {"one"}
    finally:
        unit.run("ln -sfn /mnt/program /opt/kata-node-agent/current; rm -rf /opt/kata-node-agent/next")


def test_reload_takes_a_good_configuration_and_refuses_a_bad_one(unit: Unit) -> None:
    start(unit)
    before = unit.pid
    unit.configure('mode = "warn"\n')
    unit.run(f"systemctl reload {SERVICE}")
    until(lambda: unit.status()["mode"] == "warn", "the new mode is in force")
    unit.configure('mode = "wrong"\n')
    assert unit.run(f"systemctl reload {SERVICE}", check=False).returncode != 0
    assert "config.toml" in unit.log()
    status = unit.status()
    assert status["mode"] == "warn"
    assert "ReloadFailed" in {problem["reason"] for problem in status["problems"]}
    assert (unit.pid, unit.show("ActiveState")) == (before, "active")


def test_a_configuration_error_fails_the_unit_once_with_the_remedy_and_is_tried_again_later(
    unit: Unit,
) -> None:
    unit.configure("[sandbox]\nvm_memori = 1\n")
    assert unit.run(f"systemctl start {SERVICE}", check=False).returncode != 0
    assert unit.show("ActiveState") == "failed"
    shown = unit.run(f"systemctl status {SERVICE}", check=False).stdout
    assert "vm_memori" in shown
    assert "remedy:" in shown
    assert unit.show("NRestarts") == "0"
    assert unit.run("systemctl is-active kata-node-agent-retry.timer").stdout.strip() == "active"
    # Nobody is surprised by a start after a stop.
    unit.run(f"systemctl stop {SERVICE}")
    assert (
        unit.run("systemctl is-active kata-node-agent-retry.timer", check=False).stdout.strip() == "inactive"
    )


def test_trouble_that_ends_by_itself_leaves_no_agent_that_has_given_up(unit: Unit) -> None:
    unit.hook("import os\nif os.path.exists('/run/hooks/crash'): os._exit(1)")
    unit.machine.write(
        "/run/systemd/system/kata-node-agent-retry.timer.d/z.conf", "[Timer]\nOnActiveSec=\nOnActiveSec=12\n"
    )
    unit.run(f"systemctl daemon-reload; systemctl start {SERVICE}")
    # Twice: a timer that has been used must be there for the next time.
    for count in (1, 2):
        unit.run(f"touch /run/hooks/crash; systemctl kill --signal=KILL {SERVICE}")
        until(lambda: unit.show("ActiveState") == "failed", "five starts in a row are enough")
        assert unit.log().count("Start request repeated too quickly") == count
        assert int(unit.show("NRestarts")) <= 5
        unit.run("rm /run/hooks/crash")
        until(lambda: unit.show("ActiveState") == "active", "the timer has started it")


def test_stop_leaves_the_ledger_and_nothing_else(unit: Unit) -> None:
    start_with_kubelet(unit)
    group = unit.show("ControlGroup")
    unit.run(f"systemctl stop {SERVICE}")
    assert (unit.show("ActiveState"), unit.show("Result")) == ("inactive", "success")
    names = unit.run("ls -A /run/kata-node-agent").stdout.split()
    assert "agent.sock" not in names
    assert "ledger.db" in names
    plugins = unit.run("ls -A /var/lib/kubelet/device-plugins").stdout.split()
    assert not [name for name in plugins if name.endswith(".sock") and name != "kubelet.sock"]
    assert not unit.run(f"find /sys/fs/cgroup -path '*{group}'").stdout


def test_root_and_the_group_may_ask_and_nobody_else(unit: Unit) -> None:
    start(unit)
    unit.run("id -u asker >/dev/null 2>&1 || useradd --system --groups kata-node-agent asker")
    ask = "kata-node-agent status --format json"
    assert unit.run(
        f"setpriv --reuid asker --regid nogroup --groups kata-node-agent {ask}", check=False
    ).returncode in {0, 1}
    refused = unit.run(f"setpriv --reuid asker --regid nogroup --clear-groups {ask}", check=False)
    assert refused.returncode == 2
    assert "permission denied" in refused.stderr
    mode = unit.run(
        "stat -c '%a %U %G' /run/kata-node-agent/agent.sock /run/kata-node-agent/ledger.db"
    ).stdout
    assert mode.splitlines() == ["660 root kata-node-agent", "600 root kata-node-agent"]


def test_systemd_itself_finds_nothing_to_say(unit: Unit) -> None:
    done = unit.run(f"systemd-analyze verify --man=no {SERVICE} kata-node-agent-retry.timer")
    assert done.stdout + done.stderr == ""
    unit.run(f"systemd-analyze security --threshold=20 {SERVICE}")
    assert unit.run(f"systemctl is-enabled {SERVICE}").stdout.strip() == "enabled"
