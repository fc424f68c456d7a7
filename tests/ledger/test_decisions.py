"""What is admitted, refused, extended, and what each costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.capacity.free import NodeMemory, OtherPod
from kata_node_agent.config.schema import Mode
from kata_node_agent.ledger.book import Origin
from kata_node_agent.ledger.decide import Block
from tests.ledger.support import GIB, MIB, ONE, OVERHEAD, World, claim

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, allocatable_bytes=5 * GIB)


def origin(world: World, sandbox: str) -> Origin:
    return world.account.book.admissions[sandbox].origin


def test_an_admission_takes_its_forecast_and_the_overhead(world: World) -> None:
    decision = world.account.admit(claim("a"))
    assert decision.allowed
    assert decision.reason == "Fits"
    assert decision.needs_bytes == ONE.total_bytes
    assert decision.free_bytes == 5 * GIB
    assert world.free == 5 * GIB - ONE.total_bytes


def test_what_does_not_fit_is_refused_with_the_numbers_and_changes_nothing(world: World) -> None:
    world.account.admit(claim("a"))
    decision = world.account.admit(claim("b", 4 * GIB))
    assert not decision.allowed
    assert decision.reason == "NotEnoughMemory"
    assert decision.needs_bytes == 4 * GIB + OVERHEAD
    assert decision.free_bytes == 5 * GIB - ONE.total_bytes
    assert decision.limited_by == "allocatable_memory"
    assert decision.committed_bytes == ONE.total_bytes
    assert "default/b needs 4.1Gi" in decision.message
    assert "2.9Gi free of 5Gi allocatable memory" in decision.message
    assert decision.remedy
    assert list(world.account.book.admissions) == ["a"]


def test_a_repeated_claim_is_answered_alike_and_counts_once(world: World) -> None:
    world.account.admit(claim("a"))
    free = world.free
    assert world.account.admit(claim("a")).reason == "AlreadyAdmitted"
    assert world.account.admit(claim("a", GIB)).reason == "AlreadyAdmitted"
    assert world.free == free


def test_an_extension_is_of_the_whole_vm_and_needs_room_for_what_is_more(world: World) -> None:
    world.account.admit(claim("a"))
    grown = world.account.admit(claim("a", 4 * GIB))
    assert grown.allowed
    assert grown.needs_bytes == 2 * GIB
    assert world.free == 5 * GIB - 4 * GIB - OVERHEAD
    refused = world.account.admit(claim("a", 6 * GIB))
    assert refused.reason == "NotEnoughMemory"
    assert "more than it has" in refused.message
    assert world.account.book.admissions["a"].vm_bytes == 4 * GIB


def test_what_was_admitted_stays_admitted_when_others_take_the_room(world: World) -> None:
    world.account.admit(claim("a"))
    world.others["x"] = OtherPod(8 * GIB, 0)
    world.look()
    assert world.free < 0
    assert world.account.admit(claim("a")).allowed
    assert not world.account.admit(claim("b", 0, overhead_bytes=0)).allowed


def test_a_vm_that_is_larger_than_admitted_counts_as_it_is(world: World) -> None:
    world.account.admit(claim("a", GIB))
    world.run("a", 3 * GIB, overhead_bytes=200 * MIB)
    world.look()
    assert world.free == 5 * GIB - 3 * GIB - 200 * MIB
    # It has this memory already: to say yes costs nothing.
    assert world.account.admit(claim("a", 3 * GIB)).allowed


def test_a_vm_that_booted_before_anybody_asked_is_judged_as_if_it_had_not(world: World) -> None:
    world.account.admit(claim("a"))
    world.run("a")
    world.run("b", 4 * GIB)
    world.look()
    assert origin(world, "b") is Origin.ADOPTED
    assert world.free < 0
    assert not world.account.admit(claim("b", 4 * GIB)).allowed
    world.allocatable_bytes = 7 * GIB
    world.now += 100
    world.look()
    decision = world.account.admit(claim("b", 4 * GIB))
    assert decision.allowed
    assert decision.needs_bytes == 0
    assert origin(world, "b") is Origin.ADMITTED


def test_the_pod_itself_is_no_other_pod(world: World) -> None:
    world.others["uid-a"] = OtherPod(request_bytes=4 * GIB, held_bytes=0)
    world.look()
    assert world.free == GIB
    assert world.account.other_pods_bytes == 4 * GIB
    assert world.account.admit(claim("a", 4 * GIB)).allowed
    assert world.free == GIB - OVERHEAD
    assert world.account.other_pods_bytes == 0
    world.look()
    assert world.free == GIB - OVERHEAD


def test_warn_lets_through_and_says_what_enforce_would_have_done(world: World) -> None:
    world.mode = Mode.WARN
    decision = world.account.admit(claim("a", 9 * GIB))
    assert decision.allowed
    assert decision.would_refuse
    assert decision.reason == "NotEnoughMemory"
    assert world.account.book.admissions["a"].origin is Origin.LET_THROUGH
    (note,) = world.account.history(10)
    assert (note["what"], note["sandbox"], note["would_refuse"]) == ("admit", "a", True)
    world.mode = Mode.ENFORCE
    assert not world.account.admit(claim("b", MIB)).allowed


def test_off_refuses_nothing_but_counts(world: World) -> None:
    world.mode = Mode.OFF
    world.block = Block("Draining", "it is drained", "wait")
    decision = world.account.admit(claim("a", 9 * GIB))
    assert (decision.allowed, decision.would_refuse, decision.reason) == (True, False, "ModeOff")
    assert world.free < 0


def test_a_closed_node_takes_no_new_vm_but_those_that_run_may_grow(world: World) -> None:
    world.account.admit(claim("a"))
    world.block = Block("Draining", "the node is being drained", "end it with `kata-node-agent drain off`")
    refused = world.account.admit(claim("b"))
    assert (refused.allowed, refused.reason) == (False, "Draining")
    assert refused.remedy
    assert world.account.admit(claim("a", 3 * GIB)).allowed


def test_a_pod_whose_device_was_given_before_the_drain_gets_its_vm(world: World) -> None:
    assert world.account.allocate([3]).allowed
    world.account.hold_devices({3: "default/a"})
    world.block = Block("Draining", "the node is being drained", "wait")
    assert world.account.admit(claim("a")).allowed
    assert not world.account.allocate([4]).allowed


def test_a_device_and_the_vm_of_its_pod_count_once(world: World) -> None:
    world.account.allocate([0, 1])
    assert world.free == 5 * GIB - 2 * ONE.total_bytes
    world.account.hold_devices({0: "default/a", 1: "default/b"})
    world.account.admit(claim("a", 2 * GIB + 512 * MIB))
    assert world.free == 5 * GIB - 2 * ONE.total_bytes - 512 * MIB
    assert world.account.book.without_device == 0
    world.account.admit(claim("other", 0))
    assert world.account.book.without_device == 1


def test_devices_beyond_the_room_are_not_allocated_and_not_held(world: World) -> None:
    assert world.account.allocate([0, 1]).allowed
    decision = world.account.allocate([2])
    assert not decision.allowed
    assert decision.reason == "NotEnoughMemory"
    assert "no room for another Kata VM on this node: " in decision.message
    assert sorted(world.account.book.devices) == [0, 1]
    assert world.account.allocate([1]).allowed


def test_every_allocation_is_in_the_history_with_its_numbers(world: World) -> None:
    world.account.allocate([0, 3])
    # Given again to the pod that has it: nothing is decided.
    world.account.allocate([3])
    world.account.allocate([4])
    first, second = world.account.history(9)
    assert (first["what"], first["sandbox"], first["reason"]) == (
        "allocate",
        "kata-000000, kata-000003",
        "Fits",
    )
    assert first["needs_bytes"] == 2 * ONE.total_bytes
    assert first["message"] == (
        "4.1Gi until the VM of its pod is known; 5Gi free of 5Gi allocatable memory without other pods"
    )
    assert (second["sandbox"], second["allowed"]) == ("kata-000004", False)


def test_what_was_allocated_in_warn_mode_is_noted_as_a_would_be_refusal(world: World) -> None:
    world.mode = Mode.WARN
    decision = world.account.allocate([0, 1, 2])
    assert decision.allowed
    assert decision.would_refuse
    assert [note["what"] for note in world.account.history(9)] == ["allocate"]


@pytest.mark.parametrize(
    "bad",
    [
        claim(""),
        claim("a\n"),
        claim("a" * 600),
        claim("a", -1),
        claim("a", 1 << 60),
        claim("a", pod="x" * 600),
        claim("a", overhead_bytes=-1),
        claim("a", limits_bytes=1 << 62),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused_and_leaves_nothing(world: World, bad: object) -> None:
    decision = world.account.admit(bad)  # type: ignore[arg-type]
    assert (decision.allowed, decision.reason) == (False, "InvalidClaim")
    assert not world.account.book.admissions
    assert not world.account.history(10)


def test_a_node_whose_memory_is_not_known_takes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.account.take_memory(
        NodeMemory(None),
        share=1.0,
        margin_bytes=0,
        rise_seconds=0,
    )
    assert world.account.admit(claim("a")).reason == "MemoryUnknown"


def test_a_sandbox_that_costs_this_node_nothing_but_its_shim_takes_only_that(world: World) -> None:
    assert world.account.admit(claim("remote", 0, overhead_bytes=30 * MIB)).needs_bytes == 30 * MIB


def test_pods_that_all_want_more_than_their_devices_stand_for_do_not_wait_for_each_other(
    world: World,
) -> None:
    """Devices fill the node, and no VM runs: whoever comes first gets what is there."""
    assert world.account.allocate([0, 1]).allowed
    world.account.hold_devices({0: "default/a", 1: "default/b"})
    assert not world.account.admit(claim("other", 2 * GIB)).allowed
    assert world.account.admit(claim("a", 4 * GIB)).allowed
    refused = world.account.admit(claim("b", 4 * GIB))
    assert (refused.allowed, refused.free_bytes) == (False, GIB - OVERHEAD)
    assert not world.account.allocate([2]).allowed
    # Nothing is over: what stands for a VM has touched nothing.
    assert world.account.book.committed_to_sandboxes["allocatable_memory"] == 4 * GIB + OVERHEAD
    world.account.release("a")
    world.look()
    assert world.account.admit(claim("b", 4 * GIB)).allowed


def test_a_pod_that_waits_for_its_vm_counts_by_its_device_and_not_among_the_others_too(world: World) -> None:
    world.others["uid-a"] = OtherPod(2 * GIB, 0, "default/a")
    world.account.allocate([0])
    world.look()
    # Kubelet has not said whose the device is: there is no telling.
    assert world.free == 5 * GIB - ONE.total_bytes - 2 * GIB
    world.account.hold_devices({0: "default/a"})
    world.look()
    assert world.free == 5 * GIB - ONE.total_bytes
    # Nor is it low for a while for what was counted by mistake.
    assert world.account.admit(claim("a")).allowed
    world.look()
    assert world.free == 5 * GIB - ONE.total_bytes
    world.account.hold_devices({})
    world.account.release("a")
    world.look()
    world.look()
    assert world.free == 5 * GIB - 2 * GIB


def test_what_a_pod_claims_beyond_its_device_is_not_promised_to_another(world: World) -> None:
    """It may never have a VM: a pod that names no handler, and holds a device by mistake."""
    world.others["uid-a"] = OtherPod(3 * GIB, GIB, "default/a")
    world.account.allocate([0])
    world.account.hold_devices({0: "default/a"})
    world.look()
    assert world.free == 2 * GIB
    assert world.account.other_pods_bytes == 3 * GIB - ONE.total_bytes
    assert not world.account.admit(claim("other", 2 * GIB)).allowed
    # Where it has one, that takes the place of both, at once.
    assert world.account.admit(claim("a", 4 * GIB)).allowed
    assert world.free == GIB - OVERHEAD
    world.look()
    assert world.free == GIB - OVERHEAD


def test_what_pods_with_devices_claim_beyond_them_is_in_no_way_of_each_other(world: World) -> None:
    for index, name in enumerate("ab"):
        world.others[f"uid-{name}"] = OtherPod(int(2.5 * GIB), 0, f"default/{name}")
        world.account.allocate([index])
    world.account.hold_devices({0: "default/a", 1: "default/b"})
    world.look()
    assert world.free == 0
    assert world.account.admit(claim("a", int(4.5 * GIB))).allowed
    refused = world.account.admit(claim("b", int(4.5 * GIB)))
    assert (refused.allowed, refused.free_bytes) == (False, GIB // 2 - OVERHEAD)
