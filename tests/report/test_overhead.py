import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.advice.pod_overhead import advise_overhead
from kata_node_agent.config.schema import Config
from kata_node_agent.report.overhead import OverheadSampler, handler_uses, history_name, host_ticks
from kata_node_agent.report.sandboxes import Overview, SandboxObserver
from kata_node_agent.series import Observed
from tests.report.kata_node import GIB, KataNode
from tests.sandboxes.support import MIB

TICKS = os.sysconf("SC_CLK_TCK")


def use_cpu(node: KataNode, path: str, ticks: int) -> None:
    """A process' or thread's stat with so much user and as much system time; its name is there to confuse."""
    whole = f"{path.rpartition('/')[2]} (q) R 1 (2) S 1 1 1 0 -1 0 0 0 0 0 {ticks} {ticks} 0 0 20 0 3 0 101 4096 10\n"
    node.write(f"proc/{path}/stat", whole)


def test_the_largest_sandbox_of_a_handler_is_what_is_kept(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(1)
    node.sandbox(2, limit_mib=512, plugged_mib=640)
    node.memory(2000, "")
    figures = OverheadSampler(node.root).sample(SandboxObserver(node.root, Config()).look(), 100.0)
    assert figures == {
        "kata": {
            "host_overhead": 58 * MIB,
            "beyond_limits": 2 * GIB + 128 * MIB,
            # There is no time before the first sample.
            "host_millicores": None,
        }
    }


def in_huge_pages(overview: Overview) -> Overview:
    views = overview.views
    return replace(
        overview,
        views=tuple(replace(v, sandbox=replace(v.sandbox, memory_location="hugepages")) for v in views),
    )


def test_what_a_vm_has_in_huge_pages_is_nothing_that_podfixed_covers(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(1, limit_mib=256, plugged_mib=4352)
    overview = in_huge_pages(SandboxObserver(node.root, Config()).look())
    figures = OverheadSampler(node.root).sample(overview, 100.0)["kata"]
    assert (figures["beyond_limits"], figures["host_overhead"]) == (0, 58 * MIB)
    # Ten days of history from before the handler was set to huge pages.
    before = {"kata": (Observed("beyond_limits", 100, 0.0, 864000.0, GIB, GIB, GIB, GIB),)}
    (use,) = handler_uses(overview, before, 60 * MIB, openshift=False)
    assert advise_overhead(use).need_bytes == 80 * MIB


def test_a_handler_of_huge_pages_is_known_by_its_settings_before_it_has_a_pod(tmp_path: Path) -> None:
    node = KataNode(tmp_path, "enable_hugepages = true\n")
    (use,) = handler_uses(SandboxObserver(node.root, Config()).look(), {}, 60 * MIB, openshift=False)
    assert (use.beyond_bytes, use.beyond_setting) == (0, "enable_hugepages")


def test_one_vm_in_ordinary_memory_is_enough_for_podfixed_to_cover_it(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(1)
    node.sandbox(2)
    overview = SandboxObserver(node.root, Config()).look()
    mixed = replace(overview, views=(in_huge_pages(overview).views[0], overview.views[1]))
    (use,) = handler_uses(mixed, {}, 60 * MIB, openshift=False)
    assert (use.beyond_bytes, use.beyond_setting) == (2 * GIB, "default_memory")


def test_cpu_is_that_of_the_hosts_processes_without_the_vcpus(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(1, vcpus=2)
    overview = SandboxObserver(node.root, Config()).look()
    sampler = OverheadSampler(node.root)
    (sandbox,) = (view.sandbox for view in overview.views)

    def after(vmm: int, vcpu: int, beside: int) -> None:
        use_cpu(node, "1001", vmm)
        for thread in (1010, 1011):
            use_cpu(node, f"1001/task/{thread}", vcpu)
        use_cpu(node, "1000", beside)
        use_cpu(node, "1002", beside)

    after(vmm=50 * TICKS, vcpu=20 * TICKS, beside=0)
    assert host_ticks(node.root, sandbox) == 2 * (50 - 40) * TICKS
    sampler.sample(overview, 1000.0)
    # In a minute: the VMM 3 s beside its vCPUs, shim and virtiofsd 1.5 s each; user and system time both.
    after(vmm=83 * TICKS, vcpu=35 * TICKS, beside=3 * TICKS // 2)
    figures = sampler.sample(overview, 1060.0)
    assert figures["kata"]["host_millicores"] == 2 * (3 + 3) * 1000 // 60


def test_a_process_that_is_gone_leaves_cpu_unknown(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(1)
    overview = SandboxObserver(node.root, Config()).look()
    (sandbox,) = (view.sandbox for view in overview.views)
    (tmp_path / "proc/1002/stat").unlink()
    assert host_ticks(node.root, sandbox) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "A", "a..b", "-a", "a" * 64, "kata\n"])
def test_a_name_that_no_handler_has_is_no_file(name: str) -> None:
    assert history_name(name) is None


@given(st.text(max_size=70))
def test_a_history_never_leaves_its_folder(name: str) -> None:
    found = history_name(name)
    assert found is None or ("/" not in found and found == f"overhead-{name}.series")
