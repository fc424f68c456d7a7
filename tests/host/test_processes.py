import os
from pathlib import Path

import pytest

from kata_node_agent.host.processes import find_pids, shows_node
from kata_node_agent.host.root import HostRoot


def test_processes_are_found_by_name_in_order_of_their_ids(tmp_path: Path) -> None:
    for pid, name in ((100, "kubelet"), (20, "kubelet"), (3, "kubelet2"), (4, "kube")):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "comm").write_text(name + "\n")
    # Gone meanwhile, a thing of another kind, a FIFO, and names that are no ids.
    (tmp_path / "proc/5").mkdir()
    (tmp_path / "proc/6").write_text("")
    (tmp_path / "proc/7").mkdir()
    os.mkfifo(tmp_path / "proc/7/comm")
    (tmp_path / "proc/8/comm").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/٣").mkdir()
    assert find_pids(HostRoot(tmp_path), "kubelet") == [20, 100]
    # One search for several; the first name comes first.
    assert find_pids(HostRoot(tmp_path), "kubelet", "kubelet2") == [20, 100, 3]


def test_no_proc_has_no_processes(tmp_path: Path) -> None:
    assert find_pids(HostRoot(tmp_path), "kubelet") == []
    (tmp_path / "proc").write_text("")
    assert find_pids(HostRoot(tmp_path), "kubelet") == []


INITIAL, OTHER = "pid:[4026531836]", "pid:[4026532201]"


@pytest.mark.parametrize(
    ("first", "ours", "second", "expected"),
    [
        (INITIAL, None, "", True),
        (INITIAL, OTHER, "kthreadd", True),
        (OTHER, OTHER, "", False),
        (OTHER, None, "kthreadd", False),
        # Without the right to look into the first process.
        (None, INITIAL, "", True),
        (None, OTHER, "kthreadd", True),
        (None, OTHER, "bash", False),
        (None, None, "bash", None),
    ],
    ids=[
        *(
            "the node",
            "the node's /proc in a container",
            "a container",
            "a container that fakes a kernel thread",
        ),
        *("another user", "another user of a container", "another user below", "a recorded tree"),
    ],
)
def test_whose_processes_are_seen(
    tmp_path: Path, first: str | None, ours: str | None, second: str, expected: bool | None
) -> None:
    for process, namespace in (("1", first), ("self", ours)):
        (tmp_path / f"proc/{process}/ns").mkdir(parents=True)
        if namespace is not None:
            (tmp_path / f"proc/{process}/ns/pid").symlink_to(namespace)
    (tmp_path / "proc/2").mkdir()
    (tmp_path / "proc/2/comm").write_text(f"{second}\n")
    assert shows_node(HostRoot(tmp_path)) is expected
    # A node may be a container itself: where its kubelet is, its pods are.
    (tmp_path / "proc/9").mkdir()
    (tmp_path / "proc/9/comm").write_text("kubelet\n")
    assert shows_node(HostRoot(tmp_path)) is True
