"""RHCOS' reservation from an environment file, before kubelet's first start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.kubelet import KubeletSettings, read_kubelet_settings

if TYPE_CHECKING:
    from pathlib import Path

UNIT = "kubelet --system-reserved=cpu=${SYSTEM_RESERVED_CPU},memory=${SYSTEM_RESERVED_MEMORY}"
STORAGE = ",ephemeral-storage=${SYSTEM_RESERVED_ES}"
COMPUTED = "SYSTEM_RESERVED_MEMORY=5Gi\nSYSTEM_RESERVED_CPU=0.5\nSYSTEM_RESERVED_ES=1Gi\n"
TOLD = "SYSTEM_RESERVED_MEMORY=1Gi\nSYSTEM_RESERVED_CPU=500m\nSYSTEM_RESERVED_ES=1Gi\n"
SIZING, ENABLED = "etc/node-sizing.env", "etc/node-sizing-enabled.env"


def read(tree: Path, files: dict[str, str], unit: str = UNIT + STORAGE) -> KubeletSettings:
    settings = "kind: KubeletConfiguration\nsystemReserved: {memory: 9Gi, pid: '7'}\n"
    unit_path = "etc/systemd/system/kubelet.service"
    for path, content in {**files, "etc/kubernetes/kubelet.conf": settings, unit_path: unit}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    return read_kubelet_settings(HostRoot(tree))


def reserved(settings: KubeletSettings) -> dict[str, str]:
    return {
        name.partition(".")[2]: f"{setting.value} {setting.origin}"
        for name, setting in settings.values.items()
        if name.startswith("systemReserved.")
    }


def test_it_replaces_the_files_map_as_the_flag_will(tmp_path: Path) -> None:
    settings = read(tmp_path, {SIZING: COMPUTED, ENABLED: "NODE_SIZING_ENABLED=true\n" + TOLD})
    assert reserved(settings) == {
        "memory": "5Gi /etc/node-sizing.env",
        "cpu": "0.5 /etc/node-sizing.env",
        "ephemeral-storage": "1Gi /etc/node-sizing.env",
    }
    assert not settings.problem


def test_before_it_was_computed_what_is_told_counts_unless_it_will_be_computed(tmp_path: Path) -> None:
    told = read(tmp_path, {ENABLED: "# how\nNODE_SIZING_ENABLED=false\n" + TOLD})
    assert reserved(told)["memory"] == "1Gi /etc/node-sizing-enabled.env"
    computed = read(tmp_path, {ENABLED: "NODE_SIZING_ENABLED=true\n" + TOLD})
    assert reserved(computed)["memory"] == "9Gi /etc/kubernetes/kubelet.conf"


def test_only_what_kubelets_unit_passes_on_counts(tmp_path: Path) -> None:
    assert set(reserved(read(tmp_path, {SIZING: COMPUTED}, UNIT))) == {"memory", "cpu"}
    # From 4.23 on: a drop-in says it, and the file stays behind.
    assert set(reserved(read(tmp_path, {SIZING: COMPUTED}, "kubelet --config-dir=/x"))) == {"memory", "pid"}


def test_a_kubelet_that_runs_has_its_flags(tmp_path: Path) -> None:
    process = {
        "proc/9/comm": "kubelet\n",
        "proc/9/status": "Uid:\t0\t0\t0\t0\nNSpid:\t9\n",
        "proc/9/cmdline": "kubelet\0--config=/etc/kubernetes/kubelet.conf\0--system-reserved=memory=2Gi\0",
    }
    settings = read(tmp_path, {SIZING: COMPUTED, **process})
    assert reserved(settings) == {"memory": "2Gi flag --system-reserved of kubelet (pid 9)"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("SYSTEM_RESERVED_MEMORY=lots\n", "node sizing: not a quantity"),
        ("SYSTEM_RESERVED_MEMORY=-1Gi\n", 'resource quantity for "memory" cannot be negative'),
        ("SYSTEM_RESERVED_MEMORY=\n", ""),
        ("\x00\udcff\n", ""),
        ("#" * (1 << 17), ""),
    ],
)
def test_a_file_that_cannot_be_used_is_said_and_the_others_count(
    tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / SIZING).write_bytes(content.encode("utf-8", errors="surrogateescape"))
    settings = read(tmp_path, {})
    assert settings.text("systemReserved.memory") == "9Gi"
    assert problem in settings.problem
    assert bool(problem) == bool(settings.problem)
