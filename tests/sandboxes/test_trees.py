"""Sandboxes in recorded trees. What is expected was worked out by hand from the numbers that the trees hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.model import Cost, Process
from kata_node_agent.sandboxes.watcher import Watcher
from tests.sandboxes.support import (
    ID,
    MIB,
    POD_GROUP,
    UID,
    Clock,
    Tree,
    qemu,
    region,
    rest,
    shared,
    shim,
    virtiofsd,
)

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
GUEST = "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def one_sandbox(tree: Tree, **qemu_says: Any) -> None:
    """A VM of 2 GiB of which the guest has touched 300 MiB; virtiofsd has 100 MiB of these mapped too."""
    tree.process(500, shim(), started=90, resident_pages=7680, page_tables=200)
    tree.memory(500, rest(30720, pss=20480))
    ram = region(4096, 2048, GUEST, rss=307200, pss=256000, inode=17)
    tree.process(
        501, qemu(ID, "2048M,slots=10,maxmem=32768M", *shared()), parent=500, page_tables=900, **qemu_says
    )
    tree.memory(501, ram + rest(40960, pss=30720))
    tree.process(502, virtiofsd(), parent=500, page_tables=300)
    tree.memory(502, region(8192, 2048, GUEST, rss=102400, pss=51200, inode=17) + rest(10240, pss=8192))


def test_memory_that_two_processes_map_is_counted_once(tree: Tree) -> None:
    one_sandbox(tree)
    (found,) = tree.watcher().sweep()
    assert found.cost == Cost(
        guest_bytes=300 * MIB,
        vmm_bytes=30 * MIB,
        virtiofsd_bytes=8 * MIB,
        shim_bytes=20 * MIB,
        page_table_bytes=1400 * KIB,
        guest_swapped_bytes=0,
        rss_sum_bytes=480 * MIB,
    )
    assert found.cost.host_overhead_bytes == 58 * MIB + 1400 * KIB
    assert found.cost.resident_bytes == 358 * MIB + 1400 * KIB


def test_a_vm_is_seen_with_all_that_belongs_to_it(tree: Tree) -> None:
    one_sandbox(tree)
    (found,) = tree.watcher().sweep()
    assert (found.id, found.vmm, found.pid, found.started, found.shim_pid) == (ID, "qemu", 501, 100, 500)
    assert (found.base_bytes, found.hotplugged_bytes, found.max_bytes) == (2048 * MIB, 0, 32768 * MIB)
    assert found.memory_location == "shm"
    assert found.processes == (
        Process(501, "vmm", 100),
        Process(502, "virtiofsd", 100),
        Process(500, "shim", 90),
    )
    assert found.notes == ()


def test_hotplugged_memory_is_added_to_the_base(tree: Tree) -> None:
    one_sandbox(tree)
    watcher = tree.watcher()
    watcher.sweep()
    assert not watcher.glance()
    more = region(1024, 1024, "/dev/shm/qemu_back_mem.mem0.cOn1lk (deleted)", inode=18)
    tree.process(501, qemu(ID, "2048M,slots=10,maxmem=32768M", *shared()), parent=500, virtual=2 << 30)
    tree.memory(501, more + region(4096, 2048, GUEST, rss=307200, inode=17) + rest(40960))
    assert watcher.glance()
    assert watcher.glance(), "a change is told until it is swept"
    (found,) = watcher.sweep()
    assert (found.base_bytes, found.hotplugged_bytes, found.vm_memory_bytes) == (
        2048 * MIB,
        1024 * MIB,
        3072 * MIB,
    )
    assert not watcher.glance()


def test_an_address_space_that_grows_by_something_else_is_no_change(tree: Tree) -> None:
    one_sandbox(tree)
    watcher = tree.watcher()
    before = watcher.sweep()
    one_sandbox(tree, virtual=2 << 30)
    assert not watcher.glance()
    assert watcher.sweep() == before


@pytest.mark.parametrize(
    ("mapping", "line", "location"),
    [
        (region(4096, 512, "/memfd:memory-backend-memfd (deleted)", inode=26), [], "memfd"),
        (region(4096, 512, perms="rw-p"), [], "anonymous"),
        (
            region(4096, 512, "/dev/hugepages/qemu_back_mem.dimm1.x1Y2z3 (deleted)", inode=5, page=2048),
            shared("512M", "/dev/hugepages"),
            "hugepages",
        ),
        (
            region(4096, 512, "/memfd:memory-backend-memfd (deleted)", inode=26, page=2048),
            ["-object", "memory-backend-memfd,id=dimm1,size=512M,hugetlb=on", "-numa", "node,memdev=dimm1"],
            "hugepages",
        ),
        (region(4096, 512, "/mnt/huge/qemu_back_mem.dimm1.x1Y2z3 (deleted)", inode=5), [], "file"),
    ],
    ids=["memfd", "anonymous", "hugepages", "memfd of huge pages", "another folder"],
)
def test_guest_ram_is_found_wherever_it_lives(
    tree: Tree, mapping: str, line: list[str], location: str
) -> None:
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=4G", *line))
    translator = region(30_000, 1024, perms="rwxp", rss=9000)
    image = region(
        40_000, 256, "/usr/share/kata-containers/kata-containers.img", perms="r--s", inode=9, rss=5000
    )
    tree.memory(501, mapping + translator + image + rest(4096))
    (found,) = tree.watcher().sweep()
    assert (found.memory_location, found.base_bytes, found.hotplugged_bytes) == (location, 512 * MIB, 0)


def test_huge_pages_are_counted_though_no_resident_set_has_them(tree: Tree) -> None:
    path = "/dev/hugepages/qemu_back_mem.dimm1.x1Y2z3 (deleted)"
    tree.process(501, qemu(ID, "512M", *shared("512M", "/dev/hugepages")), page_tables=100)
    tree.memory(501, region(4096, 512, path, inode=5, page=2048, huge=524288) + rest(40960))
    tree.process(502, virtiofsd(), parent=501)
    tree.memory(502, region(4096, 512, path, inode=5, page=2048, huge=524288) + rest(1024))
    (found,) = tree.watcher().sweep()
    assert found.cost is not None
    assert found.cost.guest_bytes == 512 * MIB
    assert found.cost.host_overhead_bytes == 41 * MIB + 100 * KIB


def test_a_virtio_mem_device_counts_for_what_the_guest_has_touched_in_whole_blocks(tree: Tree) -> None:
    tree.process(501, qemu(ID, "512M,slots=10,maxmem=33G", *shared("512M")))
    device = region(8192, 32768, "/dev/shm/qemu_back_mem.virtiomem.oWXAz1 (deleted)", inode=19, rss=257 * KIB)
    tree.memory(501, region(4096, 512, GUEST, inode=17, rss=1024) + device)
    (found,) = tree.watcher().sweep()
    # 257 MiB are touched; the device plugs blocks of 2 MiB.
    assert (found.base_bytes, found.hotplugged_bytes) == (512 * MIB, 258 * MIB)
    assert found.virtio_mem_bytes == 32768 * MIB


def test_swapped_guest_memory_is_beside_what_is_resident(tree: Tree) -> None:
    tree.process(501, qemu(ID, "512M", *shared("512M")))
    tree.memory(501, region(4096, 512, GUEST, inode=17, rss=1024, swap=2048))
    (found,) = tree.watcher().sweep()
    assert found.cost is not None
    assert (found.cost.guest_bytes, found.cost.guest_swapped_bytes) == (MIB, 2 * MIB)


def test_cloud_hypervisor_has_no_memory_in_its_command_line(tree: Tree) -> None:
    words = ["cloud-hypervisor", "--api-socket", f"/run/vc/vm/{ID}/clh-api.sock"]
    tree.process(501, words)
    first = region(4096, 2048, "/memfd:ch_ram (deleted)", inode=3)
    tree.memory(501, first)
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert (found.vmm, found.base_bytes, found.hotplugged_bytes) == ("cloud-hypervisor", 2048 * MIB, 0)
    assert found.max_bytes is None
    tree.process(501, words, virtual=2 << 30)
    tree.memory(501, first + region(8192, 512, "/memfd:ch_ram (deleted)", inode=4))
    (found,) = watcher.sweep()
    assert (found.base_bytes, found.hotplugged_bytes) == (2048 * MIB, 512 * MIB)


def test_dragonball_is_the_shim_that_maps_vcpus(tree: Tree) -> None:
    vcpu = region(20_000, 0, "anon_inode:kvm-vcpu:0", inode=1038)
    tree.process(500, shim(), page_tables=100)
    tree.memory(
        500, region(4096, 1024, "/memfd:dragonball (deleted)", inode=8, rss=51200) + vcpu + rest(20480)
    )
    (found,) = tree.watcher().sweep()
    assert (found.vmm, found.pid, found.base_bytes, found.shim_pid) == ("dragonball", 500, 1024 * MIB, 500)
    assert found.processes == (Process(500, "vmm", 100),)
    assert found.cost is not None
    assert (found.cost.guest_bytes, found.cost.vmm_bytes, found.cost.shim_bytes) == (50 * MIB, 0, 20 * MIB)


def test_a_shim_alone_is_no_vm_however_much_it_maps(tree: Tree) -> None:
    tree.process(500, shim())
    tree.memory(500, region(4096, 4096, perms="rw-p", rss=51200) + rest(20480))
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    assert watcher.unbelieved == ()


def test_a_vm_without_guest_ram_yet_is_seen_when_it_has_some(tree: Tree) -> None:
    tree.process(501, qemu(ID, "512M", *shared("512M")))
    tree.memory(501, rest(1000))
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    assert not watcher.glance()
    tree.process(501, qemu(ID, "512M", *shared("512M")), virtual=2 << 30)
    tree.memory(501, region(4096, 512, GUEST, inode=17) + rest(1000))
    assert watcher.glance()
    assert [found.vm_memory_bytes for found in watcher.sweep()] == [512 * MIB]


def test_a_vm_whose_mappings_may_not_be_read_has_the_size_of_its_command_line(tree: Tree) -> None:
    one_sandbox(tree)
    for name in ("maps", "smaps"):
        (tree.folder / f"proc/501/{name}").unlink()
    (found,) = tree.watcher().sweep()
    assert (found.base_bytes, found.cost) == (2048 * MIB, None)
    assert found.notes == ("its mappings cannot be read: the size is that of its command line",)


def test_less_memory_than_the_command_line_says_is_noted(tree: Tree) -> None:
    tree.process(501, qemu(ID, "512M", *shared("512M")))
    tree.memory(501, region(4096, 256, GUEST, inode=17))
    (found,) = tree.watcher().sweep()
    assert found.base_bytes == 256 * MIB
    assert found.notes == ("-m is 536870912 bytes, but 268435456 bytes of guest RAM are mapped",)


def test_pod_and_handler_are_what_the_node_has_written_down(tree: Tree) -> None:
    one_sandbox(tree, cgroup=f"{POD_GROUP}/kata_{ID}")
    tree.write(f"var/log/pods/shop_web-0_{UID}/web/0.log", "")
    (found,) = tree.watcher().sweep()
    assert (found.pod_uid, found.pod, found.handler) == (UID, "shop/web-0", None)
    assert found.cgroup == f"{POD_GROUP}/kata_{ID}"


@pytest.mark.parametrize(
    ("path", "annotations"),
    [
        (
            f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json",
            {
                "io.kubernetes.cri.sandbox-uid": UID,
                "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.containerd.cri.runtime-handler": "kata",
            },
        ),
        (
            f"run/containers/storage/overlay-containers/{ID}/userdata/config.json",
            {
                "io.kubernetes.pod.uid": UID,
                "io.kubernetes.pod.name": "web-0",
                "io.kubernetes.pod.namespace": "shop",
                "io.kubernetes.cri-o.RuntimeHandler": "kata",
            },
        ),
    ],
    ids=["containerd", "cri-o"],
)
def test_the_runtimes_own_record_names_pod_and_handler(tree: Tree, path: str, annotations: object) -> None:
    one_sandbox(tree)
    tree.write(path, json.dumps({"ociVersion": "1.1.0", "annotations": annotations}))
    (found,) = tree.watcher().sweep()
    assert (found.pod_uid, found.pod, found.handler) == (UID, "shop/web-0", "kata")


def test_the_pod_is_that_of_the_shim_where_the_vmm_is_outside(tree: Tree) -> None:
    one_sandbox(tree, cgroup=f"/kata_overhead/{ID}")
    tree.write("proc/500/cgroup", f"0::{POD_GROUP}\n")
    (found,) = tree.watcher().sweep()
    assert (found.pod_uid, found.cgroup) == (UID, f"/kata_overhead/{ID}")


def charge_files(tree: Tree, path: str, usage: int, cache: int, shmem: int, kernel: int, limit: str) -> None:
    base = f"sys/fs/cgroup{path}"
    stat = {"anon": 0, "file": cache + shmem, "kernel": kernel, "shmem": shmem, "inactive_file": cache}
    tree.write(f"{base}/memory.stat", "".join(f"{name} {value}\n" for name, value in stat.items()))
    tree.write(f"{base}/memory.current", f"{usage}\n")
    tree.write(f"{base}/memory.max", f"{limit}\n")


def test_the_charge_is_explained_by_what_it_has_beyond_the_cost(tree: Tree) -> None:
    one_sandbox(tree, cgroup=f"{POD_GROUP}/kata_{ID}")
    charge_files(tree, f"{POD_GROUP}/kata_{ID}", 700 * MIB, 300 * MIB, 300 * MIB, 20 * MIB, "max")
    charge_files(tree, POD_GROUP, 710 * MIB, 300 * MIB, 300 * MIB, 20 * MIB, str(1000 * MIB))
    (found,) = tree.watcher().sweep()
    assert found.charge is not None
    assert found.charge.bytes == 700 * MIB
    assert found.charge.limit_bytes == 1000 * MIB
    assert (found.charge.file_cache_bytes, found.charge.kernel_bytes) == (300 * MIB, 20 * MIB)
    # 700 MiB − 359 MiB of cost = 341; 320 of these are cache and kernel memory.
    assert found.charge.difference == (
        "341 MiB more than the cost: 300 MiB file cache, 20 MiB kernel memory, "
        "21 MiB that no process of the sandbox maps"
    )


def test_processes_in_a_group_of_their_own_are_charged_elsewhere(tree: Tree) -> None:
    one_sandbox(tree, cgroup=POD_GROUP)
    for pid in (500, 502):
        tree.write(f"proc/{pid}/cgroup", f"0::/kata_overhead/{ID}\n")
    charge_files(tree, POD_GROUP, 330 * MIB, 0, 300 * MIB, 0, "max")
    charge_files(tree, f"/kata_overhead/{ID}", 30 * MIB, 0, 0, 0, "max")
    (found,) = tree.watcher().sweep()
    assert found.charge is not None
    assert (found.charge.bytes, found.charge.elsewhere_bytes) == (330 * MIB, 30 * MIB)
    assert found.charge.elsewhere == (f"/kata_overhead/{ID}",)
    assert found.charge.difference == ""


def test_a_group_that_others_share_says_nothing_about_one_vm(tree: Tree) -> None:
    one_sandbox(tree, cgroup="/system.slice/crio.service")
    charge_files(tree, "/system.slice/crio.service", 900 * MIB, 0, 0, 0, "max")
    (found,) = tree.watcher().sweep()
    assert found.charge is None
    assert found.cgroup == "/system.slice/crio.service"


def test_what_has_not_changed_is_not_read_again_until_the_refresh(tree: Tree) -> None:
    one_sandbox(tree)
    clock = Clock()
    watcher = tree.watcher(clock)
    (first,) = watcher.sweep()
    # A kernel that says other numbers, of processes that have not moved: nobody asks it.
    tree.memory(500, rest(40960, pss=40960))
    assert watcher.sweep() == (first,)
    assert watcher.sweep()[0] is first
    clock.now += 301
    (later,) = watcher.sweep()
    assert later.cost is not None
    assert later.cost.shim_bytes == 40 * MIB


@pytest.mark.parametrize(
    ("pages", "faults", "is_read"),
    [
        (7680, 0, False),
        (7680 + 500, 0, False),
        (7680 + 600, 0, True),
        (7680, 1000, False),
        (7680, 3000, True),
    ],
)
def test_memory_or_faults_that_moved_enough_call_for_another_reading(
    tree: Tree, pages: int, faults: int, is_read: bool
) -> None:
    """The shim has 30 MiB: 2 MiB is the least that counts, and faults of 8 MiB."""
    one_sandbox(tree)
    watcher = tree.watcher()
    (first,) = watcher.sweep()
    tree.process(500, shim(), started=90, resident_pages=pages, faults=faults)
    tree.memory(500, rest(40960))
    assert (watcher.sweep() != (first,)) == is_read


def test_a_sweep_that_takes_long_knows_all_sizes_and_goes_on_with_the_costs(tree: Tree) -> None:
    """Each look at the clock is a second later: a sweep begins, and after 2.5 s, at the third VM, reads no more costs."""
    for number in range(5):
        tree.process(500 + number, qemu(f"vm{number}", "512M", *shared("512M")))
        tree.memory(500 + number, region(4096, 512, GUEST, inode=17 + number, rss=1024))
    watcher = tree.watcher(Clock(step=1.0), cost_seconds=2.5)
    known = []
    for _ in range(3):
        found = watcher.sweep()
        assert [sandbox.vm_memory_bytes for sandbox in found] == [512 * MIB] * 5
        known.append([sandbox.id for sandbox in found if sandbox.cost is not None])
        assert watcher.glance() == (len(known[-1]) < 5), "what is owed calls for another sweep"
    assert known == [["vm0", "vm1"], ["vm0", "vm1", "vm2", "vm3"], ["vm0", "vm1", "vm2", "vm3", "vm4"]]


def test_a_process_that_vanishes_takes_its_sandbox_along(tree: Tree) -> None:
    one_sandbox(tree)
    watcher = tree.watcher()
    watcher.sweep()
    tree.end(501)
    assert watcher.glance()
    assert watcher.sweep() == ()


def test_another_process_under_the_same_number_is_another_vm(tree: Tree) -> None:
    one_sandbox(tree)
    watcher = tree.watcher()
    watcher.sweep()
    tree.process(501, qemu("other", "512M", *shared("512M")), started=900)
    tree.memory(501, region(4096, 512, GUEST, inode=30))
    (found,) = watcher.sweep()
    assert (found.id, found.started, found.base_bytes) == ("other", 900, 512 * MIB)


def test_a_child_that_was_seen_before_its_exec_is_looked_at_again(tree: Tree) -> None:
    """Between fork and exec it has its parent's name and command line, and keeps number and start."""
    tree.process(500, shim())
    tree.process(501, shim(), parent=500, started=100)
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    tree.process(501, qemu(ID, "512M", *shared("512M")), parent=500, started=100)
    tree.memory(501, region(4096, 512, GUEST, inode=17))
    assert watcher.glance()
    assert [found.pid for found in watcher.sweep()] == [501]


def test_a_new_vm_is_seen_at_a_glance_and_any_other_new_process_is_not(tree: Tree) -> None:
    watcher = tree.watcher()
    watcher.sweep()
    tree.process(400, ["/usr/bin/sleep", "5"])
    assert not watcher.glance()
    one_sandbox(tree)
    assert watcher.glance()


def test_a_tree_without_proc_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        Watcher(HostRoot(tmp_path)).sweep()
    assert "host_root" in caught.value.hint
