"""What cannot be looked into for want of rights, and what is outside of our PID namespace, is said and never taken for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.host.process_files import ProcessFiles
from kata_node_agent.publish.nfd.in_use import count_sandboxes
from kata_node_agent.sandboxes.blind import closed_error
from tests.sandboxes.support import ID, POD_GROUP, Tree, qemu, region, shared, shim

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.sandboxes.watcher import Watcher

CONTAINER = "mnt:[4026532999]"
OTHER = "pid:[4026532201]"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Processes that the kernel would not let us look into: no file of a recorded tree is closed to root."""
    pids: set[int] = set()
    namespace, memory = ProcessFiles.namespace, ProcessFiles.memory

    def no_namespace(self: ProcessFiles, pid: Any, kind: str) -> str | None:
        return None if pid in pids else namespace(self, pid, kind)

    def no_memory(self: ProcessFiles, pid: int, *arguments: Any) -> Any:
        return None if pid in pids else memory(self, pid, *arguments)

    monkeypatch.setattr(ProcessFiles, "namespace", no_namespace)
    monkeypatch.setattr(ProcessFiles, "memory", no_memory)
    monkeypatch.setattr(ProcessFiles, "forbids", lambda _, pid: pid in pids)
    return pids


def vm(tree: Tree, pid: int = 501, **says: Any) -> None:
    tree.process(pid, qemu(ID, "512M", *shared("512M")), **says)
    tree.memory(pid, region(4096, 512, "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)", inode=17, rss=1024))


def reasons(watcher: Watcher) -> list[str]:
    return [error.reason for error in watcher.blind]


def test_a_vm_of_root_that_may_not_be_looked_into_is_said_and_not_called_a_fraud(
    tree: Tree, forbidden: set[int]
) -> None:
    vm(tree)
    forbidden |= {1, 501}
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    assert not watcher.sees_all
    assert "may not look into it" in watcher.unbelieved[0].why
    (error,) = watcher.blind
    assert error.reason == "SandboxesUnreadable"
    assert error.message.startswith("cannot look into 1 process that claims to belong to Kata VMs")
    assert "pid 501" in error.message
    assert count_sandboxes(tree.root) is None
    # The right comes, and with it the VM.
    forbidden.clear()
    assert [found.pid for found in watcher.sweep()] == [501]
    assert (watcher.sees_all, watcher.blind, watcher.unbelieved) == (True, (), ())


@pytest.mark.parametrize(
    "says",
    [{"user": 1000}, {"inside": "7", "mounts": CONTAINER}, {"mounts": CONTAINER, "cgroup": POD_GROUP}],
    ids=["another user", "a container", "a container that sees the node's processes"],
)
def test_a_strangers_claim_that_may_not_be_looked_into_hides_no_vm(
    tree: Tree, forbidden: set[int], says: dict[str, Any]
) -> None:
    vm(tree, **says)
    forbidden.add(501)
    watcher = tree.watcher()
    assert watcher.sweep() == ()
    assert watcher.sees_all
    assert watcher.blind == ()


def test_a_vm_of_another_user_that_is_believed_counts_among_what_may_not_be_looked_into(
    tree: Tree, forbidden: set[int]
) -> None:
    tree.process(500, shim(), started=90)
    vm(tree, user=998, parent=500)
    forbidden.add(501)
    watcher = tree.watcher()
    (found,) = watcher.sweep()
    assert found.cost is None
    assert not watcher.sees_all


def test_one_that_has_ended_meanwhile_is_no_want_of_rights(tree: Tree) -> None:
    vm(tree)
    (tree.folder / "proc/501/ns/mnt").unlink()
    watcher = tree.watcher()
    watcher.sweep()
    assert watcher.sees_all


def test_many_are_named_in_part_and_the_remedy_is_what_is_missing() -> None:
    error = closed_error(range(1, 8), as_root=False)
    assert "7 processes that claim" in error.message
    assert error.message.endswith("pid 1, 2, 3, 4, 5 and 2 more")
    assert "as root" in error.hint
    assert "CAP_SYS_PTRACE" in closed_error([1], as_root=True).hint


def test_below_the_nodes_pid_namespace_it_is_said_that_vms_outside_are_not_seen(tree: Tree) -> None:
    (tree.folder / "proc/1/ns/pid").symlink_to(OTHER)
    vm(tree)
    watcher = tree.watcher()
    assert [found.pid for found in watcher.sweep()] == [501], "what is in it is seen"
    assert reasons(watcher) == ["ForeignPidNamespace"]
    assert watcher.sees_all, "nothing that is seen is closed"
    # A node may be a container: its kubelet comes after us.
    tree.process(9, ["/usr/bin/kubelet"])
    tree.write("proc/9/comm", "kubelet\n")
    watcher.sweep()
    assert watcher.blind == ()


def test_the_nodes_own_processes_are_no_matter_to_speak_of(tree: Tree) -> None:
    (tree.folder / "proc/1/ns/pid").symlink_to("pid:[4026531836]")
    watcher = tree.watcher()
    watcher.sweep()
    assert watcher.blind == ()
