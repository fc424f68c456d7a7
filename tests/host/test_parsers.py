"""The readers of host text, one table each."""

from __future__ import annotations

from pathlib import Path

import pytest

from kata_node_agent.host.cpuinfo import parse_cpuinfo
from kata_node_agent.host.facts import parse_cpu_list
from kata_node_agent.host.kata import containerd_handlers, crio_handlers, read_kata
from kata_node_agent.host.kernel import parse_builtin, read_modules, read_release
from kata_node_agent.host.msr import IA32_FEATURE_CONTROL, VM_CR, MsrReading, read_msrs
from kata_node_agent.host.osrelease import parse_os_release
from kata_node_agent.host.platform import parse_control_program, read_platform
from kata_node_agent.host.root import HostRoot
from kata_node_agent.host.shm import parse_mount_size

TREES = Path(__file__).parents[1] / "trees"


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID="rhcos"\nVARIANT_ID=coreos', "rhcos"),
        ("ID=rhcos", "rhcos"),
        ('ID="rhel"\nVARIANT_ID=coreos', "rhcos"),
        ("ID=rhel\nVARIANT_ID='coreos'", "rhcos"),
        ("ID=rhel", "rhel"),
        ("ID=rhel\nVARIANT_ID=server", "rhel"),
        ("ID=centos\nVARIANT_ID=coreos", "scos"),
        ("ID=scos", "scos"),
        ("ID=fedora\nVARIANT_ID=coreos", "fcos"),
        ("ID=fedora", "other"),
        ("ID=debian\nPRETTY_NAME=rhcos", "other"),
    ],
)
def test_families_of_systems(text: str, family: str) -> None:
    system = parse_os_release(text)
    assert system is not None
    assert system.family == family


def test_os_release_quotes_and_escapes() -> None:
    system = parse_os_release(
        '# comment\n\nID=x\nPRETTY_NAME="a \\"b\\" \\$c"\nVERSION_ID=\'1 2\'\nbroken line'
    )
    assert system is not None
    assert (system.pretty_name, system.version_id) == ('a "b" $c', "1 2")


@pytest.mark.parametrize("text", ["", "garbage", "ID=", "id=rhcos", "\0\0ID=rhcos\0", " = "])
def test_what_is_no_os_release(text: str) -> None:
    assert parse_os_release(text) is None


def test_cpuinfo_groups_cpus_alike() -> None:
    block = "processor\t: {}\nvendor_id\t: GenuineIntel\nmodel name\t: X\nflags\t\t: fpu vmx lm\n\n"
    info = parse_cpuinfo(block.format(0) + block.format(1) + block.format(2).replace(" vmx", ""))
    assert info is not None
    assert [group.cpus for group in info.groups] == [(0, 1), (2,)]
    assert (info.shape, info.has("lm"), info.has("vmx"), info.has("svm")) == ("x86", True, False, False)


@pytest.mark.parametrize(
    ("tree", "shape", "cpus"),
    [
        ("s390x-lpar", "s390x", 2),
        ("aarch64-vm", "aarch64", 2),
        ("ppc64le-powernv", "ppc64le", 2),
        ("fcos", "x86", 2),
    ],
)
def test_cpuinfo_of_other_architectures(tree: str, shape: str, cpus: int) -> None:
    info = parse_cpuinfo((TREES / tree / "proc/cpuinfo").read_text())
    assert info is not None
    assert info.shape == shape
    assert sum(len(group.cpus) for group in info.groups) == cpus


