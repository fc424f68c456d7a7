"""What systemd's sandbox lets the agent see and write, as it really is, and what is not there yet when the agent starts."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.conftest import KUBELET, PYTHON, REPOSITORY, SERVICE, Unit, admit, admitted, start
from tests.systemd.machine import until

pytestmark = pytest.mark.systemd

TEXT = (REPOSITORY / "systemd" / SERVICE).read_text()
CAPABILITIES = re.findall(r"^CapabilityBoundingSet=(.*)$", TEXT, re.MULTILINE)[0].split()
# VMs' processes as they look, and a line for each VM: its id and the processes'.
VMS = """
[Service]
Type=exec
{}
ExecStart=/bin/sh -c 'sleep infinity | /run/stand_in 1 128 16 8'
StandardOutput=truncate:/run/%N.lines
"""
KUBELET_KIND = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
USERS = {"vms": "root", "vms-of-another": "daemon", "vms-of-a-stranger": "nobody"}
# What runtime and kubelet know of a sandbox, with folders as closed as they make them at most.
KNOWN = """
read -r id pid rest < /run/vms-of-another.lines
umask 077
vm=/run/vc/vm/$id bundle=/run/containerd/io.containerd.runtime.v2.task/k8s.io/$id
mkdir -p $vm $bundle /var/log/pods/default_web_0a1b2c3d
echo $pid > $vm/pid
echo '{"annotations": {"io.kubernetes.cri.sandbox-uid": "0a1b2c3d", "io.containerd.cri.runtime-handler": "kata"}}' > $bundle/config.json
"""


@pytest.fixture
def vms(unit: Unit, tmp_path: Path) -> Iterator[None]:
    """A VM of root's, one of another user's as Kata starts them (rootless_hypervisor), and a stranger's; each with virtiofsd and shim."""
    program = tmp_path / "stand_in"
    source = REPOSITORY / "bench" / "programs" / "stand_in.c"
    subprocess.run(["cc", "-O1", "-static", "-o", str(program), str(source)], check=True)
    unit.machine.copy("/run/stand_in", program, mode="755")
    for name, user in USERS.items():
        unit.machine.write(f"/run/systemd/system/{name}.service", VMS.format(f"User={user}"))
    unit.run(f"systemctl daemon-reload; systemctl start {' '.join(USERS)}")
    until(lambda: unit.run("cat /run/vms*.lines").stdout.count("\n") == len(USERS), "all processes are there")
    unit.run(KNOWN)
    yield
    unit.run(
        f"systemctl stop {' '.join(USERS)}; rm -rf /run/vc /run/containerd /run/vms*.lines /var/log/pods"
    )


def seen(unit: Unit, command: str, drop_in: str = "") -> dict[str, Any]:
    """What a command of ours finds when it runs as the unit does."""
    unit.drop_in(
        f"""
        [Service]
        Type=oneshot
        Restart=no
        ExecStart=
        ExecStart=/bin/sh -c '{command} > /run/kata-node-agent/seen; true'
        {drop_in}
        """
    )
    unit.run(f"systemctl start {SERVICE}")
    document = json.loads(unit.run("cat /run/kata-node-agent/seen").stdout)
    assert isinstance(document, dict)
    return document


def checks(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(check["id"], check["status"], check["reason"]) for check in document["checks"]]


CHECK = "kata-node-agent check --format json --profile openshift"
# Of capabilities(7).
SYS_RAWIO, SYS_PTRACE = 17, 19


def test_it_hides_nothing_from_the_checks(unit: Unit) -> None:
    outside = json.loads(unit.run(CHECK, check=False).stdout)
    assert checks(seen(unit, CHECK)) == checks(outside)
    assert {"kvm.run-guest", "module.kvm", "shm.ceiling"} <= {row[0] for row in checks(outside)}


SANDBOXES = "kata-node-agent sandboxes --format json"


def vms_in(document: dict[str, Any]) -> tuple[list[Any], list[int]]:
    """What is known of the VMs, and who is not believed to belong to one."""
    kept = (
        "id",
        "pod",
        "handler",
        "pid",
        "base_bytes",
        "vm_memory_bytes",
        "resident_bytes",
        "host_overhead_bytes",
    )
    rows = [[row[key] for key in kept] for row in document["sandboxes"]]
    return rows, [row["pid"] for row in document["unbelieved"]]


