"""Files of many processes: in trees, of processes that really run, and damaged at will."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kata_node_agent.host.process_files import ProcessFiles, Source
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
STAT = "41 (a) (b) S 7 41 41 0 -1 4194560 100 5 20 9 5 5 0 0 20 0 3 0 12345 1048576 256 18446744073709551615 1 1 140000 "
SMAPS = """\
7f7edbfff000-7f7efbfff000 rw-s 00000000 00:1b 17                         /dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)
Size:             524288 kB
KernelPageSize:        4 kB
Rss:              260388 kB
Pss:              208962 kB
Pss_Dirty:           100 kB
Shared_Hugetlb:        8 kB
Private_Hugetlb:      16 kB
Swap:                 12 kB
SwapPss:               0 kB
VmFlags: rd wr sh mr mw me ms dc hg
7fbe6aedd000-7fbe6aee0000 rw-s 00000000 00:10 1038                       anon_inode:kvm-vcpu:0
Rss:                  12 kB
Pss:                  12 kB
7fbe6aee0000-7fbe7aee0000 r--s 00000000 103:02 9                          /usr/share/kata-containers/kata.img
Rss:                 100 kB
Pss:                  50 kB
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc/41").mkdir(parents=True)
    (tmp_path / "proc/41/stat").write_text(STAT + "1 0 0\n")
    (tmp_path / "proc/41/statm").write_text("256 64 1 1 0 1 0\n")
    (tmp_path / "proc/41/smaps").write_text(SMAPS)
    (tmp_path / "proc/41/status").write_text("Name:\ta\nVmPTE:\t     884 kB\nVmSwap:\t0 kB\n")
    return tmp_path


def test_a_name_with_parentheses_does_not_shift_the_fields(proc: Path) -> None:
    with ProcessFiles(HostRoot(proc)) as files:
        (found,) = files.stats([41])
    assert (found.pid, found.parent, found.started, found.threads) == (41, 7, 12345, 3)
    assert (found.faults, found.virtual_bytes, found.resident_bytes) == (120, MIB, 256 * mmap.PAGESIZE)
    assert found.name.rstrip(b"\0") == b"a) (b"
    assert found.image == 140000


def test_numbers_alone_are_processes(proc: Path) -> None:
    for name in ("self", "12a", "0", "99999999999999999999", "-3", "meminfo"):
        (proc / "proc" / name).mkdir()
    with ProcessFiles(HostRoot(proc)) as files:
        assert list(files.pids()) == [41]


def test_more_processes_than_fit_at_first_are_all_listed(tmp_path: Path) -> None:
    for pid in range(1, 5001):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
    with ProcessFiles(HostRoot(tmp_path)) as files:
        assert sorted(files.pids()) == list(range(1, 5001))


def test_the_sums_are_over_all_mappings_and_only_large_writable_ones_are_kept(proc: Path) -> None:
    with ProcessFiles(HostRoot(proc)) as files:
        found = files.memory(41, Source.SMAPS, MIB)
    assert found is not None
    assert found.resident_bytes == (260388 + 12 + 100) * 1024
    assert found.pss_bytes == (208962 + 12 + 50) * 1024
    assert (found.huge_bytes, found.swap_bytes) == (24 * 1024, 12 * 1024)
    assert (found.page_table_bytes, found.vcpus, found.mapping_count) == (884 * 1024, 1, 1)
    (mapping,) = found.mappings
    assert mapping.path == "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)"
    assert (mapping.size_bytes, mapping.inode, mapping.device) == (512 * MIB, 17, 0x1B)
    assert (mapping.resident_bytes, mapping.pss_bytes) == (260388 * 1024, 208962 * 1024)
    assert (mapping.huge_bytes, mapping.swap_bytes, mapping.page_bytes) == (24 * 1024, 12 * 1024, 4096)


