import json
import os
import shutil
import time
from pathlib import Path

import click
import pytest
from google.protobuf.json_format import MessageToDict

from kata_node_agent.api.node import as_node
from kata_node_agent.cli.report_text import as_text
from kata_node_agent.config.schema import Config
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.root import HostRoot
from kata_node_agent.publish.node_metrics import node_metrics
from kata_node_agent.report.collect import collect_report
from kata_node_agent.report.history import FIGURES, HISTORY_NAME, sample
from kata_node_agent.report.summary import as_summary
from kata_node_agent.report.use import find_runtimes
from kata_node_agent.series import Series

TREES = Path(__file__).parents[1]
V2 = HostRoot(TREES / "trees-cgroups/v2")
ALL = sorted([*(TREES / "trees-cgroups").glob("*/"), *(TREES / "trees-kubelet").glob("*/")])
GIB, MIB = 1 << 30, 1 << 20


def test_a_report_of_a_recorded_node() -> None:
    document = collect_report(V2, Config()).to_json()
    assert document["schema"] == "kata-node-agent/report/v1"
    assert document["capacity"]["memory_bytes"] == 32 * GIB
    assert document["capacity"]["hugepages_bytes"] == 128 * MIB
    assert document["reserved"]["system"] == {
        "memory_bytes": 3 * GIB, "cpu_millicores": 500, "ephemeral_storage_bytes": 0, "pids": 0,
    }  # fmt: skip
    assert document["eviction_hard"]["memory_available_bytes"] == 100 * MIB
    assert document["allocatable"]["memory_bytes"] == 29 * GIB - 100 * MIB - 128 * MIB
    usage = document["usage"]
    # Found by their processes.
    assert usage["kubelet"]["path"] == "/system.slice/kubelet.service"
    assert usage["runtime"]["path"] == "/system.slice/crio.service/inner"
    assert usage["pods"]["working_set_bytes"] == 8000 * MIB
    assert document["available"]["memory_bytes"] == 32 * GIB - 11000 * MIB
    assert document["available"]["until_eviction_bytes"] == 32 * GIB - 11000 * MIB - 100 * MIB
    assert document["available"]["pods_memory_bytes"] == 29 * GIB - 8000 * MIB
    assert document["available"]["unseen_bytes"] == (512 + 64 + 128) * MIB
    assert {f["reason"] for f in document["findings"]} == {"KataOutsidePods", "ReservationNearlyUsed"}
    origin = {s["name"]: s["origin"] for s in document["settings"]}
    assert origin["systemReserved.memory"] == "flag --system-reserved of kubelet (pid 4242)"
    assert document["advice"] == []


