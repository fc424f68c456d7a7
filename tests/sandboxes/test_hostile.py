"""Processes that lie, end in the middle, or have more than anybody wants to read."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kata_node_agent.host.process_files import ProcessFiles
from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.census import Census, in_container
from kata_node_agent.sandboxes.evidence import Origin, Strength, judge, parse_owner
from kata_node_agent.sandboxes.qemu_line import QemuMemory, parse_qemu_memory
from tests.sandboxes.support import ID, MIB, POD_GROUP, Tree, qemu, region, rest, shared, shim, virtiofsd

if TYPE_CHECKING:
    from pathlib import Path

GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"
UID = "0a1b2c3d-0000-4000-8000-000000000001"
CONTAINER = "mnt:[4026532999]"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def vm(tree: Tree, pid: int, sandbox_id: str = ID, inode: int = 17, **says: Any) -> None:
    tree.process(pid, qemu(sandbox_id, "512M", *shared("512M")), **says)
    tree.memory(pid, region(4096, 512, GUEST, inode=inode, rss=1024))


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"inside": "7", "mounts": CONTAINER}, "it runs in a container"),
        ({"inside": "7"}, "it runs in a container"),
        ({"user": 1000}, "it runs as user 1000, and no process of the sandbox started it"),
        (
            {"mounts": CONTAINER},
            "it has mounts of its own, and its sandbox has no folder that belongs to root",
        ),
    ],
    ids=[
        "container",
        "container that kept the mounts",
        "another user",
        "container in the node's PID namespace",
    ],
)
def test_a_name_alone_is_not_believed_and_is_said(tree: Tree, says: dict[str, Any], why: str) -> None:
    vm(tree, 501, **says)
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    (found,) = watcher.unbelieved
    assert (found.pid, found.claim, found.why) == (501, f"qemu of sandbox {ID}", why)
    assert not watcher.glance(), "what is known and not believed is no news"


def test_a_process_whose_owner_cannot_be_read_is_not_believed(tree: Tree) -> None:
    vm(tree, 501)
    (tree.folder / "proc/501/status").unlink()
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    assert watcher.unbelieved[0].why == "its owner and its namespaces cannot be read"


@pytest.mark.parametrize("folder", [f"run/vc/sbs/{ID}", f"run/vc/vm/{ID}", f"run/kata/{ID}"])
def test_a_folder_of_root_stands_for_a_vm_with_mounts_of_its_own(tree: Tree, folder: str) -> None:
    vm(tree, 501, mounts=CONTAINER)
    (tree.folder / folder).mkdir(parents=True)
    owner = os.stat(tree.folder / folder).st_uid
    assert bool(tree.watcher().sweep()) == (owner == 0)


def test_a_link_in_the_folders_place_stands_for_nothing(tree: Tree) -> None:
    vm(tree, 501, mounts=CONTAINER)
    (tree.folder / "run/vc/sbs").mkdir(parents=True)
    (tree.folder / f"run/vc/sbs/{ID}").symlink_to(tree.folder)
    assert tree.watcher().sweep() == ()


def test_a_vmm_of_another_user_is_believed_as_the_child_of_its_shim(tree: Tree) -> None:
    """Kata may run QEMU as a user made for it."""
    tree.process(500, shim(), started=90)
    vm(tree, 501, user=998, parent=500)
    assert [found.pid for found in tree.watcher().sweep()] == [501]


def test_a_child_of_another_sandboxes_shim_is_not(tree: Tree) -> None:
    tree.process(500, shim("other"), started=90)
    vm(tree, 501, user=998, parent=500)
    assert tree.watcher().sweep() == ()


def test_of_two_that_claim_one_sandbox_the_better_evidence_counts(tree: Tree) -> None:
    """A root process with the node's mounts took the name of a VM that its shim started, and started before it."""
    tree.process(500, shim(), started=90)
    vm(tree, 400, started=50, inode=99)
    vm(tree, 501, parent=500, started=100)
    watcher = tree.watcher()
    assert [found.pid for found in watcher.sweep()] == [501]
    (rival,) = watcher.unbelieved
    assert (rival.pid, rival.why) == (400, "process 501 is the VM of this sandbox, on better evidence")