def test_a_process_that_we_have_no_means_to_read_is_not_taken_for_one_that_has_ended(proc: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ProcessFiles(HostRoot(proc)) as files:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, usual[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                files.stats([41])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
        assert len(files.stats([41])) == 1


def test_what_is_not_there_is_none_or_left_out(proc: Path) -> None:
    with ProcessFiles(HostRoot(proc)) as files:
        assert files.stats([41, 42])[0].pid == 41
        assert len(files.stats([41, 42])) == 1
        assert list(files.sizes(files.pids())) == [256 * mmap.PAGESIZE, 64 * mmap.PAGESIZE]
        assert files.memory(42, Source.SMAPS, MIB) is None
        assert files.memory(41, Source.MAPS, MIB) is None
        assert files.read(41, "cmdline") is None
        assert files.namespace(41, "mnt") is None
        assert files.names(41, "task") == []


def test_a_fifo_in_a_trees_place_does_not_hang(proc: Path) -> None:
    (proc / "proc/41/smaps").unlink()
    os.mkfifo(proc / "proc/41/smaps")
    with ProcessFiles(HostRoot(proc)) as files:
        assert files.memory(41, Source.SMAPS, MIB) is None


def test_a_line_longer_than_any_is_passed_over(proc: Path) -> None:
    long = "7f0000000000-7f0010000000 rw-p 00000000 00:00 0 /" + "x" * 200_000 + "\n"
    (proc / "proc/41/smaps").write_text(long + SMAPS)
    with ProcessFiles(HostRoot(proc)) as files:
        found = files.memory(41, Source.SMAPS, MIB)
    assert found is not None
    assert found.resident_bytes == (260388 + 12 + 100) * 1024


def test_a_path_that_is_too_long_is_cut(proc: Path) -> None:
    long = "7f0000000000-7f0010000000 rw-p 00000000 00:00 5 /" + "x" * 5000 + "\nRss: 4 kB\n"
    (proc / "proc/41/smaps").write_text(long)
    with ProcessFiles(HostRoot(proc)) as files:
        found = files.memory(41, Source.SMAPS, MIB)
    assert found is not None
    assert found.mappings[0].path == "/" + "x" * 166
    assert found.mappings[0].resident_bytes == 4096


def test_more_mappings_than_anybody_wants_are_in_the_sums(proc: Path) -> None:
    line = "{:x}-{:x} rw-p 00000000 00:00 0 \nRss: 4 kB\n"
    many = "".join(line.format(n << 24, (n + 1) << 24) for n in range(1, 2001))
    (proc / "proc/41/smaps").write_text(many)
    with ProcessFiles(HostRoot(proc)) as files:
        found = files.memory(41, Source.SMAPS, MIB)
    assert found is not None
    assert (found.mapping_count, len(found.mappings)) == (2000, 512)
    assert found.resident_bytes == 2000 * 4096


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=600), name=st.sampled_from(["stat", "statm", "smaps", "status"]))
def test_any_bytes_are_read_without_an_error(proc: Path, content: bytes, name: str) -> None:
    (proc / "proc/41" / name).write_bytes(content)
    with ProcessFiles(HostRoot(proc)) as files:
        for stat in files.stats([41]):
            assert stat.virtual_bytes >= 0
        files.sizes(files.pids())
        memory = files.memory(41, Source.SMAPS, 0)
        assert memory is None or memory.mapping_count >= len(memory.mappings)


@pytest.mark.host
def test_our_own_memory_is_what_the_kernel_says_elsewhere() -> None:
    block = mmap.mmap(-1, 64 * MIB)
    block.write(b"x" * (32 * MIB))
    with ProcessFiles(HostRoot()) as files:
        found = files.memory(os.getpid(), Source.SMAPS, 16 * MIB)
        rollup = files.memory(os.getpid(), Source.SMAPS_ROLLUP, MIB)
        (stat,) = files.stats([os.getpid()])
        assert os.getpid() in files.pids()
    assert found is not None
    assert rollup is not None
    mine = [mapping for mapping in found.mappings if mapping.size_bytes == 64 * MIB]
    assert any(32 * MIB <= mapping.resident_bytes < 33 * MIB for mapping in mine)
    assert found.resident_bytes == pytest.approx(rollup.resident_bytes, rel=0.05)
    assert stat.resident_bytes == pytest.approx(rollup.resident_bytes, rel=0.05)
    assert found.page_table_bytes > 0
    block.close()


@pytest.mark.host
def test_processes_that_end_while_they_are_read_are_left_out() -> None:
    """Children that live for a moment are read all the time; whatever is found is whole."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            subprocess.run(["true"])

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        deadline = time.monotonic() + 2
        with ProcessFiles(HostRoot()) as files:
            while time.monotonic() < deadline:
                pids = files.pids()
                for stat in files.stats(pids):
                    assert stat.error == 0
                for pid in sorted(pids)[-3:]:
                    found = files.memory(pid, Source.SMAPS, MIB)
                    assert found is None or found.resident_bytes < 1 << 40
    finally:
        stop.set()
        thread.join()


@pytest.mark.host
def test_no_call_leaves_a_descriptor_or_memory_behind() -> None:
    def look() -> None:
        with ProcessFiles(HostRoot()) as files:
            files.stats(files.pids())
            files.sizes(files.pids())
            files.memory(os.getpid(), Source.SMAPS, MIB)
            files.memory(1 << 30, Source.SMAPS, MIB)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    for _ in range(20):
        look()
    descriptors, before = len(os.listdir("/proc/self/fd")), resident()
    for _ in range(200):
        look()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert resident() - before < 2 * MIB


@pytest.mark.host
def test_other_threads_run_while_a_long_file_is_read() -> None:
    """smaps of a process with 20,000 mappings takes the kernel a while; a counter goes on meanwhile."""
    blocks = [mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) for _ in range(20_000)]
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = counted
        with ProcessFiles(HostRoot()) as files:
            found = files.memory(os.getpid(), Source.SMAPS, MIB)
        assert found is not None
        assert counted - before > 10
    finally:
        stop.set()
        thread.join()
        for block in blocks:
            block.close()
