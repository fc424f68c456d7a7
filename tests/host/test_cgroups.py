import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.cgroup_reader import Group, GroupReader
from kata_node_agent.host.cgroups import (
    CgroupNames,
    group_of_process,
    pods_group,
    read_cgroups,
    reserved_group,
)
from kata_node_agent.host.consumers import largest_consumers
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.pressure import parse_pressure
from kata_node_agent.host.root import HostRoot

Found = TypeVar("Found")
Wanted = TypeVar("Wanted")
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


@pytest.mark.parametrize(
    ("name", "driver", "path"),
    [
        ("", "systemd", ""),
        ("/system.slice", "systemd", "/system.slice"),
        ("system.slice", "systemd", "/system.slice"),
        ("/system", "systemd", "/system.slice"),
        ("/my-own.slice", "systemd", "/my.slice/my-own.slice"),
        # Newer kubelets ask the container runtime for the driver, and what is configured is another one.
        ("system.slice", "cgroupfs", "/system.slice"),
        ("my-own.slice", "cgroupfs", "/my.slice/my-own.slice"),
        ("/my/own", "cgroupfs", "/my/own"),
        ("/my/own.slice", "cgroupfs", "/my/own.slice"),
        ("../../etc/.", "cgroupfs", "/etc"),
    ],
)
def test_the_group_that_is_reserved_for_has_kubelets_name(name: str, driver: str, path: str) -> None:
    assert reserved_group(name, driver) == path


def test_a_root_named_as_a_class_does_not_make_pods_of_that_class(tmp_path: Path) -> None:
    tree = v2_copy(tmp_path)
    groups = tree / "sys/fs/cgroup"
    pods = groups / "burstable.slice/burstable-kubepods.slice"
    (groups / "burstable.slice").mkdir()
    (groups / "kubepods.slice").rename(pods)
    names = CgroupNames(pods=("/burstable.slice/burstable-kubepods.slice",))
    assert [pod.quality for pod in read_cgroups(HostRoot(tree), names).pod_groups] == [
        "guaranteed",
        "burstable",
        "besteffort",
    ]


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
    [
        *(b"", b"anon", b"anon x\nfile -1\n", b"\xff\xfe", b"anon " + b"9" * 10_000 + b"\n"),
        *(b"anon 99999999999999999999\n", b"anon 9999999999999999999\n"),
        # Torn in the middle of a number, which is then another one.
        b"pgfault 1\nanon 15",
        # As many words as figures would have, in other lines.
        b"anon\n5 file 7\n",
    ],
)
def test_torn_or_hostile_figures_are_not_known(tmp_path: Path, content: bytes) -> None:
    tree = v2_copy(tmp_path)
    (tree / "sys/fs/cgroup/system.slice/memory.stat").write_bytes(content)
    found = read_cgroups(HostRoot(tree)).system
    assert found is not None
    assert (found.rss_bytes, found.usage_bytes) == (None, 3000 * MIB)
    # Inactive file cache that is not known cannot be taken off.
    assert found.working_set_bytes == 3000 * MIB


@pytest.mark.parametrize(
    "content", ["", "12", "-1\n", "9" * 10_000 + "\n", "9999999999999999999\n", "1 2\n", "\u0663\n"]
)
def test_a_usage_that_is_torn_or_no_number_is_not_known(tmp_path: Path, content: str) -> None:
    tree = v2_copy(tmp_path)
    (tree / "sys/fs/cgroup/system.slice/memory.current").write_text(content)
    found = read_cgroups(HostRoot(tree)).system
    assert found is not None
    assert (found.usage_bytes, found.working_set_bytes, found.rss_bytes) == (None, None, 1500 * MIB)


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


