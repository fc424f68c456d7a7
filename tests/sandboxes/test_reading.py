"""How little is read again of a VM that has changed, and what is read all the same."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.process_files import ProcessFiles
from kata_node_agent.sandboxes.size_files import SizeFiles
from tests.sandboxes.support import ID, MIB, Clock, Tree, qemu, region, rest, shared, shim, virtiofsd

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.sandboxes.model import Cost
    from kata_node_agent.sandboxes.watcher import Watcher

GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def write(
    tree: Tree,
    guest_mib: int,
    beside_mib: int = 10,
    *,
    inode: int = 17,
    unshared: int | None = 10240,
    plugged: str = "",
    virtual: int = 1 << 30,
) -> None:
    """A guest that has touched so much, and a VMM of which so much is said by the lines behind the guest's."""
    tree.process(500, shim(), started=90, resident_pages=5120)
    tree.memory(500, rest(20480))
    line = qemu(ID, "512M,slots=10,maxmem=4G", *shared("512M"))
    pages = (guest_mib + 10) * 256
    tree.process(501, line, parent=500, resident_pages=pages, unshared=unshared, virtual=virtual)
    ram = region(4096, 512, GUEST, rss=guest_mib * 1024, pss=guest_mib * 512, inode=inode)
    tree.memory(501, plugged + ram + rest(beside_mib * 1024))
    tree.process(502, virtiofsd(), parent=500, resident_pages=pages, unshared=5120)
    tree.memory(502, ram + rest(5120))


def cost(watcher: Watcher) -> Cost:
    (found,) = watcher.sweep()
    assert found.cost is not None
    return found.cost


def test_of_a_guest_that_has_touched_more_only_its_own_lines_are_read(tree: Tree) -> None:
    write(tree, 50)
    watcher = tree.watcher()
    assert (cost(watcher).guest_bytes, cost(watcher).vmm_bytes) == (50 * MIB, 10 * MIB)
    # What stands behind the guest's lines is another number: whoever reads them has it.
    write(tree, 200, beside_mib=99)
    assert (cost(watcher).guest_bytes, cost(watcher).vmm_bytes) == (200 * MIB, 10 * MIB)
    assert cost(watcher).rss_sum_bytes == (200 + 10 + 200 + 5 + 20) * MIB


@pytest.mark.parametrize(
    "differs",
    [
        {"unshared": 99 * 1024},
        {"unshared": None},
        {"inode": 18},
        {"virtual": 2 << 30},
        {"plugged": region(1024, 128, "/dev/shm/qemu_back_mem.mem0.cOn1lk (deleted)", inode=19)},
    ],
    ids=["memory of its own", "an old kernel", "another file", "another address space", "a mapping more"],
)
def test_all_is_read_where_the_rest_may_have_changed(tree: Tree, differs: dict[str, object]) -> None:
    write(tree, 50)
    watcher = tree.watcher()
    cost(watcher)
    write(tree, 200, beside_mib=99, **differs)  # type: ignore[arg-type]
    assert (cost(watcher).guest_bytes, cost(watcher).vmm_bytes) == (200 * MIB, 99 * MIB)


def test_all_is_read_at_the_refresh_though_the_guest_never_rests(tree: Tree) -> None:
    write(tree, 50)
    clock = Clock()
    watcher = tree.watcher(clock)
    cost(watcher)
    for number in range(6):
        clock.now += 60
        write(tree, 100 + 50 * number, beside_mib=99)
        cost(watcher)
    assert cost(watcher).vmm_bytes == 99 * MIB


def test_another_size_is_told_without_a_sweep(tree: Tree) -> None:
    write(tree, 50)
    watcher = tree.watcher()
    (before,) = watcher.sweep()
    assert not watcher.glance(processes=False)
    plugged = region(1024, 1024, "/dev/shm/qemu_back_mem.mem0.cOn1lk (deleted)", inode=19)
    write(tree, 50, plugged=plugged, virtual=2 << 30)
    for _ in range(2):
        assert watcher.glance(processes=False), "a change is told until somebody has heard it"
        assert watcher.only_sizes
    (found,) = watcher.resize()
    assert (found.vm_memory_bytes, found.hotplugged_bytes) == (1536 * MIB, 1024 * MIB)
    assert (found.cost, found.processes) == (before.cost, before.processes)
    assert watcher.sandboxes == (found,)
    assert not watcher.glance(processes=False)
    assert watcher.sweep() == (found,)


@pytest.mark.parametrize("what", ["ended", "another under its number"])
def test_what_is_more_than_a_size_calls_for_a_sweep(tree: Tree, what: str) -> None:
    write(tree, 50)
    watcher = tree.watcher()
    watcher.sweep()
    if what == "ended":
        tree.write("proc/501/statm", "0 0 0 0 0 0 0\n")
    else:
        line = qemu("other", "1G", *shared("1G"))
        tree.process(501, line, started=700, virtual=5 << 30)
        tree.memory(501, region(4096, 1024, GUEST, inode=4))
    assert watcher.glance(processes=False)
    assert not watcher.only_sizes


def test_that_pages_are_huge_is_remembered_where_only_maps_is_read(tree: Tree) -> None:
    """Of a folder with another name only smaps says that it is one of huge pages."""
    line = qemu(ID, "512M,slots=10,maxmem=4G", *shared("512M", "/mnt/pages"))
    ram = region(4096, 512, "/mnt/pages/qemu_back_mem.dimm1.x1Y2z3 (deleted)", inode=5, page=2048, huge=2048)
    tree.process(501, line)
    tree.memory(501, ram + rest(1024))
    watcher = tree.watcher()
    assert [found.memory_location for found in watcher.sweep()] == ["hugepages"]
    plugged = region(1024, 128, "/mnt/pages/qemu_back_mem.mem0.cOn1lk (deleted)", inode=6, page=2048)
    tree.process(501, line, virtual=2 << 30)
    tree.memory(501, plugged + ram + rest(1024))
    assert watcher.glance(processes=False)
    (found,) = watcher.resize()
    assert (found.memory_location, found.hotplugged_bytes) == ("hugepages", 128 * MIB)


def test_files_of_sizes_are_kept_as_far_as_there_is_room(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in range(501, 509):
        tree.process(pid, ["x"], virtual=pid << 20)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    kept = SizeFiles()
    with ProcessFiles(tree.root) as files:
        who = [(pid, 100) for pid in range(501, 509)]
        for _ in range(2):
            assert list(kept.read(files, who))[::2] == [pid << 20 for pid, _ in who]
        assert len(kept._files) == 5
        # One has another number's place; what is kept of those that are gone is given back.
        assert list(kept.read(files, [(508, 100), (999, 1)])) == [508 << 20, 0, 0, 0]
        assert len(kept._files) == 1
