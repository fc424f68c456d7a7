from pathlib import Path

import pytest

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.kata import read_kata_settings
from kata_node_agent.nodeconfig.vm_settings import vm_settings

TREES = Path(__file__).parents[1] / "trees-kata"
MIB = 1 << 20
GIB = 1 << 30


def of_tree(tree: str, handler: str, host_bytes: int = 32 * GIB, cpus: int | None = 8) -> VmSettings:
    found = {each.handler: each for each in read_kata_settings(HostRoot(TREES / tree))}
    return vm_settings(found[handler], host_bytes, cpus, "x86_64")


def of_file(tmp_path: Path, toml: str, kind: str = "", arch: str = "x86_64") -> VmSettings:
    folder = tmp_path / "etc/crio/crio.conf.d"
    folder.mkdir(parents=True, exist_ok=True)
    path = f"/kata/{kind}/k.toml"
    (folder / "50-kata").write_text(
        f'[crio.runtime.runtimes.kata]\nruntime_type = "vm"\nruntime_config_path = "{path}"\n'
    )
    (tmp_path / f"kata/{kind}").mkdir(parents=True, exist_ok=True)
    (tmp_path / path[1:]).write_text(toml)
    return vm_settings(read_kata_settings(HostRoot(tmp_path))[0], 32 * GIB, 8, arch)


def test_openshifts_handlers() -> None:
    kata = of_tree("rhcos-crio", "kata")
    assert (kata.kind, kata.static, kata.cgroup_only, kata.memory_in) == ("go", False, True, "shm")
    assert (kata.default_memory_bytes, kata.max_bytes, kata.slots) == (2 * GIB, 32 * GIB, 10)
    assert kata.enable_annotations == ("enable_iommu", "default_memory")
    assert not of_tree("rhcos-crio", "kata-remote").runs_here


def test_the_maximum_ends_in_the_hosts_memory(tmp_path: Path) -> None:
    for written, mib in ((0, 32768), (4096, 4096), (1 << 30, 32768), (-1, 32768)):
        toml = f"[hypervisor.qemu]\ndefault_maxmemory = {written}\n"
        assert of_file(tmp_path, toml).max_bytes == mib * MIB


def test_a_file_that_leaves_something_out_has_the_programs_defaults_not_the_shipped_ones(
    tmp_path: Path,
) -> None:
    rust = of_file(tmp_path, '[runtime]\nhypervisor_name = "qemu"\n[hypervisor.qemu]\n', "runtime-rs")
    assert (rust.kind, rust.static) == ("runtime-rs", False)
    assert (rust.default_memory_bytes, rust.overhead_memory_bytes) == (128 * MIB, 0)
    (tmp_path / "kata/runtime-rs/k.toml").unlink()
    gone = vm_settings(read_kata_settings(HostRoot(tmp_path))[0], 32 * GIB, 8, "x86_64")
    assert (gone.static, gone.default_memory_bytes, gone.overhead_memory_bytes) == (True, 2 * GIB, 32 * MIB)


def test_the_go_runtime_takes_less_than_its_least_for_its_default(tmp_path: Path) -> None:
    for written, mib in ((255, 2048), (256, 256), (0, 2048)):
        toml = f"[hypervisor.qemu]\ndefault_memory = {written}\n"
        assert of_file(tmp_path, toml).default_memory_bytes == mib * MIB


@pytest.mark.parametrize(
    ("toml", "memory_in", "hotplug"),
    [
        ("[hypervisor.qemu]\n", "shm", True),
        ('[hypervisor.qemu]\nshared_fs = "virtio-9p"\n', "anonymous", True),
        ('[hypervisor.qemu]\nshared_fs = "none"\nfile_mem_backend = "/dev/shm"\n', "shm", True),
        ("[hypervisor.qemu]\nenable_hugepages = true\n", "hugepages", True),
        ("[hypervisor.qemu]\nconfidential_guest = true\n", "shm", False),
        ("[hypervisor.clh]\n", "memfd", True),
        ("[hypervisor.clh]\n[factory]\nenable_template = true\n", "memfd", False),
        ("[hypervisor.firecracker]\n", "shm", False),
    ],
)
def test_where_memory_lives_and_whether_it_grows(
    tmp_path: Path, toml: str, memory_in: str, hotplug: bool
) -> None:
    found = of_file(tmp_path, toml)
    assert (found.memory_in, found.hotplug) == (memory_in, hotplug)


def test_cpus_below_zero_are_all_of_the_node_and_blocks_are_the_architectures(tmp_path: Path) -> None:
    toml = "[hypervisor.qemu]\ndefault_vcpus = -1\n"
    found = of_file(tmp_path, toml)
    assert (found.default_vcpu_millis, found.max_vcpus) == (8000, 8)
    assert found.block_bytes == 128 * MIB
    assert of_file(tmp_path, toml, arch="s390x").block_bytes == 256 * MIB
