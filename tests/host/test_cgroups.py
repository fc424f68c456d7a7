import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.cgroup_reader import Group
from kata_node_agent.host.cgroups import group_of_process, pods_group, read_cgroups
from kata_node_agent.host.consumers import largest_consumers
from kata_node_agent.host.pressure import parse_pressure
from kata_node_agent.host.root import HostRoot

TREES = Path(__file__).parents[1] / "trees-cgroups"
EXPECTED: dict[str, Any] = json.loads((TREES / "expected.json").read_text())
MIB = 1 << 20
IN_MIB = {"usage_bytes", "working_set_bytes", "rss_bytes", "swap_bytes", "kernel_bytes", "limit_bytes"}


def figure(group: Group, name: str) -> object:
    if name == "stalled":
        return group.memory_pressure.some_avg60 if group.memory_pressure is not None else None
    value = getattr(group, name)
    return value // MIB if name in IN_MIB and value is not None else value


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_recorded_trees_give_what_was_written_beside_them_by_hand(name: str) -> None:
    wanted = EXPECTED[name]
    found = read_cgroups(HostRoot(TREES / name))
    assert found.hierarchy == wanted["hierarchy"]
    for which, figures in wanted["groups"].items():
        group = getattr(found, which)
        assert {key: figure(group, key) for key in figures} == figures, which
    pods = [[pod.uid, pod.quality, (pod.group.usage_bytes or 0) // MIB] for pod in found.pod_groups]
    assert pods == wanted["pods"]
    assert [unit.path for unit in found.units] == wanted["units"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_without_a_table_of_mounts_the_usual_folders_count(name: str, tmp_path: Path) -> None:
    shutil.copytree(TREES / name, tmp_path / "tree")
    (tmp_path / "tree/proc/1/mounts").unlink()
    before, after = read_cgroups(HostRoot(TREES / name)), read_cgroups(HostRoot(tmp_path / "tree"))
    assert (after.hierarchy, after.pods and after.pods.usage_bytes) == (
        before.hierarchy,
        before.pods and before.pods.usage_bytes,
    )


def test_a_mount_point_with_a_space_is_found(tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/mounts").write_text(
        "cgroup /a\\040b cgroup rw,memory 0 0\nnonsense\ncgroup /c cgroup\n"
    )
    assert find_cgroup_mounts(HostRoot(tmp_path)).memory == "/a b"


@pytest.mark.parametrize(
    ("root", "driver", "path"),
    [
        ("", "cgroupfs", "/kubepods"),
        ("/", "systemd", "/kubepods.slice"),
        ("/a/b-c", "systemd", "/a.slice/a-b_c.slice/a-b_c-kubepods.slice"),
        ("/a/../b", "cgroupfs", "/a/b/kubepods"),
    ],
)
def test_the_group_of_the_pods_has_kubelets_name(root: str, driver: str, path: str) -> None:
    assert pods_group(root, driver) == path


def test_a_process_is_found_in_the_hierarchy_that_accounts_memory(tmp_path: Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text("3:cpu,memory:/a\n1:name=systemd:/b\n0::/c\n")
    v1, v2 = (find_cgroup_mounts(HostRoot(TREES / name)) for name in ("v1", "v2"))
    root = HostRoot(tmp_path)
    assert (group_of_process(root, 7, v1), group_of_process(root, 7, v2)) == ("/a", "/c")
    assert group_of_process(root, 8, v1) == ""
    (tmp_path / "proc/7/cgroup").write_text("0::/../../etc\n::\n0:\n")
    assert group_of_process(root, 7, v2) == ""


def v2_copy(tmp_path: Path) -> Path:
    shutil.copytree(TREES / "v2", tmp_path / "tree")
    return tmp_path / "tree"


def test_a_group_that_vanishes_is_left_out_and_the_others_stand(tmp_path: Path) -> None:
    tree = v2_copy(tmp_path)
    shutil.rmtree(tree / "sys/fs/cgroup/system.slice")
    best = tree / "sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice"
    for path in best.glob("*pod*/memory.*"):
        path.unlink()
    found = read_cgroups(HostRoot(tree))
    assert (found.system, found.units) == (None, ())
    assert [pod.quality for pod in found.pod_groups] == ["guaranteed", "burstable"]


@pytest.mark.parametrize(
    "content",
    [b"", b"anon", b"anon x\nfile -1", b"\xff\xfe", b"anon " + b"9" * 10_000, b"anon 99999999999999999999"],
)
def test_torn_or_hostile_figures_are_not_known(tmp_path: Path, content: bytes) -> None:
    tree = v2_copy(tmp_path)
    (tree / "sys/fs/cgroup/system.slice/memory.stat").write_bytes(content)
    found = read_cgroups(HostRoot(tree)).system
    assert found is not None
    assert (found.rss_bytes, found.usage_bytes) == (None, 3000 * MIB)
    # Inactive file cache that is not known cannot be taken off.
    assert found.working_set_bytes == 3000 * MIB


def test_a_fifo_or_a_folder_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    tree = v2_copy(tmp_path)
    group = tree / "sys/fs/cgroup/system.slice"
    for name in ("memory.stat", "memory.current"):
        (group / name).unlink()
    os.mkfifo(group / "memory.stat")
    (group / "memory.current").mkdir()
    assert read_cgroups(HostRoot(tree)).system is None


def test_damaged_files_never_raise(tmp_path: Path) -> None:
    tree = v2_copy(tmp_path)
    files = [path for path in tree.rglob("*") if path.is_file() and path.stat().st_size]
    chance = random.Random(3)
    for _ in range(int(os.environ.get("FUZZ_MUTATIONS", "4000")) // 40):
        path = chance.choice(files)
        content = bytearray(path.read_bytes() or b"0")
        content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content[: chance.randrange(len(content) + 1)])
        found = read_cgroups(HostRoot(tree))
        largest_consumers(HostRoot(tree), found, 5)


def test_the_largest_units_come_first_each_with_its_largest_processes() -> None:
    root = HostRoot(TREES / "v2")
    found = [
        (c.unit, c.process, c.pid, c.memory_bytes // MIB)
        for c in largest_consumers(root, read_cgroups(root), 5)
    ]
    assert found == [
        ("crio.service", "", 0, 700),
        ("crio.service", "crio", 4300, 40),
        # A process that names itself to steer a terminal.
        ("crio.service", "co?[2Jnmon", 4301, 10),
        ("kubelet.service", "", 0, 350),
        ("kubelet.service", "kubelet", 4242, 300),
    ]


def test_pressure_is_percent_and_microseconds() -> None:
    text = "some avg10=1.00 avg60=2.50 avg300=0.50 total=7\nfull avg10=0.00 avg60=0.25 avg300=0.10 total=3\n"
    pressure = parse_pressure(text)
    assert pressure is not None
    assert (pressure.some_avg60, pressure.full_avg60, pressure.some_total_microseconds) == (2.5, 0.25, 7)
    # The CPU file of older kernels has no `full`.
    one = parse_pressure(text.split("\n", maxsplit=1)[0])
    assert one is not None
    assert one.full_avg10 is None
    for other in ("", "some avg10=x", "full avg10=0.00 avg60=0.25 avg300=0.10 total=3"):
        assert parse_pressure(other) is None


@pytest.mark.host
def test_agrees_with_this_machines_own_files_to_the_byte() -> None:
    root = HostRoot()
    mounts = find_cgroup_mounts(root)
    assert mounts.hierarchy in {"v1", "v2", "hybrid"}
    stat = Path(mounts.memory, "memory.stat")
    key = ("anon", "inactive_file") if mounts.hierarchy == "v2" else ("total_rss", "total_inactive_file")

    def raw() -> tuple[int, ...]:
        numbers = dict(line.split(" ") for line in stat.read_text().splitlines())
        return tuple(int(numbers[name]) for name in key)

    for _ in range(200):
        before, group, after = raw(), read_cgroups(root, each_pod=False).root, raw()
        if before == after:
            assert group is not None
            assert (group.rss_bytes, group.inactive_file_bytes) == before
            return
    pytest.fail("the machine was never at rest between two reads")
