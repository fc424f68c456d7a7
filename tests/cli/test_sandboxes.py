import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.cli.group import cli
from kata_node_agent.cli.sandbox_order import _distinct
from tests.report.kata_node import GIB, KataNode
from tests.sandboxes.support import MIB, qemu, region, shared


@pytest.fixture
def node(tmp_path: Path) -> KataNode:
    made = KataNode(tmp_path)
    made.sandbox(1)
    made.sandbox(2, overhead_mib=2106)
    return made


def run(node: KataNode, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["sandboxes", "--host-root", str(node.folder), *arguments])
    return done.exit_code, done.output


def document(node: KataNode, *arguments: str) -> dict[str, Any]:
    code, text = run(node, "--format", "json", *arguments)
    assert code == 0
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_each_vm_is_a_line_of_80_columns_with_its_cost(node: KataNode) -> None:
    code, text = run(node)
    assert code == 0
    assert re.search(r"^default/web-1 +kata +8Gi +6Gi +358Mi +58Mi +358Mi +2$", text, re.MULTILINE)
    assert re.search(r"^default/web-2 .+ -$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_a_risk_is_said_once_with_its_remedy(node: KataNode) -> None:
    node.sandbox(3)
    text = run(node)[1]
    assert text.count("CgroupLimitBelowVm") == 1
    assert "CgroupLimitBelowVm: default/web-1, and 1 more: the pod's cgroup may use" in text
    assert "remedy: raise overhead.podFixed by 1756Mi" in text


@pytest.mark.parametrize("name", ["default/web-1", "web-1", "0000000100000001"])
def test_one_is_shown_in_detail_by_pod_or_id(node: KataNode, name: str) -> None:
    code, text = run(node, name)
    assert code == 0
    assert "VM          8Gi: 2Gi at boot, 6Gi plugged, at most 32Gi; in shm" in text
    assert "guest 300Mi, VMM 30Mi, virtiofsd 8Mi," in text
    assert "web-2" not in text


def test_only_so_many_are_shown_in_the_order_that_was_asked_for(node: KataNode) -> None:
    node.sandbox(3, resident_mib=900)
    code, text = run(node, "--sort", "resident", "--limit", "1")
    assert code == 0
    assert re.findall(r"^default/(web-\d)", text, re.MULTILINE) == ["web-3"]
    assert "and 2 more; --limit 3 shows all" in text
    assert "3 VMs: " in text, "sums are those of all"
    assert [each["pod"] for each in document(node, "--sort", "resident", "--limit", "2")["sandboxes"]] == [
        "default/web-3",
        "default/web-1",
    ]
    assert run(node, "--limit", "0")[0] == 2


@pytest.mark.parametrize("differ_at", [20, 30, 63])
def test_ids_that_differ_anywhere_do_not_look_alike(tmp_path: Path, differ_at: int) -> None:
    node = KataNode(tmp_path)
    ids = [f"{'a' * differ_at}{number}".ljust(64, "b") for number in range(3)]
    for number, sandbox in enumerate(ids):
        node.process(500 + number, qemu(sandbox, "512M", *shared("512M")))
        node.memory(
            500 + number, region(4096, 512, "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)", inode=number + 1)
        )
    names = [line.split()[0] for line in run(node)[1].splitlines()[1:4]]
    assert len(set(names)) == 3
    assert all(len(name) <= 24 for name in names)
    # What is shown can be asked for.
    for name, sandbox in zip(names, ids, strict=True):
        assert [each["id"] for each in document(node, name)["sandboxes"]] == [sandbox]


def test_pods_that_differ_at_their_end_do_not_look_alike() -> None:
    alike = [f"shop/a-very-long-name-of-a-deployment-7d4b9c6d5f-{end}" for end in ("x7f2p", "b9k4q")]
    assert _distinct(alike, 24) == ["shop/a-very-…c6d5f-x7f2p", "shop/a-very-…c6d5f-b9k4q"]


@given(st.sets(st.text("ab/-", min_size=1, max_size=70), max_size=6), st.integers(12, 40))
def test_names_fit_and_no_two_are_the_same(texts: set[str], width: int) -> None:
    shown = _distinct(sorted(texts), width)
    assert all(len(name) <= width for name in shown)
    assert len(set(shown)) == len(texts)


def test_a_size_that_is_not_exact_is_marked(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.process(500, qemu("one", "512M,slots=10,maxmem=4G"))
    node.memory(500, region(4096, 512, perms="rw-p") + region(8192, 3584, perms="rw-p", rss=262144))
    text = run(node)[1]
    assert re.search(r"^one +\? +≥768Mi +256Mi ", text, re.MULTILINE)
    assert "note: it has a virtio-mem device" in run(node, "one")[1]


def test_a_name_that_is_none_is_an_error(node: KataNode) -> None:
    done = CliRunner().invoke(cli, ["sandboxes", "--host-root", str(node.folder), "nothing"])
    assert getattr(done.exception, "reason", "") == "NoSuchSandbox"


def test_claims_without_evidence_are_shown(node: KataNode) -> None:
    claim = ["/usr/bin/qemu-system-x86_64", "-name", f"sandbox-{'f' * 64}"]
    node.process(77, claim, user=1000)
    assert "not believed: pid 77 claims to be" in run(node)[1]


def test_one_that_is_not_believed_is_told_of_by_its_id_with_a_remedy(node: KataNode) -> None:
    node.process(77, ["/usr/bin/qemu-system-x86_64", "-name", f"sandbox-{'f' * 64}"], user=1000)
    done = CliRunner().invoke(cli, ["sandboxes", "--host-root", str(node.folder), "ffffff"])
    assert getattr(done.exception, "reason", "") == "SandboxNotBelieved"
    assert "it runs as user 1000" in str(done.exception)
    assert "docs/sandboxes.md" in str(done.exception)
    assert "remedy: see who started it" in run(node)[1]


def test_sums_say_how_many_could_not_be_read(node: KataNode) -> None:
    for file in ("maps", "smaps", "smaps_rollup"):
        (node.folder / "proc/1001" / file).unlink()
    text = " ".join(run(node)[1].split())
    assert "358Mi resident without 1 that cannot be read, of which 58Mi beside" in text
    for file in ("maps", "smaps", "smaps_rollup"):
        (node.folder / "proc/2001" / file).unlink()
    text = run(node)[1]
    assert "resident not known" in text
    assert "beside the guests" not in text
    assert "resident not known" in CliRunner().invoke(cli, ["top", "--host-root", str(node.folder)]).output


def test_below_the_nodes_pid_namespace_that_is_a_problem(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    (node.folder / "proc/1/ns/pid").symlink_to("pid:[4026532201]")
    code, text = run(node)
    assert code == 0
    assert "could not be read: the node's processes cannot be seen from here" in text
    assert "no Kata VM is seen from here" in text
    (problem,) = document(node)["problems"]
    assert "hostPID: true" in problem


def test_a_node_without_vms_says_so(tmp_path: Path) -> None:
    assert run(KataNode(tmp_path)) == (0, "no Kata VM runs here\n")


def test_json_is_the_documents_of_the_contract(node: KataNode) -> None:
    found = document(node)
    assert found["schema"] == "kata-node-agent/sandboxes/v1"
    first = found["sandboxes"][0]
    wanted = {
        "pod": "default/web-1",
        "handler": "kata",
        "vmm": "qemu",
        "pid": 1001,
        "base_bytes": 2 * GIB,
        "hotplugged_bytes": 6 * GIB,
        "vm_memory_bytes": 8 * GIB,
        "resident_bytes": 358 * MIB,
        "host_overhead_bytes": 58 * MIB,
        "commitment_bytes": 8 * GIB + 58 * MIB,
    }
    assert {key: first[key] for key in wanted} == wanted
    assert [risk["reason"] for risk in first["risks"]] == ["CgroupLimitBelowVm", "OverheadUndercounted"]
    assert all(set(risk) == {"reason", "message", "remedy"} for risk in first["risks"])
    assert [each["pod"] for each in document(node, "web-2")["sandboxes"]] == ["default/web-2"]


@pytest.mark.host
def test_watching_goes_on_until_it_is_interrupted(node: KataNode) -> None:
    # Whoever runs the tests in the background may ignore the signal, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "kata_node_agent", "sandboxes", "--watch"]
    command += ["--interval", "0.2", "--format", "json", "--host-root", str(node.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        try:
            assert len(json.loads(watch.stdout.readline())["sandboxes"]) == 2
            node.sandbox(3)
            while len(json.loads(watch.stdout.readline())["sandboxes"]) < 3:
                pass
            watch.send_signal(signal.SIGINT)
            _, errors = watch.communicate(timeout=10)
        finally:
            watch.kill()
        assert (watch.returncode, errors) == (0, b"")


@pytest.mark.host
def test_a_reader_that_goes_and_a_full_output_are_no_traceback(node: KataNode) -> None:
    command = [sys.executable, "-m", "kata_node_agent", "sandboxes", "--host-root", str(node.folder)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert (done.returncode, "OutputUnwritable" in done.stderr) == (2, True)
    ours, theirs = os.pipe()
    os.close(ours)
    gone = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=30)
    os.close(theirs)
    assert "Traceback" not in gone.stderr
