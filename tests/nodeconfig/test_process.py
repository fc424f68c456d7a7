from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.kubelet import read_kubelet_settings
from kata_node_agent.nodeconfig.process import KubeletProcess, find_kubelet

if TYPE_CHECKING:
    from pathlib import Path


def process(
    tree: Path, pid: int, *arguments: str, comm: str = "kubelet", uid: int = 0, namespaces: str = ""
) -> Path:
    folder = tree / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comm").write_text(comm + "\n")
    (folder / "cmdline").write_bytes(b"".join(argument.encode() + b"\0" for argument in arguments))
    (folder / "status").write_text(
        f"Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{namespaces or pid}\n"
    )
    return folder


def test_a_kubelet_is_found_by_its_name_and_its_program(tmp_path: Path) -> None:
    process(tmp_path, 1, "/sbin/init", comm="init")
    process(tmp_path, 20, "/usr/bin/kubelet", "--v=2", "--node-ip=")
    assert find_kubelet(HostRoot(tmp_path)) == KubeletProcess(20, ("--v=2", "--node-ip="))


@pytest.mark.parametrize(
    "case",
    [
        {"uid": 1000640000},  # a pod's own process
        {"namespaces": "30\t7"},  # root in a container
        {"comm": "kubelet-wrapper"},
    ],
)
def test_what_is_not_the_nodes_kubelet_is_passed_over(tmp_path: Path, case: dict[str, str]) -> None:
    process(tmp_path, 30, "kubelet", "--system-reserved=memory=0", **case)  # type: ignore[arg-type]
    assert find_kubelet(HostRoot(tmp_path)) is None
    process(tmp_path, 31, "kubelet")
    assert find_kubelet(HostRoot(tmp_path)) == KubeletProcess(31, ())


def test_another_program_of_that_name_a_zombie_and_one_that_vanishes_are_passed_over(tmp_path: Path) -> None:
    process(tmp_path, 5, "/bin/sh", "kubelet")
    process(tmp_path, 6)
    (process(tmp_path, 7, "kubelet") / "cmdline").unlink()
    (process(tmp_path, 8, "kubelet") / "status").unlink()
    (tmp_path / "proc/9").mkdir()
    (process(tmp_path, 10, "kubelet") / "cmdline").write_bytes(b"kubelet\0" + b"x" * (1 << 20))
    (process(tmp_path, 11, "kubelet") / "status").write_bytes(b"\xff\n\n:\nUid\nNSpid:")
    assert find_kubelet(HostRoot(tmp_path)) is None


def test_one_that_still_runs_is_found_without_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = HostRoot(tmp_path)
    process(tmp_path, 20, "kubelet", "--v=2")
    known = find_kubelet(root)
    process(tmp_path, 20, "kubelet", "--v=3")
    monkeypatch.setattr("kata_node_agent.nodeconfig.process.find_pids", lambda *_: pytest.fail("searched"))
    assert find_kubelet(root, known) == KubeletProcess(20, ("--v=3",))


def test_a_kubelet_that_is_restarted_keeps_its_flags_until_it_is_back_with_others(tmp_path: Path) -> None:
    root = HostRoot(tmp_path)
    folder = process(tmp_path, 20, "kubelet", "--system-reserved=memory=2Gi")
    before = read_kubelet_settings(root)
    assert before.text("systemReserved.memory") == "2Gi"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    between = read_kubelet_settings(root, known=before.process)
    assert (between.values, between.problem) == (before.values, "")
    process(tmp_path, 21, "kubelet", "--system-reserved=memory=3Gi")
    after = read_kubelet_settings(root, known=between.process)
    assert after.text("systemReserved.memory") == "3Gi"
    assert after.values["systemReserved.memory"].origin == "flag --system-reserved of kubelet (pid 21)"


def test_no_proc_is_no_kubelet(tmp_path: Path) -> None:
    assert find_kubelet(HostRoot(tmp_path)) is None
