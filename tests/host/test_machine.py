"""What a machine has, from trees made by hand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host import machine
from kata_node_agent.host.machine import Machine, numa_nodes, read_machine, storage_bytes
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


def put(tree: Path, files: dict[str, str]) -> HostRoot:
    for path, content in files.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return HostRoot(tree)


def test_each_amount_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "sys/devices/system/cpu/online": "0-2,6\n",
            "proc/sys/kernel/pid_max": "4194304\n",
            "proc/sys/kernel/threads-max": "126000\n",
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64\n",
            "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "2\n",
            "sys/devices/system/memory/block_size_bytes": "8000000\n",
            "sys/devices/system/memory/memory0/state": "online\n",
            "sys/devices/system/memory/memory1/state": "offline\n",
            "sys/devices/system/memory/memory10/state": "online\n",
            "sys/devices/system/memory/memory11/state": "going-offline\n",
            "sys/kernel/kexec_crash_size": "268435456\n",
        },
    )
    assert read_machine(root) == Machine(
        cpus=4,
        # Of a recorded tree the disk is that of whoever looks.
        storage_bytes=None,
        # The lower of the two.
        pids=126000,
        hugepages_bytes={2 * MIB: 128 * MIB, 1024 * MIB: 2048 * MIB},
        online_blocks=2,
        offline_blocks=1,
        memory_block_bytes=128 * MIB,
        crash_kernel_bytes=256 * MIB,
    )


@pytest.mark.parametrize("text", ["", "-1", "٣", "x", "9" * 30, "\x00", "0x10"])
def test_what_is_no_number_is_no_data(tmp_path: Path, text: str) -> None:
    root = put(
        tmp_path,
        {
            "sys/devices/system/cpu/online": "z" + text,
            "proc/sys/kernel/pid_max": text,
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": text,
            f"sys/kernel/mm/hugepages/hugepages-{text.strip(chr(0))}kB/nr_hugepages": "1",
            "sys/devices/system/memory/block_size_bytes": "-" + text,
            "sys/devices/system/memory/memory0/state": text,
            "sys/kernel/kexec_crash_size": text,
        },
    )
    assert read_machine(root) == Machine()


def test_a_tree_without_any_of_it_is_no_data(tmp_path: Path) -> None:
    assert read_machine(HostRoot(tmp_path)) == Machine()
    assert numa_nodes(HostRoot(tmp_path)) is None


def test_numa_nodes_are_the_folders_of_that_name(tmp_path: Path) -> None:
    for name in ("node0", "node2", "nodex", "power", "node", "node99999999999999"):
        (tmp_path / "sys/devices/system/node" / name).mkdir(parents=True)
    assert numa_nodes(HostRoot(tmp_path)) == frozenset({0, 2})


def test_storage_is_that_of_the_folder_or_of_what_will_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "is_live", lambda _: True)
    status = os.statvfs(tmp_path)
    size = status.f_blocks * status.f_frsize
    root = HostRoot(tmp_path)
    # Before kubelet's first start; a relative folder of an unknown start is not looked for.
    assert storage_bytes(root, "/not/there/yet") == size
    assert storage_bytes(root, "relative") == size
    assert storage_bytes(root, "/a\0b") == size
    assert storage_bytes(root, "/" + "x" * 5000) == size
