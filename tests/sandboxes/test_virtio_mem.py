"""What a virtio-mem device has plugged is not in /proc: how large such a VM is said to be, and how well that is known."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.sandboxes.support import ID, MIB, Tree, qemu, region, rest, shared

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.sandboxes.model import Sandbox

GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"
DEVICE = "/dev/shm/qemu_back_mem.virtiomem.oWXAz1 (deleted)"
MEMFD = "/memfd:memory-backend-memfd (deleted)"
RAM = ["-object", "memory-backend-ram,id=dimm1,size=512M", "-numa", "node,memdev=dimm1"]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def see(tree: Tree, memory: str, smaps: str, *line: str) -> Sandbox:
    tree.process(501, qemu(ID, memory, *line))
    tree.memory(501, smaps + rest(4096))
    (found,) = tree.watcher().sweep()
    return found


def sizes(found: Sandbox) -> tuple[int, int, int, str]:
    parts = (found.base_bytes, found.hotplugged_bytes, found.virtio_mem_bytes)
    return (*(part // MIB for part in parts), found.size_certainty)  # type: ignore[return-value]


def persist(tree: Tree, mib: object, virtio_mem: object = True, *, at: int = 1) -> None:
    """Written at that time: two writes within one tick of the clock would else have the same."""
    document = {
        "HypervisorState": {"HotpluggedMemory": mib},
        "Config": {"HypervisorConfig": {"VirtioMem": virtio_mem}},
    }
    tree.write(f"run/vc/sbs/{ID}/persist.json", json.dumps(document))
    os.utime(tree.folder / f"run/vc/sbs/{ID}/persist.json", ns=(at, at))


def base(resident_mib: int = 100) -> str:
    return region(4096, 512, perms="rw-p", rss=resident_mib * 1024)


def test_a_device_without_a_word_counts_for_what_the_guest_has_touched_and_says_at_least(tree: Tree) -> None:
    device = region(8192, 32768, DEVICE, inode=19, rss=257 * 1024)
    found = see(
        tree, "512M,slots=10,maxmem=33G", region(4096, 512, GUEST, inode=17) + device, *shared("512M")
    )
    # 257 MiB are touched; the device plugs blocks of 2 MiB.
    assert sizes(found) == (512, 258, 32768, "at_least")
    assert "which is the least" in found.notes[-1]


@pytest.mark.parametrize(
    ("device", "line"),
    [
        (region(8192, 3584, perms="rw-p", rss=3 * 1024), RAM),
        (region(8192, 3584, MEMFD, inode=9, rss=3 * 1024), RAM),
    ],
    ids=["anonymous", "memfd"],
)
# Kata rounds its size down to 4 MiB.
@pytest.mark.parametrize("maxmem", [4096, 4099])
def test_memory_without_a_name_that_reaches_up_to_maxmem_is_katas_device(
    tree: Tree, device: str, line: list[str], maxmem: int
) -> None:
    found = see(tree, f"512M,slots=10,maxmem={maxmem}M", base() + device, *line)
    assert sizes(found) == (512, 4, 3584, "at_least")


def test_of_two_of_one_size_the_guest_has_booted_in_the_fuller_one(tree: Tree) -> None:
    device = region(2048, 512, perms="rw-p", rss=2 * 1024)
    found = see(tree, "512M,slots=10,maxmem=1G", base(300) + device, *RAM)
    assert sizes(found) == (512, 2, 512, "at_least")


def test_what_kata_has_requested_counts_and_says_so(tree: Tree) -> None:
    persist(tree, 1024)
    found = see(tree, "512M,slots=10,maxmem=4G", base() + region(8192, 3584, perms="rw-p"), *RAM)
    assert sizes(found) == (512, 1024, 3584, "requested")
    assert "may have taken less" in found.notes[-1]


def test_more_is_touched_than_requested_while_the_guest_gives_back(tree: Tree) -> None:
    persist(tree, 128)
    device = region(8192, 3584, perms="rw-p", rss=300 * 1024)
    found = see(tree, "512M,slots=10,maxmem=4G", base() + device, *RAM)
    assert sizes(found) == (512, 300, 3584, "requested")


def test_where_kata_plugs_dimms_one_up_to_maxmem_is_a_dimm(tree: Tree) -> None:
    persist(tree, 3584, virtio_mem=False)
    found = see(tree, "512M,slots=10,maxmem=4G", base() + region(8192, 3584, perms="rw-p"), *RAM)
    assert sizes(found) == (512, 3584, 0, "exact")


def test_where_kata_has_a_device_nothing_else_is_plugged(tree: Tree) -> None:
    """With memory_offset maxmem is more than the device is as large as."""
    persist(tree, 256)
    found = see(tree, "512M,slots=10,maxmem=5G", base() + region(8192, 3584, perms="rw-p"), *RAM)
    assert sizes(found) == (512, 256, 3584, "requested")


def test_a_device_of_the_command_line_has_what_was_requested_there(tree: Tree) -> None:
    line = [*RAM, "-object", "memory-backend-ram,id=vm0,size=1G"]
    line += ["-device", "virtio-mem-pci,memdev=vm0,requested-size=256M"]
    smaps = base() + region(8192, 1024, perms="rw-p") + region(1024, 128, perms="rw-p")
    found = see(tree, "512M,slots=10,maxmem=4G", smaps, *line)
    # A DIMM of 128 MiB besides.
    assert sizes(found) == (512, 384, 1024, "requested")


def test_dimms_without_a_name_are_still_plugged_memory(tree: Tree) -> None:
    smaps = base() + region(8192, 256, perms="rw-p") + region(1024, 128, MEMFD, inode=9)
    assert sizes(see(tree, "512M,slots=10,maxmem=4G", smaps, *RAM)) == (512, 384, 0, "exact")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"HypervisorState": 1}', '{"HypervisorState": {"HotpluggedMemory": true}}', "[" * 9999],
)
def test_what_cannot_be_understood_says_nothing(tree: Tree, text: str) -> None:
    tree.write(f"run/vc/sbs/{ID}/persist.json", text)
    found = see(tree, "512M,slots=10,maxmem=4G", base() + region(8192, 3584, perms="rw-p"), *RAM)
    assert found.size_certainty == "at_least"


@pytest.mark.parametrize("mib", [-1, 1 << 50, "7", 1.5])
def test_a_number_that_is_no_size_is_not_taken(tree: Tree, mib: object) -> None:
    persist(tree, mib)
    found = see(tree, "512M,slots=10,maxmem=4G", base() + region(8192, 3584, perms="rw-p"), *RAM)
    assert found.size_certainty == "at_least"


def test_a_resize_is_seen_at_a_glance_though_no_mapping_changes(tree: Tree) -> None:
    persist(tree, 0)
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=4G", *RAM))
    tree.memory(501, base() + region(8192, 3584, perms="rw-p"))
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert (found.hotplugged_bytes, watcher.glance()) == (0, False)
    persist(tree, 2048, at=2)
    assert watcher.glance(processes=False)
    (found,) = watcher.sweep()
    assert found.hotplugged_bytes == 2048 * MIB


def test_the_end_of_the_last_vm_with_a_device_leaves_nothing_to_glance_at(tree: Tree) -> None:
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=4G", *RAM))
    tree.memory(501, base() + region(8192, 3584, perms="rw-p"))
    watcher = tree.watcher()
    watcher.sweep()
    assert not watcher.glance()
    tree.end(501)
    assert watcher.sweep() == ()
    assert not watcher.glance()
    assert not watcher.glance(processes=False)


def test_a_device_that_came_since_the_sweep_is_followed_without_another(tree: Tree) -> None:
    persist(tree, 0)
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=4G", *RAM))
    tree.memory(501, base())
    watcher = tree.watcher()
    watcher.sweep()
    assert not watcher.glance()
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=4G", *RAM), virtual=5 << 30)
    tree.memory(501, base() + region(8192, 3584, perms="rw-p"))
    assert not watcher.glance(processes=False), "nothing of it is plugged yet"
    for time, mib in enumerate((128, 256), 2):
        persist(tree, mib, at=time)
        assert watcher.glance(processes=False)
        assert [found.hotplugged_bytes for found in watcher.resize()] == [mib * MIB]


def test_a_change_that_is_too_small_for_a_look_at_its_cost_calls_for_none(tree: Tree) -> None:
    """Of a large VM, which would else be swept at every glance."""

    def touched(gib: float) -> None:
        tree.process(501, qemu(ID, "512M,slots=10,maxmem=65G", *RAM), resident_pages=int(gib * 2**18))
        tree.memory(501, base() + region(8192, 65536, perms="rw-p", rss=int(gib * 2**20)))

    persist(tree, 65536)
    touched(60)
    watcher = tree.watcher()
    watcher.sweep()
    touched(60.5)
    assert not watcher.glance()
    touched(61)
    assert watcher.glance()
    watcher.sweep()
    assert not watcher.glance()


def test_what_was_read_while_kata_wrote_it_is_read_again_though_it_has_the_same_time(tree: Tree) -> None:
    """Kata empties the file, and fills it within the same tick of the clock."""
    persist(tree, 1024)
    place = tree.folder / f"run/vc/sbs/{ID}/persist.json"
    whole = place.read_bytes()
    place.write_bytes(b"")
    os.utime(place, ns=(1, 1))
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=4G", *RAM))
    tree.memory(501, base() + region(8192, 3584, perms="rw-p"))
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert found.size_certainty == "at_least"
    place.write_bytes(whole)
    os.utime(place, ns=(1, 1))
    assert watcher.glance(processes=False)
    assert [sizes(found) for found in watcher.resize()] == [(512, 1024, 3584, "requested")]
