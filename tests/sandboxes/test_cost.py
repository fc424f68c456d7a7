"""What a sandbox costs where it cannot be read as a whole, and what its control group is charged beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.cgroup_reader import Group
from kata_node_agent.sandboxes import reading
from kata_node_agent.sandboxes.cost import charge_of
from kata_node_agent.sandboxes.model import Cost
from tests.sandboxes.support import ID, MIB, Tree, qemu, region, rest, shared, shim, virtiofsd

if TYPE_CHECKING:
    from pathlib import Path

GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"

NOT_CHARGED = "1024 MiB of the cost is in huge pages, which are not charged here"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    made.process(500, shim(), started=90, resident_pages=5120)
    made.memory(500, rest(20480))
    made.process(501, qemu(ID, "512M", *shared("512M")), parent=500, resident_pages=8960)
    made.memory(501, region(4096, 512, GUEST, rss=25600, pss=12800, inode=17) + rest(10240))
    made.process(502, virtiofsd(), parent=500, resident_pages=7680)
    made.memory(502, region(4096, 512, GUEST, rss=25600, pss=12800, inode=17) + rest(5120))
    return made


def test_a_process_whose_memory_cannot_be_read_leaves_no_cost_that_is_too_low(tree: Tree) -> None:
    smaps = tree.folder / "proc/502/smaps"
    content = smaps.read_bytes()
    smaps.unlink()
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert found.cost is None
    assert found.notes == ("the memory of process 502 cannot be read: its cost is not known",)
    # Nothing has moved; what is not whole is read again all the same.
    smaps.write_bytes(content)
    (found,) = watcher.sweep()
    assert found.cost is not None
    assert (found.cost.resident_bytes, found.notes) == (60 * MIB, ())


def test_the_cost_of_before_stays_and_is_said_to_be_old(tree: Tree) -> None:
    watcher = tree.watcher()
    (before,) = watcher.sweep()
    (tree.folder / "proc/502/smaps").unlink()
    tree.process(501, qemu(ID, "512M", *shared("512M")), parent=500, resident_pages=90000)
    tree.memory(501, region(4096, 512, GUEST, rss=225600, inode=17) + rest(10240))
    (found,) = watcher.sweep()
    assert found.cost == before.cost
    assert found.notes == ("the memory of process 502 cannot be read: its cost is that of before",)


def test_a_vmm_whose_pages_cannot_be_read_is_tried_again_at_each_sweep(tree: Tree) -> None:
    smaps = tree.folder / "proc/501/smaps"
    content = smaps.read_bytes()
    smaps.unlink()
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert (found.vm_memory_bytes, found.cost) == (512 * MIB, None)
    assert found.notes == ("the memory of process 501 cannot be read: its cost is not known",)
    smaps.write_bytes(content)
    (found,) = watcher.sweep()
    assert found.cost is not None


@pytest.mark.parametrize(("page_kib", "is_read"), [(4, False), (64, True)])
def test_a_fault_brings_as_much_as_a_page_of_this_machine_has(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, page_kib: int, is_read: bool
) -> None:
    monkeypatch.setattr(reading, "_FAULT_BYTES", page_kib * 1024)
    watcher = tree.watcher()
    before = watcher.sweep()
    tree.process(500, shim(), started=90, resident_pages=5120, faults=200)
    tree.memory(500, rest(40960))
    assert (watcher.sweep() != before) == is_read


def huge_cost(huge_mib: int) -> Cost:
    return Cost(huge_mib * MIB, 30 * MIB, 8 * MIB, 20 * MIB, 2 * MIB, 0, 58 * MIB, huge_mib * MIB)


@pytest.mark.parametrize(
    ("charge_mib", "words"),
    [
        (60, NOT_CHARGED),
        (
            130,
            f"{NOT_CHARGED}; 70 MiB more than the rest of the cost: 60 MiB file cache, 10 MiB that no process of the sandbox maps",
        ),
        (
            30,
            f"{NOT_CHARGED}; 30 MiB less than the rest of the cost: memory that was first touched in another group is charged there",
        ),
        # A hierarchy that was mounted with memory_hugetlb_accounting.
        (1084, ""),
    ],
)
def test_huge_pages_are_not_taken_for_memory_that_another_group_is_charged_for(
    charge_mib: int, words: str
) -> None:
    group = Group("/x", usage_bytes=charge_mib * MIB, file_bytes=(60 if charge_mib == 130 else 0) * MIB)
    found = charge_of(huge_cost(1024), group, None, ())
    assert found is not None
    assert found.difference == words