def test_thousands_of_processes_in_a_unit_are_read_and_those_that_ended_passed_over(tmp_path: Path) -> None:
    tree = v2_copy(tmp_path)
    unit = tree / "sys/fs/cgroup/system.slice/kubelet.service/cgroup.procs"
    unit.write_text(
        "".join(f"{pid}\n" for pid in range(1_000_000, 1_010_000)) + "0\nx\n" + "9" * 10_000 + "\n"
    )
    for pid, size in ((1_000_007, 5), (1_000_400, 9), (1_001_000, 7)):
        (tree / f"proc/{pid}").mkdir()
        (tree / f"proc/{pid}/status").write_text(f"Name:\tVmRSS:\t1 kB\nVmRSS:\t    {size * 1024} kB\n")
    (tree / "proc/1000008").mkdir()
    os.mkfifo(tree / "proc/1000008/status")
    root = HostRoot(tree)
    found = [
        c for c in largest_consumers(root, read_cgroups(root), 5) if c.unit == "kubelet.service" and c.pid
    ]
    # It has no name that can be read.
    assert [(c.process, c.pid, c.memory_bytes // MIB) for c in found] == [
        ("?", 1_000_400, 9),
        ("?", 1_001_000, 7),
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


def this_machines_figures(read: Callable[[], Found], raw: Callable[[], Wanted]) -> tuple[Found, Wanted]:
    """What was read, and what the files said before and after it: the same instant where these two agree."""
    for _ in range(2000):
        before, found, after = raw(), read(), raw()
        if before == after:
            return found, before
    pytest.fail("the machine was never at rest between two reads")


def lines_of(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split(" ") for line in path.read_text().splitlines())}


@pytest.mark.host
def test_the_whole_machine_agrees_with_its_own_files_to_the_byte() -> None:
    mounts = find_cgroup_mounts(HostRoot())
    assert mounts.hierarchy in {"v1", "v2", "hybrid"}
    folder, v2 = Path(mounts.memory), mounts.hierarchy == "v2"
    names = ["anon", "file", "inactive_file"] if v2 else ["total_rss", "total_cache", "total_inactive_file"]

    def raw() -> list[int]:
        stat = lines_of(folder / "memory.stat")
        figures = [stat[name] for name in names]
        # The root of v2 has no usage of its own.
        return [
            *figures,
            figures[0] + figures[1] if v2 else int((folder / "memory.usage_in_bytes").read_text()),
        ]

    root, wanted = this_machines_figures(lambda: read_cgroups(HostRoot(), each_pod=False).root, raw)
    assert root is not None
    assert [root.rss_bytes, root.file_bytes, root.inactive_file_bytes, root.usage_bytes] == wanted
    assert root.working_set_bytes == wanted[3] - wanted[2]


@pytest.mark.host
def test_every_group_of_this_machine_agrees_with_its_own_files_to_the_byte() -> None:
    mounts = find_cgroup_mounts(HostRoot())
    v2, reader = mounts.hierarchy == "v2", GroupReader(HostRoot(), mounts)
    names = ("memory.current", "memory.max") if v2 else ("memory.usage_in_bytes", "memory.limit_in_bytes")
    anon = "anon" if v2 else "total_rss"

    def raw(folder: Path) -> tuple[str, str, int]:
        usage, limit = ((folder / name).read_text().strip() for name in names)
        return usage, limit, lines_of(folder / "memory.stat")[anon]

    compared = 0
    for path in ["/" + name for name in reader.children("/")]:
        folder = Path(mounts.memory + path)
        try:
            found, wanted = this_machines_figures(
                partial(reader.group, path, whole=True), partial(raw, folder)
            )
        except FileNotFoundError:
            # Other tests make and remove groups of their own.
            continue
        assert found is not None
        assert (str(found.usage_bytes), found.rss_bytes) == (wanted[0], wanted[2])
        assert found.limit_bytes == (
            None if wanted[1] == "max" or int(wanted[1]) >= 1 << 60 else int(wanted[1])
        )
        compared += 1
    assert compared or not reader.children("/")


@pytest.mark.host
def test_meminfo_agrees_with_this_machines_own_to_the_byte() -> None:
    def raw() -> dict[str, int]:
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        return {words[0]: int(words[1]) * (1024 if words[2:] == ["kB"] else 1) for words in lines}

    memory, wanted = this_machines_figures(lambda: read_meminfo(HostRoot()), raw)
    fields = {
        "MemTotal:": memory.total_bytes, "MemFree:": memory.free_bytes, "MemAvailable:": memory.available_bytes,
        "Cached:": memory.cached_bytes, "AnonPages:": memory.anon_bytes, "Shmem:": memory.shmem_bytes,
        "SUnreclaim:": memory.slab_unreclaimable_bytes, "PageTables:": memory.page_tables_bytes,
    }  # fmt: skip
    assert fields == {name: wanted[name] for name in fields}
