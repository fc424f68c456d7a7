"""One look at recorded nodes: what kubelet is set to decides how many VMs fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kata_node_agent.capacity.free import Backing, Need, NodeMemory, Room, budgets
from kata_node_agent.capacity.usual import DEFAULT_OVERHEAD_BYTES, DEFAULT_VM_BYTES
from kata_node_agent.config.schema import Config
from kata_node_agent.daemon.node import look, plan
from kata_node_agent.errors import HostError
from kata_node_agent.ledger.book import Book

TREES = Path(__file__).parents[1] / "trees-kubelet"


def no_cpuid(cpu: int) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    raise HostError(f"CPU {cpu} is not asked", reason="CpuidUnavailable")


@pytest.mark.parametrize(("tree", "places"), [("rhcos-4.12", 14), ("rhcos-4.23", 56), ("kubeadm", 7)])
def test_flags_and_drop_ins_decide_how_many_vms_fit(tree: str, places: int) -> None:
    config = Config(host_root=TREES / tree)
    view = look(config, cpuid=no_cpuid)
    assert not view.problems
    assert view.kubelet is not None
    assert view.budget is not None
    one = Need(DEFAULT_VM_BYTES, DEFAULT_OVERHEAD_BYTES)
    room = Room(budgets(NodeMemory(view.budget.allocatable_bytes), {}, share=1.0, margin_bytes=0), {})
    assert plan(view, config, Book(one), room, one, None).total == places
    again = look(config, view.kubelet, no_cpuid)
    assert again == view


def test_what_kubelet_would_refuse_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\n")
    file = tmp_path / "etc/kubernetes/kubelet.conf"
    file.parent.mkdir(parents=True)
    file.write_text("kind: KubeletConfiguration\nsystemReserved: {memory: 9Gi}\nmaxPods: 1\nmaxPods: 2\n")
    view = look(Config(host_root=tmp_path), cpuid=no_cpuid)
    assert {problem.reason for problem in view.problems} == {"KubeletWouldRefuse", "KubeletOverrides"}
    assert all(problem.remedy for problem in view.problems)
    # They are kubelet's words on good settings: these are what is known.
    assert view.kubelet is not None


def test_vms_in_huge_pages_have_places_by_these_and_none_costs_other_memory() -> None:
    config = Config(host_root=TREES / "kubeadm")
    view = look(config, cpuid=no_cpuid)
    assert view.budget is not None
    allocatable = view.budget.allocatable_bytes
    view = replace(view, budget=replace(view.budget, hugepages_bytes=7 << 30))
    for overhead, places in ((0, 3), (60 << 20, 3), (1 << 40, 0)):
        one = Need(2 << 30, overhead, Backing.HUGE)
        node = NodeMemory(allocatable, huge_free_bytes=7 << 30)
        room = Room(budgets(node, {}, share=1.0, margin_bytes=0), {})
        assert plan(view, config, Book(one), room, one, None).total == places
