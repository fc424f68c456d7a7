"""QEMU's memory arguments as both of Kata's runtimes write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.sandboxes.qemu_line import Backend, QemuMemory, parse_qemu_memory, parse_size
from tests.sandboxes.support import MIB, qemu, shared

GIB = 1 << 30


def test_go_runtime_with_virtiofs() -> None:
    assert parse_qemu_memory(qemu("abc", "2048M,slots=10,maxmem=32768M", *shared())) == QemuMemory(
        base_bytes=2 * GIB,
        slots=10,
        max_bytes=32 * GIB,
        backends=(Backend("dimm1", "file", 2 * GIB, "/dev/shm"),),
    )


def test_a_confidential_guest_has_neither_slots_nor_maxmem() -> None:
    words = qemu("abc", "2048M", "-object", "memory-backend-memfd,id=ram1,size=2048M,share=off")
    found = parse_qemu_memory([*words, "-machine", "q35,memory-backend=ram1"])
    assert (found.base_bytes, found.slots, found.max_bytes) == (2 * GIB, None, None)
    assert found.backends == (Backend("ram1", "memfd", 2 * GIB),)
    assert not found.disagreement


def test_runtime_rs_names_its_memory_otherwise() -> None:
    words = ["qemu-system-x86_64", "-m", "size=512M,slots=10,maxmem=8G"]
    words += ["-object", "memory-backend-file,id=entire-guest-memory,size=512M,mem-path=/dev/shm,share=on"]
    words += ["-numa", "node,memdev=entire-guest-memory", "-qmp", "x"]
    found = parse_qemu_memory(words)
    assert (found.base_bytes, found.max_bytes) == (512 * MIB, 8 * GIB)
    assert not found.disagreement


def test_huge_pages_show_in_the_path_or_in_the_option() -> None:
    words = ["-object", "memory-backend-file,id=a,size=1G,mem-path=/dev/hugepages,share=on,prealloc=on"]
    words += ["-object", "memory-backend-memfd,id=b,size=1G,hugetlb=on", "-object", "rng-random,id=rng0", "-"]
    assert [backend.huge for backend in parse_qemu_memory(words).backends] == [True, True]


def test_an_nvdimm_is_no_memory_of_the_start() -> None:
    image = "memory-backend-file,id=mem0,mem-path=/usr/share/kata-containers/kata.img,size=128M,readonly=on"
    words = qemu("abc", "2048M", *shared(), "-device", "nvdimm,id=nv0,memdev=mem0", "-object", image)
    assert not parse_qemu_memory(words).disagreement


def test_memory_that_does_not_add_up_is_said() -> None:
    found = parse_qemu_memory(qemu("abc", "4096M", *shared("2048M")))
    assert found.disagreement == "-m is 4294967296 bytes, its memory backends are 2147483648"


def test_a_virtio_mem_device_is_known_by_its_backend() -> None:
    words = [
        "-object",
        "memory-backend-ram,id=vm0,size=30G",
        "-device",
        "virtio-mem-pci,id=d,memdev=vm0",
        "-x",
    ]
    assert parse_qemu_memory(words).virtio_mem == {"vm0"}


def test_a_doubled_comma_is_part_of_the_value() -> None:
    found = parse_qemu_memory(["-object", "memory-backend-file,id=a,mem-path=/dev/shm/a,,b,size=1M", "-x"])
    assert found.backends == (Backend("a", "file", MIB, "/dev/shm/a,b"),)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2048M", 2 * GIB),
        ("2g", 2 * GIB),
        ("512", 512),
        ("1k", 1024),
        ("4.0G", 4 * GIB),
        ("", None),
        ("M", None),
        ("-1", None),
        ("1.5G", None),
        ("0x10", None),
        ("9999999E", None),
        ("١", None),
        ("9" * 5000, None),
    ],
)
def test_sizes_are_read_as_qemu_reads_them(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_a_bare_number_behind_m_is_mebibytes_and_the_last_one_counts() -> None:
    assert parse_qemu_memory(["-m", "128", "-m", "256", "x"]).base_bytes == 256 * MIB


@given(
    st.lists(
        st.one_of(st.sampled_from(["-m", "-object", "-numa", "-device", "-machine"]), st.text(max_size=60))
    )
)
def test_any_words_are_read_without_an_error(words: list[str]) -> None:
    found = parse_qemu_memory(words)
    assert found.base_bytes is None or 0 <= found.base_bytes < 1 << 63


@given(st.text(max_size=80))
def test_any_backend_is_read_without_an_error(text: str) -> None:
    assert len(parse_qemu_memory(["-object", f"memory-backend-{text}", "-m", text, "x"]).backends) <= 1