@pytest.mark.parametrize("tree", ALL, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_api_text_and_metrics_take_every_report(tree: Path) -> None:
    report = collect_report(HostRoot(tree), Config())
    document = report.to_json()
    back = MessageToDict(
        as_node(document), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for part in ("usage", "capacity", "allocatable", "available", "reserved", "settings", "findings", "kata"):
        assert normal(back[part]) == normal(document[part]), part
    text = click.unstyle(as_text(document, bars=False))
    assert max(map(len, text.splitlines())) <= 80
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    assert as_text(document, bars=True, settings=True)
    assert list(node_metrics(document))
    assert json.dumps(as_summary(report))


def normal(value: object) -> object:
    """Protobuf writes 64-bit numbers as text, and leaves out what is not set."""
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items() if inner is not None and inner != []}
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_the_summary_has_kubelets_shape() -> None:
    node = as_summary(collect_report(V2, Config()))["node"]
    assert [container["name"] for container in node["systemContainers"]] == [
        "kubelet",
        "runtime",
        "misc",
        "pods",
    ]
    memory = node["memory"]
    assert (memory["usageBytes"], memory["workingSetBytes"]) == (15000 * MIB, 11000 * MIB)
    assert memory["availableBytes"] == 32 * GIB - 11000 * MIB
    pods = node["systemContainers"][3]["memory"]
    assert pods["availableBytes"] == 29 * GIB - 8000 * MIB
    assert node["cpu"]["usageCoreNanoSeconds"] == 90_000_000_000
    assert node["systemContainers"][0]["memory"]["time"].endswith("Z")


def test_a_group_without_a_memory_limit_has_no_available_memory() -> None:
    node = as_summary(collect_report(V2, Config()))["node"]
    assert "availableBytes" not in node["systemContainers"][2]["memory"]


def test_the_sample_for_the_history_is_what_is_outside_of_pods() -> None:
    figures = sample(V2, Config().kubelet, None)
    assert tuple(figures) == FIGURES
    assert figures["outside_pods"] == 3000 * MIB
    assert figures["kata_overhead"] == 236 * MIB


def runtime_in(tree: Path, pid: int, group: str, *, uid: int = 0, namespaces: str = "") -> None:
    folder = tree / "proc" / str(pid)
    folder.mkdir()
    (folder / "comm").write_text("crio\n")
    (folder / "cgroup").write_text(f"0::{group}\n")
    (folder / "status").write_text(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{namespaces or pid}\n")


def test_a_runtime_inside_of_a_pod_or_a_container_is_not_the_nodes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(V2.path, tree)
    runtime_in(tree, 20, "/kubepods.slice/kubepods-podx.slice/crio-1.scope")
    runtime_in(tree, 21, "/machine.slice/libpod-1.scope", namespaces="21\t5")
    runtime_in(tree, 22, "/user.slice", uid=1000)
    runtime_in(tree, 23, "/")
    usage = collect_report(HostRoot(tree), Config()).to_json()["usage"]
    assert usage["runtime"]["path"] == "/system.slice/crio.service/inner"


def test_a_runtime_that_was_restarted_is_found_though_another_one_still_runs(tmp_path: Path) -> None:
    """A pod may run one, too: it is no reason to search no more."""
    tree = tmp_path / "tree"
    (tree / "proc").mkdir(parents=True)
    runtime_in(tree, 800, "/system.slice/crio.service")
    runtime_in(tree, 810, "/kubepods.slice/kubepods-podx.slice/crio-1.scope")
    known = find_runtimes(HostRoot(tree))
    assert known == find_runtimes(HostRoot(tree), known) == [800, 810]
    shutil.rmtree(tree / "proc/800")
    runtime_in(tree, 820, "/system.slice/crio.service")
    assert find_runtimes(HostRoot(tree), known) == [810, 820]


def test_the_runtimes_group_is_the_one_that_kubelet_is_told(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(V2.path, tree)
    (tree / "proc/4242/cmdline").write_bytes(
        b"/usr/bin/kubelet\0--runtime-cgroups=/system.slice/crio.service\0"
    )
    usage = collect_report(HostRoot(tree), Config()).to_json()["usage"]
    assert usage["runtime"]["path"] == "/system.slice/crio.service"


def test_the_alert_is_about_one_group_by_name(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(V2.path, tree)
    assert collect_report(HostRoot(tree), Config()).use.system_rss_bytes == 1500 * MIB
    (tree / "proc/4242/cmdline").write_bytes(b"/usr/bin/kubelet\0--system-reserved-cgroup=/my.slice\0")
    shutil.copytree(tree / "sys/fs/cgroup/system.slice", tree / "sys/fs/cgroup/my.slice")
    report = collect_report(HostRoot(tree), Config())
    assert report.cgroups.system is not None
    assert (report.cgroups.system.path, report.use.system_rss_bytes) == ("/my.slice", None)


def test_offline_memory_and_huge_pages_are_explained(tmp_path: Path) -> None:
    shutil.copytree(V2.path, tmp_path / "tree")
    memory = tmp_path / "tree/sys/devices/system/memory"
    for number, state in enumerate(("online", "offline", "offline")):
        (memory / f"memory{number}").mkdir(parents=True)
        (memory / f"memory{number}/state").write_text(f"{state}\n")
    (memory / "block_size_bytes").write_text("8000000\n")
    huge = tmp_path / "tree/sys/kernel/mm/hugepages/hugepages-2048kB"
    huge.mkdir(parents=True)
    (huge / "nr_hugepages").write_text("64\n")
    document = collect_report(HostRoot(tmp_path / "tree"), Config()).to_json()
    messages = {f["reason"]: f["message"] for f in document["findings"]}
    assert "2 memory blocks (256Mi) are offline" in messages["MemoryBlocksOffline"]
    assert document["capacity"]["hugepages"] == [{"page_size_bytes": 2 * MIB, "bytes": 128 * MIB}]


def test_what_kubelet_would_refuse_is_a_problem_in_its_own_words(tmp_path: Path) -> None:
    shutil.copytree(V2.path, tmp_path / "tree")
    command = tmp_path / "tree/proc/4242/cmdline"
    command.write_text("/usr/bin/kubelet\0--system-reserved=memory=40Gi\0")
    document = collect_report(HostRoot(tmp_path / "tree"), Config()).to_json()
    (found,) = [f for f in document["findings"] if f["reason"] == "KubeletWouldRefuse"]
    assert "Expected capacity >= reservation" in found["message"]
    assert (found["problem"], document["allocatable"]["memory_bytes"]) == (True, 0)


@pytest.mark.host
def test_agrees_with_this_machines_meminfo_and_uses_its_history(tmp_path: Path) -> None:
    series = Series(tmp_path / HISTORY_NAME, FIGURES)
    series.add(time.time(), {"outside_pods": 5 * GIB})
    report = collect_report(HostRoot(), Config(state_dir=tmp_path)).to_json()
    memory = read_meminfo(HostRoot())
    assert report["capacity"]["memory_bytes"] == memory.total_bytes
    assert report["capacity"]["cpu_millicores"] == 1000 * len(os.sched_getaffinity(0))
    status = os.statvfs("/var/lib")
    assert report["capacity"]["ephemeral_storage_bytes"] == status.f_blocks * status.f_frsize
    (advice,) = [a for a in report["advice"] if a["reason"] == "HistoryTooShort"]
    assert "at most 5Gi" in advice["why"]
    assert advice["setting"] == ""
    text = as_text(report, bars=False)
    assert "outside_pods             max 5Gi  since" in text
