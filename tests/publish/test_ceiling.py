"""The ceiling never expires, and is not lowered below what runs without a person who insists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.host.root import HostRoot
from kata_node_agent.publish.nfd.ceiling import (
    RESOURCE,
    CeilingError,
    ceiling_text,
    check_change,
    danger,
    node_ceiling,
    read_ceiling,
)
from kata_node_agent.publish.nfd.in_use import count_sandboxes
from tests.publish.nfd_model import read_file
from tests.sandboxes.support import Tree

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = st.integers(0, 1_000_000)


@given(NUMBERS)
def test_the_file_is_a_feature_without_expiry_and_without_label(number: int) -> None:
    text = ceiling_text(number)
    local = read_file(text, now=4_000_000_000)
    assert local.features == {RESOURCE: str(number)}
    assert local.labels == {}
    assert "expiry-time" not in text
    assert read_ceiling(text) == number


@pytest.mark.parametrize(
    "text", [None, "", "nonsense", f"{RESOURCE}=many\n", f"{RESOURCE}=-1\n", f"# {RESOURCE}=3\n"]
)
def test_what_is_no_ceiling_is_none(text: str | None) -> None:
    assert read_ceiling(text) is None


def test_the_ceiling_of_a_node_is_how_many_whole_vms_its_allocatable_memory_holds() -> None:
    gib = 1 << 30
    assert node_ceiling(62 * gib, 2 * gib + 60 * (1 << 20)) == 30
    assert node_ceiling(gib, 2 * gib) == 0


@pytest.mark.parametrize(
    ("present", "wanted", "in_use"),
    [
        (None, 10, None),  # the first one: nothing can rely on it yet
        (None, None, None),
        (5, 5, None),
        (5, 8, None),  # raising harms nobody, whatever runs
        (5, 8, 20),
        (10, 5, 5),
        (10, None, 0),
    ],
)
def test_a_change_that_harms_nobody_is_allowed(
    present: int | None, wanted: int | None, in_use: int | None
) -> None:
    check_change(present, wanted, in_use)


@pytest.mark.parametrize(
    ("present", "wanted", "in_use", "reason", "words"),
    [
        (10, 3, 9, "CeilingBelowUse", "10 → 3: 9 Kata sandboxes run here"),
        (10, None, 1, "CeilingBelowUse", "10 → no ceiling: 1 Kata sandbox runs here"),
        (None, 3, 9, "CeilingBelowUse", "up to 6 of them"),
        (10, 9, None, "CeilingUseUnknown", "not known"),
        (10, None, None, "CeilingUseUnknown", "not known"),
    ],
)
def test_a_change_that_may_kill_is_refused_and_says_what(
    present: int | None, wanted: int | None, in_use: int | None, reason: str, words: str
) -> None:
    with pytest.raises(CeilingError) as caught:
        check_change(present, wanted, in_use)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "--force" in caught.value.hint


@given(st.none() | NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS)
def test_a_ceiling_is_never_lowered_below_what_runs(
    present: int | None, wanted: int | None, in_use: int | None
) -> None:
    falls = present is not None and (wanted is None or wanted < present)
    if falls and (in_use is None or in_use > (wanted or 0)):
        assert danger(present, wanted, in_use)


def test_sandboxes_are_counted_by_their_shims_and_their_vms(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(700, ["/usr/bin/kubelet", "--config=/etc/kubernetes/kubelet.conf"])
    tree.process(800, ["/usr/bin/containerd-shim-kata-v2", "-namespace", "k8s.io", "-id", "a"])
    tree.process(801, ["/usr/bin/containerd-shim-kata-v2", "-id", "a", "start"])
    tree.process(802, ["/opt/kata/bin/containerd-shim-kata-qemu-v2", "-id", "b"])
    tree.process(803, ["/usr/bin/qemu-system-x86_64", "-name", "sandbox-b"], parent=802)
    tree.process(804, ["/usr/bin/containerd-shim-runc-v2", "-id", "c"])
    tree.process(805, ["/usr/bin/containerd-shim-kata-v2", "-id", "d"], inside="7")
    tree.process(806, ["/usr/bin/qemu-kvm", "-name", "sandbox-e"])
    assert count_sandboxes(tree.root) == 3


def test_a_node_with_kubelet_and_no_shim_runs_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(700, ["/usr/bin/kubelet"])
    tree.write("proc/700/comm", "kubelet\n")
    assert count_sandboxes(tree.root) == 0


def test_in_a_container_that_sees_only_itself_the_number_is_not_known(tmp_path: Path) -> None:
    Tree(tmp_path).process(1, ["kata-node-agent", "run"])
    assert count_sandboxes(HostRoot(tmp_path)) is None
    assert count_sandboxes(HostRoot(tmp_path / "nothing")) is None