def vms_outside(unit: Unit) -> tuple[list[Any], list[int]]:
    """As root without a sandbox sees them: two, and processes of others that are not believed (the stranger's, a shim)."""

    def now() -> tuple[list[Any], list[int]]:
        return vms_in(json.loads(unit.run(SANDBOXES).stdout))

    until(lambda: list(map(len, now())) == [2, 4], "all processes are there")
    rows, doubted = now()
    assert sorted(map(str, (row[1] for row in rows))) == ["None", "default/web"]
    return rows, doubted


@pytest.mark.usefixtures("vms")
def test_it_hides_nothing_of_the_vms(unit: Unit) -> None:
    assert vms_in(seen(unit, SANDBOXES)) == vms_outside(unit)


@pytest.mark.usefixtures("vms")
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_each_capability_is_needed(unit: Unit, capability: str) -> None:
    without = seen(unit, SANDBOXES, f"CapabilityBoundingSet=~{capability}")
    assert vms_in(without) != vms_outside(unit)


@pytest.mark.usefixtures("vms")
def test_the_right_to_read_all_files_would_show_nothing_more(unit: Unit) -> None:
    """Folders of Kata, runtime and kubelet are root's; of others' /proc/PID only what asks for SYS_PTRACE is read."""
    more = "CapabilityBoundingSet=CAP_DAC_READ_SEARCH"
    assert vms_in(seen(unit, SANDBOXES)) == vms_in(seen(unit, SANDBOXES, more)) == vms_outside(unit)

    kubelet = "/etc/kubernetes/kubelet.conf"
    unit.machine.write(kubelet, json.dumps({**KUBELET_KIND, "systemReserved": {"memory": "1234Mi"}}))
    unit.run(f"chmod 600 {kubelet}")
    report = "kata-node-agent report --format json"
    settings = seen(unit, report)["settings"]
    assert "1234Mi" in json.dumps(settings)
    assert settings == seen(unit, report, more)["settings"]
    unit.run(f"rm {kubelet}")


def test_it_lets_nothing_else_be_written(unit: Unit) -> None:
    unit.run("mkdir -p /var/lib/kubelet/pods")
    places = (
        *(
            "/etc",
            "/usr",
            "/var/lib",
            "/var/lib/kubelet",
            "/var/lib/kubelet/pods",
            "/run",
            "/dev/shm",
            "/root",
        ),
        *(
            "/sys/fs/cgroup",
            "/proc/sys/vm/overcommit_memory",
            "/run/kata-node-agent",
            "/var/lib/kata-node-agent",
        ),
        *("/var/lib/kubelet/device-plugins", "/etc/kubernetes/node-feature-discovery/features.d"),
    )
    script = (
        "import json, os, sys; print(json.dumps({path: os.access(path, os.W_OK) for path in sys.argv[1:]}))"
    )
    unit.machine.write("/run/writable.py", script)
    answer = seen(unit, f"python3 /run/writable.py {' '.join(places)}")
    writable = {path for path, may in answer.items() if may}
    assert writable == {
        "/run/kata-node-agent",
        "/var/lib/kata-node-agent",
        "/var/lib/kubelet/device-plugins",
        "/etc/kubernetes/node-feature-discovery/features.d",
    }


def test_kernel_events_arrive_without_a_network(unit: Unit) -> None:
    unit.configure('log_level = "debug"\n')
    start(unit)

    def heard() -> bool:
        # The kernel says so again, to all who listen; nothing is added.
        Path("/sys/devices/virtual/misc/kvm/uevent").write_text("add")
        return "kernel event action=add of=misc/kvm" in unit.log()

    until(heard, "an event is heard")


def test_kvm_may_appear_later_and_be_made_anew(unit: Unit) -> None:
    def verdict() -> str:
        return str(unit.status()["verdict"])

    unit.run("umount /dev/kvm; rm -f /dev/kvm")
    try:
        start(unit)
        assert verdict() == "ineligible"
        unit.run("mknod --mode=660 /dev/kvm c 10 232")
        until(lambda: verdict() == "eligible", "KVM is found")
        assert unit.show("NRestarts") == "0"
    finally:
        unit.run("test -e /dev/kvm || mknod --mode=660 /dev/kvm c 10 232")


