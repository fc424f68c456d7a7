import json
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.host.root import HostRoot
from kata_node_agent.report.bundle import Bundle, read_bundle

MIB = 1 << 20
CONTAINERD = "run/containerd/io.containerd.runtime.v2.task/k8s.io/abc/config.json"
CRIO = "run/containers/storage/overlay-containers/abc/userdata/config.json"
KATA = {"io.katacontainers.config.hypervisor.default_memory": "4096"}


def write(tmp_path: Path, place: str, document: Any) -> HostRoot:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return HostRoot(tmp_path)


def test_containerd_says_the_limits_without_overhead(tmp_path: Path) -> None:
    annotations = {
        "io.kubernetes.cri.sandbox-memory": str(6144 * MIB),
        "io.kubernetes.cri.sandbox-cpu-quota": "150000",
        "io.kubernetes.cri.sandbox-cpu-period": "100000",
        **KATA,
    }
    root = write(tmp_path, CONTAINERD, {"annotations": annotations})
    assert read_bundle(root, "abc") == Bundle(6144 * MIB, 1500, None, None, KATA)


@pytest.mark.parametrize(
    ("resources", "overhead"),
    [
        ("io.kubernetes.cri-o.PodLinuxResources", "io.kubernetes.cri-o.PodLinuxOverhead"),
        ("pod-linux-resources.crio.io", "pod-linux-overhead.crio.io"),
    ],
)
def test_crio_says_both(tmp_path: Path, resources: str, overhead: str) -> None:
    annotations = {
        resources: json.dumps({"cpu_period": 100000, "cpu_shares": 2}),
        overhead: json.dumps({"cpu_period": 100000, "cpu_quota": 25000, "memory_limit_in_bytes": 350 * MIB}),
        **KATA,
    }
    root = write(tmp_path, CRIO, {"annotations": annotations})
    assert read_bundle(root, "abc") == Bundle(0, 0, 350 * MIB, 250, KATA)


def test_a_pod_cannot_say_with_containerd_what_crio_says(tmp_path: Path) -> None:
    forged = {"io.kubernetes.cri-o.PodLinuxOverhead": '{"memory_limit_in_bytes": 1}'}
    assert read_bundle(write(tmp_path, CONTAINERD, {"annotations": forged}), "abc") == Bundle()


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "[" * 100_000,
        {"annotations": []},
        {"annotations": {"io.kubernetes.cri.sandbox-memory": "much"}},
        {"annotations": {"io.kubernetes.cri.sandbox-memory": [1]}},
        {"annotations": {"io.kubernetes.cri.sandbox-memory": "9" * 30}},
        {"annotations": {"io.katacontainers.x": 7}},
    ],
)
def test_what_is_not_understood_is_not_known(tmp_path: Path, document: Any) -> None:
    assert read_bundle(write(tmp_path, CONTAINERD, document), "abc") == Bundle()


def test_an_id_is_no_path(tmp_path: Path) -> None:
    root = write(tmp_path, CONTAINERD, {"annotations": KATA})
    assert read_bundle(root, "../k8s.io/abc") == Bundle()
    assert read_bundle(root, "none") == Bundle()
