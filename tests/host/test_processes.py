import os
from pathlib import Path

from kata_node_agent.host.processes import find_pids
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
