from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.host import facts as facts_module
from kata_node_agent.host.facts import collect, is_live
from kata_node_agent.host.root import HostRoot

TREES = Path(__file__).parents[1] / "trees"


def must_not_be_called(_argument: object) -> Any:
    raise AssertionError("a recording does not tell of the machine we run on")


@pytest.mark.parametrize("tree", sorted(path.name for path in TREES.iterdir()))
def test_a_recorded_tree_is_not_mixed_with_this_machine(tree: str) -> None:
    root = HostRoot(TREES / tree)
    assert not is_live(root)
    facts = collect(root, probe=must_not_be_called, cpuid=must_not_be_called)
    assert facts.cpus == ()
    assert facts.msrs == ()


def test_an_empty_tree_has_no_facts_and_no_error(tmp_path: Path) -> None:
    facts = collect(HostRoot(tmp_path))
    assert facts.kvm is not None
    assert facts.kvm.node.kind == "unknown"
    assert (facts.arch, facts.os, facts.cpuinfo, facts.modules, facts.memory, facts.kata) == (None,) * 6


def test_cpus_that_we_may_not_run_on_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-1\n")
    monkeypatch.setattr(facts_module, "is_live", lambda _root: True)

    def cpuid(cpu: int) -> dict[tuple[int, int], tuple[int, int, int, int]]:
        if cpu == 1:
            raise HostError("CPUID of CPU 1: Invalid argument (EINVAL)", reason="CpuUnreachable")
        return {(0, 0): (0, 0, 0, 0)}

    facts = collect(HostRoot(tmp_path), cpuid=cpuid)
    assert [(record.cpu, record.leaves is not None, record.problem) for record in facts.cpus] == [
        (0, True, ""),
        (1, False, "CPUID of CPU 1: Invalid argument (EINVAL)"),
    ]


def test_a_link_to_the_root_is_live(tmp_path: Path) -> None:
    """As a container sees the host: /host/proc is the kernel's own, whatever the folder is called."""
    (tmp_path / "host").symlink_to("/")
    assert is_live(HostRoot(tmp_path / "host"))


@pytest.mark.host
def test_this_machine_is_live_and_unchanged_by_looking() -> None:
    before = os.sched_getaffinity(0), set(os.listdir("/proc/self/fd"))
    facts = collect(HostRoot())
    assert facts.arch == os.uname().machine
    assert facts.memory is not None
    if facts.cpuinfo is not None and facts.cpuinfo.shape == "x86":
        assert facts.cpus
        assert all(record.leaves for record in facts.cpus if record.cpu in before[0])
    assert (os.sched_getaffinity(0), set(os.listdir("/proc/self/fd"))) == before


@pytest.mark.host
def test_several_threads_may_look_at_once() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(collect(HostRoot()).cpus)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4


@pytest.mark.host
def test_nothing_of_the_machines_name_is_in_the_facts() -> None:
    from kata_node_agent.host.snapshot import write_snapshot

    text = write_snapshot(collect(HostRoot()))
    json.loads(text)
    for path in ("/etc/machine-id", "/sys/class/dmi/id/product_uuid", "/sys/class/dmi/id/product_serial"):
        secret = HostRoot().try_read_text(path)
        assert not secret or not secret.strip() or secret.strip() not in text
