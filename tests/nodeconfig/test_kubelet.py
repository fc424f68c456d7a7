import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.errors import AgentError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.kubelet import KubeletSettings, parse_kubelet_settings, read_kubelet_settings

GIB = 2**30
YAML = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
systemReserved: {memory: 3Gi, cpu: 500m}
kubeReserved:
  memory: 1Gi
evictionHard:
  memory.available: 5%
"""


def put(tree: Path, path: str, content: str) -> HostRoot:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return HostRoot(tree)


@pytest.mark.parametrize("place", ["etc/kubernetes/kubelet.conf", "var/lib/kubelet/config.yaml"])
def test_reads_the_usual_places(tmp_path: Path, place: str) -> None:
    settings = read_kubelet_settings(put(tmp_path, place, YAML))
    assert settings == KubeletSettings(3 * GIB, GIB, "5%", f"/{place}")


def test_json_is_read_too() -> None:
    document = {"kind": "KubeletConfiguration", "systemReserved": {"memory": "1Gi"}}
    assert parse_kubelet_settings(json.dumps(document).encode(), "x").system_reserved_bytes == GIB


def test_no_file_gives_kubelets_defaults(tmp_path: Path) -> None:
    assert read_kubelet_settings(HostRoot(tmp_path)) == KubeletSettings()


def test_a_named_file_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    assert "No such file" in read_kubelet_settings(HostRoot(tmp_path), Path("/etc/none")).problem


def test_an_eviction_map_without_memory_has_no_threshold() -> None:
    content = b"kind: KubeletConfiguration\nevictionHard: {nodefs.available: 10%}\n"
    assert parse_kubelet_settings(content, "x").eviction_hard_memory == ""
    merged = content + b"mergeDefaultEvictionSettings: true\n"
    assert parse_kubelet_settings(merged, "x").eviction_hard_memory == "100Mi"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "kind: Pod",
        "- 1",
        "kind: KubeletConfiguration\nsystemReserved: 3",
        "kind: KubeletConfiguration\nsystemReserved: {memory: lots}",
        "kind: KubeletConfiguration\nevictionHard: {memory.available: 300%}",
        "a: &a [*a]",
        "\x00\x01",
        "{" * 10_000,
        "[" * 100_000,
        "{a: " * 200_000,
        "kind: KubeletConfiguration\nsystemReserved: {memory: 0x" + "f" * 5000 + "}",
        '{"kind": "KubeletConfiguration", "systemReserved": {"memory": ' + "9" * 5000 + "}}",
        "kind: KubeletConfiguration\nsystemReserved: {memory: !!int ''}",
        "kind: KubeletConfiguration\nsystemReserved: [!!timestamp zz, !!bool zz]",
        "!!python/object/apply:os.system ['true']",
    ],
)
def test_garbage_falls_back_to_defaults_and_says_so(tmp_path: Path, content: str) -> None:
    settings = read_kubelet_settings(put(tmp_path, "etc/kubernetes/kubelet.conf", content))
    assert settings.problem
    assert "\n" not in settings.problem
    assert (settings.system_reserved_bytes, settings.eviction_hard_memory) == (0, "100Mi")


@given(
    st.one_of(
        st.binary(max_size=300), st.text(alphabet="ab:{}[]&*!'\" \n-?|>%0", max_size=80).map(str.encode)
    )
)
def test_any_bytes_are_settings_or_a_typed_error(content: bytes) -> None:
    with contextlib.suppress(AgentError):
        parse_kubelet_settings(content, "x")


def test_kubeadms_credentials_in_the_first_place_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "etc/kubernetes/kubelet.conf", "apiVersion: v1\nkind: Config\nclusters: []\n")
    assert read_kubelet_settings(HostRoot(tmp_path)) == KubeletSettings()
    settings = read_kubelet_settings(put(tmp_path, "var/lib/kubelet/config.yaml", YAML))
    assert settings == KubeletSettings(3 * GIB, GIB, "5%", "/var/lib/kubelet/config.yaml")


def test_a_problem_names_the_file(tmp_path: Path) -> None:
    problem = read_kubelet_settings(put(tmp_path, "etc/kubernetes/kubelet.conf", "kind: Pod")).problem
    assert str(tmp_path / "etc/kubernetes/kubelet.conf") in problem
