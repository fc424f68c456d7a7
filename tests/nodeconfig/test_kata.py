import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.host.kata import read_default_handlers
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.kata import KataSettings, read_kata_settings

TREES = Path(__file__).parents[1] / "trees-kata"
EXPECTED: dict[str, dict[str, Any]] = json.loads((TREES / "expected.json").read_text())


def handlers(tree: Path) -> dict[str, KataSettings]:
    return {found.handler: found for found in read_kata_settings(HostRoot(tree))}


@pytest.mark.parametrize("tree", sorted(EXPECTED))
def test_recorded_trees_give_what_was_written_beside_them_by_hand(tree: str) -> None:
    found = handlers(TREES / tree)
    assert set(found) == set(EXPECTED[tree])
    for name, wanted in EXPECTED[tree].items():
        one = found[name]
        assert (one.runtime, one.kind, one.hypervisor, one.file) == (
            wanted["runtime"],
            wanted["kind"],
            wanted["hypervisor"],
            wanted["file"],
        )
        assert wanted["problem"] in one.problem if wanted["problem"] else one.problem == ""
        for key, (value, origin) in wanted["values"].items():
            assert (one.values[key].value, one.values[key].origin) == (value, origin), f"{name} {key}"


def test_a_vm_elsewhere_is_told_and_sizes_are_bytes() -> None:
    found = handlers(TREES / "rhcos-crio")
    assert (found["kata"].runs_here, found["kata-remote"].runs_here) == (True, False)
    assert found["kata"].default_memory_bytes == 2 << 30
    assert not hasattr(found["kata"].values, "overhead_memory")


def test_a_node_without_kata_has_no_handlers(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert read_kata_settings(HostRoot(tmp_path)) == ()
    assert read_kata_settings(HostRoot(tmp_path / "none")) == ()


def one_file(tmp_path: Path, content: bytes) -> KataSettings:
    crio = tmp_path / "etc/crio/crio.conf.d"
    crio.mkdir(parents=True, exist_ok=True)
    (crio / "50-kata").write_text(
        '[crio.runtime.runtimes.kata]\nruntime_type = "vm"\nruntime_config_path = "/k.toml"\n'
    )
    (tmp_path / "k.toml").write_bytes(content)
    return handlers(tmp_path)["kata"]


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"x" * (2 << 20),
        b"[hypervisor.qemu]\ndefault_memory = " + b"9" * 10_000,
        b"[hypervisor.qemu]\ndefault_memory = -2048",
        b"[hypervisor.qemu]\ndefault_memory = true",
        b"[hypervisor.qemu]\ndefault_memory = nan",
        b"[hypervisor.qemu]\ndefault_memory = [1]",
        b"\xff\xfe\x00",
        b"hypervisor = 7",
    ],
)
def test_hostile_content_leaves_the_defaults_and_is_said(tmp_path: Path, content: bytes) -> None:
    found = one_file(tmp_path, content)
    assert found.default_memory_bytes == 2 << 30
    assert (found.problem != "") == (content != b"hypervisor = 7")
    assert found.problem.isprintable()


def test_damaged_files_never_raise(tmp_path: Path) -> None:
    whole = (
        TREES / "kata-deploy/opt/kata/share/defaults/kata-containers/configuration-qemu.toml"
    ).read_bytes()
    chance = random.Random(7)
    for _ in range(int(os.environ.get("FUZZ_MUTATIONS", "5000")) // 50):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        found = one_file(tmp_path, bytes(damaged[: chance.randrange(len(damaged))]))
        assert found.number("default_memory") >= -1


def test_a_fifo_in_place_of_the_file_does_not_hang(tmp_path: Path) -> None:
    one_file(tmp_path, b"")
    (tmp_path / "k.toml").unlink()
    os.mkfifo(tmp_path / "k.toml")
    assert handlers(tmp_path)["kata"].default_memory_bytes == 2 << 30


def test_the_handler_of_pods_that_name_none_is_the_last_that_a_file_says(tmp_path: Path) -> None:
    assert read_default_handlers(HostRoot(tmp_path)) == {}
    crio, containerd = tmp_path / "etc/crio/crio.conf.d", tmp_path / "etc/containerd"
    crio.mkdir(parents=True)
    containerd.mkdir()
    (crio / "00-default.conf").write_text('[crio.runtime]\ndefault_runtime = "kata"\n')
    (crio / "10-comment.conf").write_text('# default_runtime = "crun"\n')
    (containerd / "config.toml").write_text(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd]\n  default_runtime_name = 'kata-qemu'\n"
    )
    assert read_default_handlers(HostRoot(tmp_path)) == {"crio": "kata", "containerd": "kata-qemu"}
    (crio / "20-later.conf").write_text('[crio.runtime]\ndefault_runtime="crun"\n')
    assert read_default_handlers(HostRoot(tmp_path))["crio"] == "crun"
