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


def amounts(settings: KubeletSettings) -> tuple[int, int, str]:
    return settings.system_reserved_bytes, settings.kube_reserved_bytes, settings.eviction_hard_memory


@pytest.mark.parametrize("place", ["etc/kubernetes/kubelet.conf", "var/lib/kubelet/config.yaml"])
def test_reads_the_usual_places(tmp_path: Path, place: str) -> None:
    settings = read_kubelet_settings(put(tmp_path, place, YAML))
    assert amounts(settings) == (3 * GIB, GIB, "5%")
    assert (settings.origin, settings.problem) == (f"/{place}", "")


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


def test_a_file_of_ten_megabytes_is_not_read_to_its_end(tmp_path: Path) -> None:
    put(tmp_path, "etc/kubernetes/kubelet.conf", YAML + "# \n" * 3_500_000)
    assert "larger than" in read_kubelet_settings(HostRoot(tmp_path)).problem


def test_a_bomb_of_aliases_costs_no_more_than_its_text() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    content = f"kind: KubeletConfiguration\na0: &a0 [x, x]\n{levels}systemReserved: {{memory: 1Gi}}\n"
    assert parse_kubelet_settings(content.encode(), "x").system_reserved_bytes == GIB
    with pytest.raises(AgentError, match="systemReserved is not a map"):
        parse_kubelet_settings(content.replace("{memory: 1Gi}", "*a29").encode(), "x")


@pytest.mark.parametrize(
    "content",
    [
        "kind: KubeletConfiguration\nsystemReserved: {memory: 1Gi}\nsystemReserved: {memory: 2Gi}\n",
        "kind: KubeletConfiguration\nsystemReserved: {memory: 1Gi, memory: 2Gi}\n",
        '{"kind": "KubeletConfiguration", "systemReserved": {"memory": "1Gi", "memory": "2Gi"}}',
    ],
)
def test_a_key_that_is_there_twice_is_said_and_the_last_one_counts(content: str) -> None:
    settings = parse_kubelet_settings(content.encode(), "/file")
    assert settings.system_reserved_bytes == 2 * GIB
    (complaint,) = settings.complaints
    assert complaint.message.startswith(
        "/file: using lenient decoding as strict decoding failed: key already set"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("systemReserved: [a]", "systemReserved is not a map"),
        ("systemReserved: {memory: {a: b}}", "systemReserved.memory is not an amount"),
        ("systemReserved: {memory: }", "systemReserved.memory is no amount"),
        ("systemReserved: {memory: -1Gi}", 'resource quantity for "memory" cannot be negative: -1Gi'),
        (
            "evictionHard: {memory.available: 101%}",
            "eviction percentage threshold memory.available must be <= 100%: 101%",
        ),
        (
            "evictionHard: {memory.available: -1%}",
            "eviction percentage threshold memory.available must be >= 0%: -1%",
        ),
        (
            "evictionSoft: {memory.available: a%}",
            "eviction percentage threshold memory.available is no number: a%",
        ),
        (
            "evictionHard: {memory.available: -1Gi}",
            "eviction threshold memory.available must be positive: -1Gi",
        ),
        ("enforceNodeAllocatable: pods", "enforceNodeAllocatable is not a list of texts"),
        ("maxPods: many", "maxPods is not a whole number"),
        ("maxPods: 99999999999999999999", "maxPods is not a whole number"),
        ("mergeDefaultEvictionSettings: 1", "mergeDefaultEvictionSettings is not true or false"),
        ("cgroupRoot: [a]", "cgroupRoot is not a text"),
        ("cgroupsPerQOS: yes", "cgroupsPerQOS is not true or false"),
        ("podPidsLimit: {a: b}", "podPidsLimit is not a whole number"),
        ("memoryManagerPolicy: {a: b}", "memoryManagerPolicy is not a text"),
        ("reservedMemory: {a: b}", "reservedMemory is not a list"),
        ("reservedMemory: [a]", "reservedMemory is not a list of numaNode and limits"),
        ("reservedMemory: [{numaNode: 0}]", "reservedMemory is not a list of numaNode and limits"),
        ("reservedMemory: [{limits: {memory: 1Gi}}]", "reservedMemory is not a list of numaNode and limits"),
        ("reservedMemory: [{numaNode: a, limits: {}}]", "reservedMemory.numaNode is not a whole number"),
        ("reservedMemory: [{numaNode: 0, limits: [a]}]", "reservedMemory.limits is not a map"),
        # What leads to itself.
        ("systemReserved: &a {memory: *a}", "neither YAML nor JSON: found unconstructable recursive node"),
        ("enforceNodeAllocatable: &a [*a]", "neither YAML nor JSON: found unconstructable recursive node"),
        (
            "reservedMemory: &a [{numaNode: 0, limits: {memory: *a}}]",
            "neither YAML nor JSON: found unconstructable recursive node",
        ),
    ],
)
def test_a_wrong_type_or_amount_is_named(line: str, message: str) -> None:
    with pytest.raises(AgentError) as error:
        parse_kubelet_settings(f"kind: KubeletConfiguration\n{line}\n".encode(), "x")
    assert error.value.message.startswith(message)


@pytest.mark.parametrize(
    "line",
    [
        "enforceNodeAllocatable: [{}]".format("*text, " * 200_000),
        "systemReserved: {{{}}}".format("".join(f"a{number}: *text, " for number in range(60_000))),
        "reservedMemory: [{}]".format("{numaNode: 0, limits: *map}, " * 20_000),
    ],
)
def test_a_long_text_or_map_that_is_referred_to_often_is_not_multiplied(line: str) -> None:
    entries = "".join(f"b{number}: 1Gi, " for number in range(900))
    content = f"kind: KubeletConfiguration\na: &text {'x' * 1000}\nb: &map {{{entries}}}\n{line}\n"
    with pytest.raises(AgentError, match="more than 1000 entries"):
        parse_kubelet_settings(content.encode(), "x")


@pytest.mark.parametrize("empty", ["", "null", "~"])
def test_an_empty_field_is_the_default(empty: str) -> None:
    content = f"kind: KubeletConfiguration\nevictionHard: {empty}\nmaxPods: {empty}\nenforceNodeAllocatable: {empty}\n"
    assert parse_kubelet_settings(content.encode(), "x").values == KubeletSettings().values


def test_an_empty_eviction_map_is_no_threshold() -> None:
    settings = parse_kubelet_settings(b"kind: KubeletConfiguration\nevictionHard: {}\n", "x")
    assert settings.eviction_hard_memory == ""


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
    assert amounts(settings) == (3 * GIB, GIB, "5%")
    assert (settings.origin, settings.problem) == ("/var/lib/kubelet/config.yaml", "")


def test_a_problem_names_the_file(tmp_path: Path) -> None:
    problem = read_kubelet_settings(put(tmp_path, "etc/kubernetes/kubelet.conf", "kind: Pod")).problem
    assert str(tmp_path / "etc/kubernetes/kubelet.conf") in problem
