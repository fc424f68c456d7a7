from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.host.meminfo import parse_meminfo, read_meminfo
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """MemTotal:       33554432 kB
MemFree:         1000000 kB
MemAvailable:   20000000 kB
AnonPages:         11316 kB
Shmem:              8872 kB
HugePages_Total:     512
HugePages_Free:      500
Hugepagesize:       2048 kB
"""


def test_kilobytes_become_bytes_and_counts_stay() -> None:
    memory = parse_meminfo(TEXT)
    assert memory.total_bytes == 32 << 30
    assert memory.available_bytes == 20_000_000 * 1024
    assert memory.shmem_bytes == 8872 * 1024
    assert memory.hugepages_total == 512
    assert memory.hugepages_bytes == 1 << 30
    assert memory.swap_total_bytes is None


def test_hugetlb_counts_pages_of_all_sizes() -> None:
    assert parse_meminfo(TEXT + "Hugetlb:  3145728 kB\n").hugepages_bytes == 3 << 30


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "MemTotal:",
        "MemTotal: kB",
        "MemTotal: -1 kB",
        "MemTotal: 0 kB",
        "MemTotal: ² kB",
        "MemTotal: ١٢ kB",
        "MemTotal: 12 MB",
        "MemTotal: 99999999999999999999999999 kB",
        "MemTotal: 9223372036854775807 kB",
        "MemTotal: " + "9" * 5000 + " kB",
        "MemTotal: 1 2 3",
        "memtotal: 12 kB",
    ],
)
def test_garbage_is_one_typed_error(text: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_meminfo(text)
    assert caught.value.reason == "HostFactInvalid"
    assert "MemTotal" in caught.value.message


def test_other_garbage_is_no_data() -> None:
    memory = parse_meminfo(
        "MemTotal: 1024 kB\nMemFree: many kB\nShmem\n\x00\nMemAvailable: 1 kB\nMemAvailable: 2 kB"
    )
    assert (memory.free_bytes, memory.shmem_bytes, memory.available_bytes) == (None, None, 1024)


def test_missing_file_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        read_meminfo(HostRoot(tmp_path))
    assert caught.value.message.startswith(f"{tmp_path}/proc/meminfo: ")


@pytest.mark.host
def test_this_machine() -> None:
    memory = read_meminfo(HostRoot())
    assert memory.total_bytes > memory.available_bytes > 0  # type: ignore[operator]
