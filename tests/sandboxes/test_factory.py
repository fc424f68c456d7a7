"""VMs of Kata's factory in recorded trees: from a template, and in a cache before a sandbox takes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.sandboxes.support import ID, MIB, POD_GROUP, UID, Tree, qemu, region, rest, shim, virtiofsd

if TYPE_CHECKING:
    from pathlib import Path

VM_ID = "9f0c2a64-31d5-4c1e-8a77-5b1f6c0d2e48"
TEMPLATE = "/run/vc/vm/template/memory"
LINE = [
    *("-object", f"memory-backend-file,id=dimm1,size=2048M,mem-path={TEMPLATE}"),
    *("-numa", "node,memdev=dimm1", "-incoming", "defer"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def clone(tree: Tree, pid: int, vm_id: str, **differs: object) -> None:
    """Of 300 MiB resident 200 are the template's, which four map."""
    tree.process(pid, qemu(vm_id, "2048M,slots=10,maxmem=32768M", *LINE), **differs)  # type: ignore[arg-type]
    tree.memory(
        pid,
        region(4096, 2048, TEMPLATE, rss=307200, pss=153600, inode=7, perms="rw-p") + rest(40960),
    )


def test_memory_of_a_template_is_there_once_for_all_that_share_it(tree: Tree) -> None:
    for number in range(4):
        clone(tree, 501 + number, f"vm{number}")
    found = tree.watcher().sweep()
    assert [sandbox.vm_memory_bytes for sandbox in found] == [2048 * MIB] * 4
    costs = [sandbox.cost for sandbox in found if sandbox.cost is not None]
    # 4 × 100 MiB of their own, and 200 MiB once.
    assert sum(cost.guest_bytes for cost in costs) == 600 * MIB
    assert sum(cost.rss_sum_bytes for cost in costs) == 4 * 340 * MIB
    assert all(f"a copy of {TEMPLATE}" in sandbox.notes[0] for sandbox in found)
    assert {sandbox.memory_location for sandbox in found} == {"file"}


@pytest.mark.parametrize("path", ["/var/run/vc/vm/template/memory", f"{TEMPLATE} (deleted)"])
def test_the_kernel_may_know_the_file_by_another_path(tree: Tree, path: str) -> None:
    tree.process(501, qemu(ID, "2048M", *LINE))
    tree.memory(501, region(4096, 2048, path, rss=1024, inode=7, perms="rw-p"))
    assert [sandbox.vm_memory_bytes for sandbox in tree.watcher().sweep()] == [2048 * MIB]


def test_the_vm_that_becomes_the_template_is_seen_too(tree: Tree) -> None:
    line = ["-object", f"memory-backend-file,id=dimm1,size=2048M,mem-path={TEMPLATE},share=on"]
    tree.process(501, qemu(VM_ID, "2048M", *line, "-numa", "node,memdev=dimm1"))
    tree.memory(501, region(4096, 2048, TEMPLATE, rss=1024, inode=7))
    (found,) = tree.watcher().sweep()
    assert (found.vm_memory_bytes, found.memory_location) == (2048 * MIB, "file")


def test_who_maps_a_template_is_no_part_of_its_vms(tree: Tree) -> None:
    """A template's file is no memory of one VM: that it is mapped proves nothing."""
    clone(tree, 501, ID)
    tree.process(700, virtiofsd(), user=0, mounts="mnt:[9]", inside="2")
    tree.memory(700, region(4096, 2048, TEMPLATE, rss=1024, inode=7, perms="rw-p"))
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert [process.pid for process in found.processes] == [501]
    assert [one.pid for one in watcher.unbelieved] == [700]


def test_a_vm_of_the_cache_waits_until_a_sandbox_takes_it(tree: Tree) -> None:
    (tree.folder / f"run/vc/vm/{VM_ID}").mkdir(parents=True)
    clone(tree, 501, VM_ID)
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert (found.id, found.pod_uid) == (VM_ID, None)
    assert "no sandbox has taken it yet" in found.notes[-1]
    assert not watcher.glance()
    (tree.folder / f"run/vc/vm/{ID}").symlink_to(f"/run/vc/vm/{VM_ID}")
    os.utime(tree.folder / "run/vc/vm", ns=(5, 5))
    tree.process(500, shim(), cgroup=POD_GROUP)
    tree.memory(500, rest(1024))
    tree.write(f"run/vc/sbs/{ID}/persist.json", "{}")
    assert watcher.glance()
    (found,) = watcher.sweep()
    assert (found.id, found.pod_uid, found.pid, found.shim_pid) == (ID, UID, 501, 500)
    assert not any("no sandbox" in note for note in found.notes)


def test_a_link_that_names_no_vm_changes_nothing(tree: Tree) -> None:
    folder = tree.folder / "run/vc/vm"
    folder.mkdir(parents=True)
    (folder / ID).symlink_to("..")
    (folder / "another").symlink_to("/etc/passwd")
    clone(tree, 501, ID)
    assert [sandbox.id for sandbox in tree.watcher().sweep()] == [ID]
