"""How file, drop-ins and flags become one, with what cannot be used left out."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.config.schema import KubeletConfig
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig import merge
from kata_node_agent.nodeconfig.kubelet import KubeletSettings, read_kubelet_settings
from kata_node_agent.nodeconfig.memory import read_budget, with_ours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.nodeconfig.document import Value

GIB = 2**30
FILE = "/etc/kubernetes/kubelet.conf"
FOLDER = "/etc/dropins"


class Node:
    """A tree with a kubelet that reads FILE and FOLDER."""

    def __init__(
        self, tree: Path, *flags: str, file: str = "systemReserved: {cpu: 500m, memory: 1Gi}"
    ) -> None:
        self.tree, self.root = tree, HostRoot(tree)
        self.run(*flags)
        self.put(FILE, file)
        self.put("/proc/meminfo", f"MemTotal: {32 * 2**20} kB\n", "")
        (tree / FOLDER[1:]).mkdir(parents=True)

    def run(self, *flags: str) -> None:
        arguments = ["kubelet", f"--config={FILE}", f"--config-dir={FOLDER}", *flags]
        self.put("/proc/9/comm", "kubelet\n", "")
        self.put("/proc/9/status", "Uid:\t0\t0\t0\t0\nNSpid:\t9\n", "")
        self.put("/proc/9/cmdline", "\0".join([*arguments, ""]), "")

    def put(self, path: str, content: str, head: str = "kind: KubeletConfiguration\n") -> None:
        file = self.tree / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(head + content)

    def read(self) -> KubeletSettings:
        return read_kubelet_settings(self.root)


def texts(settings: KubeletSettings, prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(prefix + "."): str(setting.value)
        for name, setting in settings.values.items()
        if name.startswith(prefix + ".")
    }


def test_drop_ins_are_merged_key_by_key_in_name_order(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put(f"{FOLDER}/20-b.conf", "systemReserved: {memory: 3Gi}\nenforceNodeAllocatable: [none]\n")
    node.put(
        f"{FOLDER}/10-a.conf", "systemReserved: {memory: 2Gi, pid: '10'}\nenforceNodeAllocatable: [pods, x]\n"
    )
    node.put(f"{FOLDER}/15/z.conf", "systemReserved: {pid: '20'}\n")
    node.put(f"{FOLDER}/.conf", "maxPods: 7\n")
    node.put(f"{FOLDER}/30-c.yaml", "systemReserved: {memory: 9Gi}\n")
    settings = node.read()
    assert texts(settings, "systemReserved") == {"cpu": "500m", "memory": "3Gi", "pid": "20"}
    assert settings.values["systemReserved.cpu"].origin == FILE
    assert settings.values["systemReserved.memory"].origin == f"{FOLDER}/20-b.conf"
    assert settings.values["systemReserved.pid"].origin == f"{FOLDER}/15/z.conf"
    # A list is replaced as a whole.
    assert settings.values["enforceNodeAllocatable"].value == ("none",)
    assert settings.values["maxPods"].value == 7
    assert not settings.problem


def test_an_eviction_map_in_a_drop_in_is_laid_over_the_default_one(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put(f"{FOLDER}/10.conf", "evictionHard: {memory.available: 1Gi}\n")
    assert texts(node.read(), "evictionHard") == merge.DEFAULT_EVICTION_HARD | {"memory.available": "1Gi"}


def test_a_null_takes_back_what_earlier_drop_ins_said_and_not_what_the_file_said(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put(
        f"{FOLDER}/10.conf",
        "systemReserved: {memory: 2Gi, pid: '10'}\nkubeReserved: {memory: 4Gi}\nmaxPods: 9\n",
    )
    node.put(f"{FOLDER}/20.conf", "systemReserved: {memory: null}\nkubeReserved: null\nmaxPods: null\n")
    settings = node.read()
    assert texts(settings, "systemReserved") == {"cpu": "500m", "memory": "1Gi", "pid": "10"}
    assert texts(settings, "kubeReserved") == {}
    assert settings.values["maxPods"].value == 110


def test_a_flag_replaces_the_whole_map(tmp_path: Path) -> None:
    node = Node(
        tmp_path,
        "--system-reserved",
        "memory=5Gi",
        "--system-reserved=pid=7",
        "--eviction-hard=memory.available<1%",
    )
    node.put(f"{FOLDER}/10.conf", "systemReserved: {memory: 2Gi}\n")
    settings = node.read()
    assert texts(settings, "systemReserved") == {"memory": "5Gi", "pid": "7"}
    assert texts(settings, "evictionHard") == {"memory.available": "1%"}
    assert settings.values["systemReserved.pid"].origin == "flag --system-reserved of kubelet (pid 9)"


def test_default_thresholds_are_merged_where_that_is_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path, file="evictionHard: {memory.available: 1Gi}\nmergeDefaultEvictionSettings: true\n")
    settings = node.read()
    assert texts(settings, "evictionHard") == merge.DEFAULT_EVICTION_HARD | {"memory.available": "1Gi"}
    assert "mergeDefaultEvictionSettings" in settings.values["evictionHard.nodefs.available"].origin


def test_reserved_cpus_overwrite_the_cpu_of_both_reservations(tmp_path: Path) -> None:
    node = Node(tmp_path, "--reserved-cpus=0-2,8", "--kube-reserved=cpu=1,memory=1Gi")
    settings = node.read()
    assert texts(settings, "systemReserved") == {"cpu": "4", "memory": "1Gi"}
    assert texts(settings, "kubeReserved") == {"memory": "1Gi"}
    (complaint,) = settings.complaints
    assert complaint.reason == "KubeletOverrides"
    assert f"systemReserved.cpu ({FILE}), kubeReserved.cpu (flag" in complaint.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("systemReserved: 3", "systemReserved is not a map"),
        ("systemReserved: {memory: lots}", "not a quantity"),
        ("maxPods: 1\nmaxPods: 2", "strict decoding error: key already set in map: maxPods"),
        ("a: &a [*a]", ""),
        ("#" * (1 << 20), "larger than"),
    ],
)
def test_a_drop_in_that_cannot_be_used_is_left_out_and_named(
    tmp_path: Path, content: str, message: str
) -> None:
    node = Node(tmp_path)
    node.put(f"{FOLDER}/10.conf", content)
    node.put(f"{FOLDER}/20.conf", "systemReserved: {memory: 2Gi}")
    settings = node.read()
    assert settings.text("systemReserved.memory") == "2Gi"
    assert f"{FOLDER}/10.conf: " in settings.problem
    assert settings.problem.count("10.conf") == 1
    assert message in settings.problem


def test_a_folder_that_is_missing_and_a_link_that_leads_nowhere_are_said(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (tmp_path / FOLDER[1:] / "10.conf").symlink_to("nowhere")
    assert "10.conf: No such file" in node.read().problem
    node.run("--config-dir=/none")
    assert "/none: No such file" in node.read().problem


def test_what_cannot_be_read_as_a_file_is_said_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    folder = tmp_path / FOLDER[1:]
    os.mkfifo(folder / "10-fifo.conf")
    (folder / "20-loop.conf").symlink_to("20-loop.conf")
    node.put(f"{FOLDER}/30-secret.conf", "systemReserved: {memory: 9Gi}\n")
    node.put(f"{FOLDER}/40-good.conf", "systemReserved: {memory: 2Gi}\n")
    (folder / "50-folder.conf").mkdir()
    node.put(f"{FOLDER}/50-folder.conf/inner.conf", "maxPods: 7\n")
    opened = os.open

    def refuse(path: str, *arguments: Any, **options: Any) -> int:
        if "30-secret" in str(path):
            raise PermissionError(errno.EACCES, "no")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    settings = node.read()
    for what in ("10-fifo.conf: not a KubeletConfiguration", "20-loop.conf: ", "30-secret.conf: "):
        assert what in settings.problem
    assert "EACCES" in settings.problem
    assert "40-good" not in settings.problem
    assert (settings.text("systemReserved.memory"), settings.text("maxPods")) == ("2Gi", "7")


def test_a_kubelet_that_comes_back_with_other_flags_counts_with_those(tmp_path: Path) -> None:
    node = Node(tmp_path, "--system-reserved=memory=2Gi")
    before, known = read_budget(node.root, KubeletConfig())
    shutil.rmtree(tmp_path / "proc/9")
    between, known = read_budget(node.root, KubeletConfig(), known)
    node.run("--system-reserved=memory=5Gi")
    after, known = read_budget(node.root, KubeletConfig(), known)
    reserved = [budget.system_reserved_bytes // GIB for budget in (before, between, after)]
    assert reserved == [2, 2, 5]
    assert known.values["systemReserved.memory"].origin == "flag --system-reserved of kubelet (pid 9)"
    # A flag that cannot be used raises nothing: what was known stays, and is said.
    node.run("--system-reserved=memory=few")
    torn, settings = read_budget(node.root, KubeletConfig(), known)
    assert torn == after
    assert "flag --system-reserved" in settings.problem


def test_what_is_said_is_printable_and_short(tmp_path: Path) -> None:
    node = Node(tmp_path, "--system-reserved=a\nb\x1b=1," + "x" * 5000 + "=1")
    bad = os.fsdecode(os.fsencode(tmp_path / FOLDER[1:]) + b"/\xff\n.conf")
    Path(bad).write_text("kind: Pod")
    node.put(f"{FOLDER}/10.conf", "", '{"kind": "KubeletConfiguration", "cgroupRoot": "\\ud800"}')
    settings = read_budget(node.root, KubeletConfig())[1]
    said = [
        settings.problem,
        settings.text("cgroupRoot"),
        *(complaint.message for complaint in settings.complaints),
    ]
    assert settings.problem
    assert len(said) > 2
    for line in said:
        assert line.isprintable()
        assert len(line.encode()) < 1000


def test_thousands_of_faults_are_ten(tmp_path: Path) -> None:
    node = Node(tmp_path, "--eviction-hard=" + ",".join(f"a{number}<1" for number in range(2000)))
    assert len(read_budget(node.root, KubeletConfig())[1].complaints) == 10


def test_a_folder_below_a_file_and_names_that_are_too_long_are_said(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for folder in (f"{FILE}/x", "/" + "x" * 5000):
        node.run(f"--config-dir={folder}")
        assert node.read().problem
    node.put("/proc/9/cmdline", "kubelet\0--config=/" + "x" * 5000 + "\0", "")
    assert "File name too long" in node.read().problem or node.read().problem.endswith("…")


def test_endless_folders_end(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for number in range(300):
        node.put(f"{FOLDER}/{number}.conf", "maxPods: 9\n")
    assert "more than 200" in node.read().problem


def test_a_kubelet_without_config_reads_no_file(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put("/proc/9/cmdline", "kubelet\0--max-pods=9\0", "")
    settings = node.read()
    assert (settings.origin, settings.text("systemReserved.memory")) == (merge.DEFAULT_ORIGIN, "")
    assert settings.values["maxPods"].value == 9


def test_the_file_that_we_are_told_to_read_wins_over_kubelets_own(tmp_path: Path) -> None:
    node = Node(tmp_path, "--max-pods=9")
    node.put("/other", "systemReserved: {memory: 6Gi}\n")
    settings = read_kubelet_settings(node.root, Path("/other"))
    assert settings.text("systemReserved.memory") == "6Gi"
    assert settings.values["maxPods"].value == 9


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--system-reserved=memory", "flag --system-reserved: malformed pair, expect string=string"),
        (
            "--eviction-hard=memory.available=1Gi",
            "flag --eviction-hard: malformed pair, expect string<string",
        ),
        ("--kube-reserved=memory=much", "flag --kube-reserved: not a quantity"),
        ("--max-pods=x", "flag --max-pods: not a whole number"),
    ],
)
def test_a_flag_that_cannot_be_used_is_left_out_and_named(tmp_path: Path, flag: str, message: str) -> None:
    settings = Node(tmp_path, flag).read()
    assert f"kubelet (pid 9): {message}" in settings.problem
    assert texts(settings, "systemReserved") == {"cpu": "500m", "memory": "1Gi"}


amounts = st.dictionaries(
    st.sampled_from(["cpu", "memory", "pid"]), st.sampled_from(["1", "2", "3"]), max_size=3
)
patches = st.dictionaries(
    st.sampled_from(["cpu", "memory", "pid"]), st.sampled_from(["4", "5", None]), max_size=3
)


@given(amounts, st.lists(st.one_of(st.none(), patches), max_size=4))
def test_drop_ins_merge_as_json_merge_patch_says(base: dict[str, str | None], drop_ins: list[Value]) -> None:
    """The same by the definition: patch an empty document, then lay the result over the file."""
    document: dict[str, str] = {}
    for patch in drop_ins:
        if not isinstance(patch, dict):
            document = {}
            continue
        document = {key: value for key, value in document.items() if key not in patch}
        document |= {key: value for key, value in patch.items() if value is not None}
    named: list[tuple[Mapping[str, Value], str]] = [
        ({"systemReserved": patch}, str(number)) for number, patch in enumerate(drop_ins)
    ]
    settings = merge.with_drop_ins(merge.with_file({}, {"systemReserved": base}, "file"), named)
    assert {name.partition(".")[2]: setting.value for name, setting in settings.items()} == base | document


def test_our_own_configuration_wins_over_all(tmp_path: Path) -> None:
    node = Node(tmp_path, "--system-reserved=memory=5Gi")
    ours = KubeletConfig(system_reserved_memory=6 * GIB, kube_reserved_memory=GIB, eviction_hard_memory="1Gi")
    budget, settings = read_budget(node.root, ours)
    assert budget.allocatable_bytes == 24 * GIB
    assert settings.text("systemReserved.memory") == "5Gi"
    effective = with_ours(settings, ours).values["systemReserved.memory"]
    assert (effective.value, effective.origin) == ("6Gi", "our configuration, kubelet.system_reserved_memory")


def test_what_was_known_stays_while_a_drop_in_cannot_be_used(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.put(f"{FOLDER}/10.conf", "systemReserved: {memory: 8Gi}\n")
    before, known = read_budget(node.root, KubeletConfig())
    node.put(f"{FOLDER}/10.conf", "systemReserved: {mem", "")
    during, settings = read_budget(node.root, KubeletConfig(), known)
    assert during == before
    assert f"{FOLDER}/10.conf" in settings.problem


def test_a_reservation_above_capacity_leaves_nothing_and_is_said(tmp_path: Path) -> None:
    budget, settings = read_budget(Node(tmp_path, "--system-reserved=memory=40Gi").root, KubeletConfig())
    assert budget.allocatable_bytes == 0
    assert "Expected capacity >= reservation." in settings.complaints[0].message