def test_kubelets_folder_may_appear_later(unit: Unit) -> None:
    unit.run("rm -rf /var/lib/kubelet")
    start(unit)
    unit.wait_for_log("waiting for kubelet's device plugin folder")
    unit.machine.write("/run/systemd/system/kubelet.service", KUBELET)
    unit.run("systemctl daemon-reload; systemctl start kubelet.service")
    unit.wait_for_log("registered resource=")


def test_kubelets_folder_may_be_made_anew(unit: Unit) -> None:
    """Read-only for an agent that runs, as all that is made after its start: it ends to be started in a sandbox with it."""
    unit.machine.write("/run/systemd/system/kubelet.service", KUBELET)
    unit.run("systemctl daemon-reload")
    start(unit)
    unit.run("systemctl start kubelet.service")
    unit.wait_for_log("registered resource=")
    admit(unit, "one")
    unit.run(
        "systemctl stop kubelet.service; rm -rf /var/lib/kubelet/device-plugins; systemctl start kubelet.service"
    )
    until(lambda: unit.show("NRestarts") == "1", "it was started anew")
    assert "was made anew" in unit.log()
    until(lambda: unit.show("ActiveState") == "active", "it serves again")
    until(lambda: unit.status()["kubelet"]["registered"], "it is registered again")
    assert admitted(unit) == {"one"}


def test_its_own_folder_may_be_removed(unit: Unit) -> None:
    start(unit)
    unit.run("rm -rf /run/kata-node-agent")
    until(lambda: unit.show("NRestarts") == "1", "it was started anew")
    until(lambda: unit.show("ActiveState") == "active", "it serves again")
    assert unit.status()["slots"]["healthy"] > 0


# What Prometheus and kubelet ask.
LISTENERS = {
    "metrics": (
        "127.0.0.1:9442",
        """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9442/metrics", timeout=5).read().count(b"kata_node_agent_slots{"))
""",
        "3",
    ),
    "health": (
        "127.0.0.1:9440",
        """
import grpc
check = grpc.insecure_channel("127.0.0.1:9440").unary_unary("/grpc.health.v1.Health/Check")
print(check(b"", timeout=5, wait_for_ready=True).hex())
""",
        "0801",  # SERVING
    ),
}


@pytest.mark.parametrize("section", list(LISTENERS))
def test_a_listener_needs_its_drop_in_and_the_agent_says_so(unit: Unit, section: str) -> None:
    address, program, expected = LISTENERS[section]
    unit.configure(f'[{section}]\ntcp_address = "{address}"\n')
    start(unit)

    def problem() -> dict[str, str]:
        found = [each for each in unit.status()["problems"] if address in each["message"]]
        return found[0] if found else {}

    until(problem, "it says that it cannot listen")
    assert "sandbox permits no network" in problem()["message"]
    assert "listeners.conf" in problem()["remedy"]
    unit.run(f"systemctl stop {SERVICE}")

    unit.drop_in(example("listeners.conf"))
    start(unit)
    unit.machine.write("/run/ask.py", program)
    until(lambda: unit.run(f"{PYTHON} /run/ask.py", check=False).stdout.strip() == expected, "it answers")
    assert not problem()


def test_the_drop_in_for_the_register_breaks_nothing_where_there_is_none(unit: Unit) -> None:
    """A virtual machine without nested virtualization has no such register, and /dev/cpu/N/msr needs a module: tried on neither."""
    plain = checks(seen(unit, CHECK))
    assert checks(seen(unit, CHECK, example("msr.conf"))) == plain
    unit.drop_in(example("msr.conf"))
    start(unit)
    assert unit.status()["verdict"] == "eligible"
    mask = unit.run(f"grep CapEff /proc/{unit.pid}/status").stdout.split()[1]
    assert int(mask, 16) == 1 << SYS_PTRACE | 1 << SYS_RAWIO


def example(name: str) -> str:
    return (REPOSITORY / "systemd" / "examples" / name).read_text()