@pytest.mark.parametrize(
    "text", ["", "garbage", "processor", "processor: x", "processor: -1", "processor: ²"]
)
def test_what_is_no_cpuinfo(text: str) -> None:
    assert parse_cpuinfo(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0,)),
        ("0-3\n", (0, 1, 2, 3)),
        ("0-1,4,6-7", (0, 1, 4, 6, 7)),
        ("", ()),
        ("x", ()),
        ("3-1", ()),
        ("0-999999", ()),
        ("0,,1", ()),
        ("-1", ()),
    ],
)
def test_cpu_lists(text: str, expected: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == expected


@pytest.mark.parametrize(
    ("options", "memory", "expected"),
    [
        ("rw,size=64k", 1, 65536),
        ("rw,size=2g", 1, 2 << 30),
        ("rw,size=4096", 1, 4096),
        ("rw,size=50%", 1000, 500),
        ("rw,size=50%", None, None),
        ("rw", 1000, 500),
        ("rw", None, None),
        ("rw,size=lots", 1000, 500),
    ],
)
def test_sizes_of_dev_shm(options: str, memory: int | None, expected: int | None) -> None:
    text = f"tmpfs /run tmpfs rw,size=1k 0 0\ntmpfs /dev/shm tmpfs {options} 0 0\n"
    assert parse_mount_size(text, memory) == expected


def test_the_last_mount_at_dev_shm_is_the_one_seen() -> None:
    text = (
        "tmpfs /dev/shm tmpfs size=1k 0 0\ntmpfs /dev/shm tmpfs size=2k 0 0\nshm /dev/shm ext4 size=3k 0 0\n"
    )
    assert parse_mount_size(text, None) == 2048


def test_names_of_built_in_modules() -> None:
    assert parse_builtin("kernel/arch/x86/kvm/kvm-intel.ko\nkernel/a/b.ko.xz\n\n") == {"kvm_intel", "b"}


def test_modules_loaded_and_built_in() -> None:
    loaded = read_modules(HostRoot(TREES / "rhcos-4.12-intel"), None)
    assert loaded is not None
    assert (loaded["kvm_intel"].builtin, dict(loaded["kvm_intel"].parameters)) == (
        False,
        {"ept": "Y", "nested": "N", "unrestricted_guest": "Y"},
    )
    root = HostRoot(TREES / "modules-built-in")
    built_in = read_modules(root, read_release(root))
    assert built_in is not None
    assert built_in["kvm"].builtin
    assert built_in["kvm_intel"].builtin


@pytest.mark.parametrize("release", ["../../etc", "a/b", "", "x" * 200, ".."])
def test_a_release_that_would_leave_its_folder_is_none(tmp_path: Path, release: str) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text(release)
    assert read_release(HostRoot(tmp_path)) is None


def test_the_hypervisor_below_s390x() -> None:
    assert parse_control_program("VM00 Control Program: z/VM    7.2.0   \n") == "z/VM 7.2.0"
    assert parse_control_program("LPAR Number: 7\n") == ""


def test_tags_that_name_a_machine_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    for name in ("chassis_asset_tag", "product_serial", "product_uuid", "board_asset_tag"):
        (tmp_path / "sys/class/dmi/id" / name).write_text("SECRET-4711\n")
    assert "4711" not in repr(read_platform(HostRoot(tmp_path)))
    assert read_platform(HostRoot(TREES / "azure-vm")).cloud_tag == "Microsoft Azure"


@pytest.mark.parametrize(
    ("register", "value", "off"),
    [
        (IA32_FEATURE_CONTROL, 0x0, False),
        (IA32_FEATURE_CONTROL, 0x1, True),
        (IA32_FEATURE_CONTROL, 0x3, True),
        (IA32_FEATURE_CONTROL, 0x5, False),
        (IA32_FEATURE_CONTROL, 0x100005, False),
        (VM_CR, 0x0, False),
        (VM_CR, 0x8, False),
        (VM_CR, 0x10, False),
        (VM_CR, 0x18, True),
    ],
)
def test_lock_registers(register: int, value: int, off: bool) -> None:
    assert MsrReading(register, value, (0,)).locked_off is off


def test_a_file_in_the_place_of_an_msr_device_is_no_register(tmp_path: Path) -> None:
    (tmp_path / "dev/cpu/0").mkdir(parents=True)
    (tmp_path / "dev/cpu/0/msr").write_bytes(b"\x01" * 0x100)
    assert read_msrs(HostRoot(tmp_path), "GenuineIntel", [0]) == ()


def test_kata_by_crio_and_by_containerd() -> None:
    crio = read_kata(HostRoot(TREES / "rhcos-4.12-intel"))
    assert crio is not None
    assert [(handler.name, handler.runtime) for handler in crio.handlers] == [("kata", "crio")]
    containerd = read_kata(HostRoot(TREES / "containerd-kata"))
    assert containerd is not None
    assert [handler.name for handler in containerd.handlers] == ["kata-qemu"]
    assert containerd.handlers[0].config_path.endswith("/configuration.toml")


def test_a_broken_runtime_configuration_is_named() -> None:
    kata = read_kata(HostRoot(TREES / "kata-without-handler"))
    assert kata is not None
    assert kata.unreadable == ("/etc/containerd/config.toml",)


def test_a_tree_without_folders_tells_nothing_of_kata(tmp_path: Path) -> None:
    assert read_kata(HostRoot(tmp_path)) is None


@pytest.mark.parametrize("document", [{}, {"crio": 1}, {"crio": {"runtime": {"runtimes": {"kata": 7}}}}])
def test_runtime_tables_of_another_shape(document: dict[str, object]) -> None:
    assert list(crio_handlers(document)) == []
    assert list(containerd_handlers({"plugins": document})) == []