def test_a_virtiofsd_with_namespaces_of_its_own_is_known_by_the_memory_that_it_maps(tree: Tree) -> None:
    vm(tree, 501)
    tree.process(502, virtiofsd(), parent=1, mounts=CONTAINER)
    tree.memory(502, rest(2048))
    tree.process(503, virtiofsd(), parent=502, mounts=CONTAINER, inside="1")
    tree.memory(503, region(8192, 512, GUEST, inode=17) + rest(1024))
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert [process.pid for process in found.processes] == [501, 502, 503]
    assert found.cost is not None
    assert found.cost.virtiofsd_bytes == 3 * MIB
    assert watcher.unbelieved == ()


def test_a_virtiofsd_in_a_container_that_maps_something_else_is_not_believed(tree: Tree) -> None:
    vm(tree, 501)
    tree.process(502, virtiofsd(), mounts=CONTAINER, inside="7", cgroup=POD_GROUP)
    tree.memory(502, region(8192, 512, GUEST, inode=18) + rest(1024))
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert [process.pid for process in found.processes] == [501]
    assert [one.pid for one in watcher.unbelieved] == [502]


@pytest.mark.parametrize(
    "words",
    [
        ["qemu-system-x86_64", "-name", f"sandbox-{ID}\n\n", "-m", "512M"],
        ["qemu-system-x86_64", "\n-name\n", "-name", "sandbox-\x1b[2Jx"],
        ["qemu-system-x86_64", "", "", "-name", "", "-m", ""],
        ["qemu-system-x86_64", "-" * 100_000, "-name", f"sandbox-{ID}"],
        ["qemu-system-x86_64", "-name", f"sandbox-{ID}", "x" * (2 << 20)],
    ],
    ids=["newlines", "escapes", "empty words", "a long word first", "2 MiB"],
)
def test_hostile_command_lines_from_a_container_claim_what_is_harmless(tree: Tree, words: list[str]) -> None:
    tree.process(501, words, inside="7")
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    assert all(one.claim.isprintable() and len(one.claim) <= 201 for one in watcher.unbelieved)


def test_a_command_line_of_two_mebibytes_is_read_as_far_as_it_matters(tree: Tree) -> None:
    tree.process(501, [*qemu(ID, "512M", *shared("512M")), "x" * (2 << 20)])
    tree.memory(501, region(4096, 512, GUEST, inode=17))
    assert [found.base_bytes for found in tree.watcher().sweep()] == [512 * MIB]


def test_a_name_with_parentheses_and_newlines_does_not_shift_what_stat_says(tree: Tree) -> None:
    vm(tree, 501, name="a) S 1 (b\n) R 2")
    (found,) = tree.watcher().sweep()
    assert found.started == 100


def test_a_thousand_false_vms_are_counted_out_and_a_hundred_listed(tree: Tree) -> None:
    for pid in range(1000, 2000):
        tree.process(pid, qemu(f"fake{pid}"), inside="7")
    vm(tree, 501)
    watcher = tree.watcher()
    assert [found.pid for found in watcher.sweep()] == [501]
    assert len(watcher.unbelieved) == 100


SMAPS = region(4096, 512, GUEST, inode=17, rss=1024) + rest(4096)


def test_torn_maps_never_add_memory(tree: Tree) -> None:
    """Cut anywhere: a line without its end is no line."""
    vm(tree, 501)
    for end in range(0, len(SMAPS), 31):
        tree.write("proc/501/smaps", SMAPS[:end])
        tree.write("proc/501/maps", SMAPS[:end])
        for found in tree.watcher().sweep():
            assert found.vm_memory_bytes in {0, 512 * MIB}
            assert found.cost is None or found.cost.guest_bytes in {0, MIB}


@pytest.mark.parametrize("missing", ["stat", "status", "cmdline", "cgroup", "smaps", "maps", "ns/mnt"])
def test_a_process_that_vanishes_in_the_middle_is_no_error(tree: Tree, missing: str) -> None:
    vm(tree, 501)
    vm(tree, 601, "other", 18)
    (tree.folder / "proc/501" / missing).unlink()
    watcher = tree.watcher()
    assert "other" in [found.id for found in watcher.sweep()]
    watcher.glance()


PROCESS_FILES = st.sampled_from(
    ["stat", "statm", "status", "cmdline", "cgroup", "smaps", "maps", "smaps_rollup"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(name=PROCESS_FILES, place=st.integers(0, 4000), junk=st.binary(max_size=40), data=st.data())
def test_files_that_are_damaged_anywhere_are_no_error(
    tree: Tree, name: str, place: int, junk: bytes, data: st.DataObject
) -> None:
    vm(tree, 501)
    vm(tree, 601, "other", 18)
    path = tree.folder / "proc/501" / name
    content = path.read_bytes()
    place %= len(content) + 1
    path.write_bytes(content[:place] + junk + content[place + data.draw(st.integers(0, 20)) :])
    watcher = tree.watcher()
    watcher.sweep()
    watcher.glance()
    found = {sandbox.id: sandbox for sandbox in watcher.sweep()}
    assert found["other"].vm_memory_bytes == 512 * MIB
    assert found["other"].cost is not None
    assert found["other"].cost.guest_bytes == MIB


def test_no_evidence_of_a_container_is_ever_enough_but_what_only_kata_can_have_made() -> None:
    for user, mounts, folder, pid_file in itertools.product(
        (0, 1), (True, False), (True, False), (True, False)
    ):
        origin = Origin(user, True, mounts, folder, pid_file)
        assert judge(origin)[0] is Strength.NONE


def test_a_container_with_the_hosts_processes_is_not_believed_for_the_folder_of_another_sandbox() -> None:
    beside = Origin(0, False, False, folder_of_root=True)
    assert judge(beside)[0] is Strength.FOLDER
    assert judge(replace(beside, in_container=True))[0] is Strength.NONE


@pytest.mark.parametrize(
    ("group", "inside"),
    [
        (f"/kubepods/burstable/pod{UID}/kata_{ID}", False),
        (f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{ID}", False),
        (f"/kata_overhead/{ID}", False),
        ("/system.slice/containerd.service", False),
        (f"/kubepods/burstable/pod{UID}/3f0e", True),
        (f"/kubepods/burstable/pod{UID}", True),
    ],
)
def test_a_pods_group_is_a_containers_unless_it_names_the_sandbox(group: str, inside: bool) -> None:
    assert in_container(f"9:memory:{group}\n1:name=systemd:{group}\n0::/\n", ID) is inside


def test_what_a_doubted_process_writes_into_its_command_line_is_not_kept(tree: Tree) -> None:
    vm(tree, 501, inside="7")
    line = tree.folder / "proc/501/cmdline"
    line.write_bytes(line.read_bytes() + b"-device\0virtio-mem-pci,memdev=m\0" * 4000)
    census = Census(HostRoot(tree.folder))
    with ProcessFiles(HostRoot(tree.folder)) as files:
        assert census.look(files) == {}
    assert [member.line for member in census._members.values()] == [QemuMemory()]


def test_devices_beyond_what_a_vm_can_have_are_not_kept() -> None:
    words = [word for number in range(5000) for word in ("-device", f"virtio-mem-pci,memdev=m{number}")]
    assert len(parse_qemu_memory(words).virtio_mem) == 256


def test_who_owns_a_process_is_what_the_kernel_says_of_its_effective_user() -> None:
    assert parse_owner("Name:\tx\nUid:\t1000\t0\t0\t0\nNSpid:\t12\t1\n") == (0, True)
    assert parse_owner("Uid:\t0\t1000\t0\t0\nNSpid:\t12\n") == (1000, False)
    assert parse_owner("Uid:\n") == (None, None)


@given(st.text())
def test_any_status_is_read_without_an_error(text: str) -> None:
    user, _ = parse_owner(text)
    assert user is None or user >= 0
