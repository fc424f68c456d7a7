"""What becomes of admissions as time goes by: confirmed, released, adopted, expired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.capacity.free import OtherPod
from kata_node_agent.ledger.book import Origin
from tests.ledger.support import GIB, GRACE, ONE, World, claim

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def wait(world: World, seconds: float = GRACE) -> None:
    world.now += seconds
    world.look()


def test_an_admission_that_nobody_confirms_expires_after_the_grace(world: World) -> None:
    world.account.admit(claim("a"))
    wait(world, GRACE - 1)
    assert world.free == 20 * GIB - ONE.total_bytes
    wait(world, 2)
    assert world.free == 20 * GIB
    assert not world.account.book.admissions
    assert [note["reason"] for note in world.account.history(9)] == ["Fits", "Expired"]


def test_one_whose_container_exists_never_expires_but_commits_nothing_without_a_vm(world: World) -> None:
    world.account.admit(claim("a"))
    world.account.confirm("a")
    wait(world, GRACE * 1000)
    assert "a" in world.account.book.admissions
    assert world.free == 20 * GIB
    # Its VM shows up after all.
    world.run("a")
    world.look()
    assert world.free == 20 * GIB - ONE.total_bytes


def test_memory_is_free_when_the_vmm_has_exited_not_when_the_sandbox_is_stopped(world: World) -> None:
    world.account.admit(claim("a"))
    world.run("a")
    world.look()
    world.account.release("a")
    wait(world, GRACE * 10)
    assert world.free == 20 * GIB - ONE.total_bytes
    del world.running["a"]
    world.look()
    assert world.free == 20 * GIB
    assert not world.account.book.admissions


def test_a_release_before_the_first_look_holds_until_a_later_look_finds_no_vm(world: World) -> None:
    """Undo comes before the VM is gone, and the look under way may have begun before the VM did."""
    world.account.admit(claim("a"))
    began = world.now
    world.now += 1
    world.account.release("a")
    world.account.observe({}, began)
    assert world.free == 20 * GIB - ONE.total_bytes
    world.look()
    assert world.free == 20 * GIB


def test_a_look_that_began_before_the_admission_says_nothing_of_it(world: World) -> None:
    began = world.now
    world.now += GRACE * 2
    world.account.admit(claim("a"))
    world.account.observe({}, began)
    assert "a" in world.account.book.admissions


def test_a_vm_that_is_gone_commits_nothing_at_once_and_its_record_ends_after_a_while(world: World) -> None:
    world.account.admit(claim("a"))
    world.account.confirm("a")
    world.run("a")
    world.look()
    del world.running["a"]
    world.look()
    assert world.free == 20 * GIB
    assert world.account.book.admissions["a"].lapsed
    wait(world)
    assert not world.account.book.admissions


def test_a_vm_that_nobody_asked_for_is_adopted_and_blocks_others(world: World) -> None:
    world.run("a", 19 * GIB, pod_uid="u", pod="default/a")
    world.look()
    admission = world.account.book.admissions["a"]
    assert (admission.origin, admission.pod_uid, admission.pod) == (Origin.ADOPTED, "u", "default/a")
    assert not world.account.admit(claim("b")).allowed
    assert world.account.history(9)[0]["reason"] == "Adopted"


def test_adopted_vms_count_with_what_they_are_also_when_they_shrink(world: World) -> None:
    world.run("a", 8 * GIB)
    world.look()
    world.run("a", 3 * GIB)
    world.look()
    assert world.free == 20 * GIB - 3 * GIB - ONE.overhead_bytes


@pytest.mark.parametrize("sandbox", ["nobody", ""])
def test_words_about_sandboxes_that_are_not_known_change_nothing(world: World, sandbox: str) -> None:
    world.account.confirm(sandbox)
    world.account.release(sandbox)
    assert not world.account.book.admissions
    assert not world.account.history(9)


def test_a_confirmation_that_comes_after_the_release_does_not_take_it_back(world: World) -> None:
    orders = (("confirm", "release"), ("release", "confirm"))
    for name, order in zip("ab", orders, strict=True):
        world.account.admit(claim(name))
        for word in order:
            getattr(world.account, word)(name)
    world.look()
    assert not world.account.book.admissions


def test_synchronizing_confirms_notes_and_releases(world: World) -> None:
    for name in ("kept", "gone", "coming"):
        world.account.admit(claim(name))
    world.account.confirm("gone")
    world.account.synchronize([claim("kept", 0), claim("stopped", 99 * GIB)])
    book = world.account.book
    assert book.admissions["kept"].confirmed
    assert book.admissions["kept"].vm_bytes == 2 * GIB
    assert book.admissions["stopped"].origin is Origin.NOTED
    assert world.free == 20 * GIB - 3 * ONE.total_bytes
    world.look()
    # One that nobody has confirmed may be about to be made.
    assert sorted(book.admissions) == ["coming", "kept", "stopped"]
    world.run("stopped", GIB)
    world.look()
    assert world.free == 20 * GIB - 2 * ONE.total_bytes - GIB - ONE.overhead_bytes


def test_synchronizing_twice_changes_nothing_more(world: World) -> None:
    claims = [claim("a"), claim("b")]
    world.account.synchronize(claims)
    before = dict(world.account.book.admissions)
    world.now += 5
    world.account.synchronize(claims)
    assert world.account.book.admissions == before


def test_drain_and_mode_outlive_the_agent(world: World) -> None:
    world.account.set("drain", "on")
    world.account.set("mode", "warn")
    world.restart()
    assert (world.account.setting("drain"), world.account.setting("mode")) == ("on", "warn")
    world.account.set("drain", "")
    world.restart()
    assert world.account.setting("drain") == ""


def test_a_pod_whose_vm_is_waited_for_in_vain_claims_as_others_do(world: World) -> None:
    """Its VM is elsewhere, or of a kind that is not seen: what kubelet gave to it is gone all the same."""
    world.others["uid-a"] = OtherPod(3 * GIB, GIB)
    world.account.admit(claim("a"))
    world.account.confirm("a")
    world.look()
    assert world.free == 20 * GIB - ONE.total_bytes
    wait(world)
    world.look()
    assert world.free == 20 * GIB - 3 * GIB
    # A sandbox that has stopped, and that the runtime names: no VM, and its pod is an other one.
    world.others["uid-b"] = OtherPod(GIB, 0)
    world.account.synchronize([claim("a"), claim("b")])
    world.look()
    assert world.free == 20 * GIB - 4 * GIB
    world.run("a", pod_uid="uid-a")
    world.look()
    assert world.free == 20 * GIB - GIB - ONE.total_bytes


def test_what_vms_become_is_kept_from_when_they_are_seen(world: World) -> None:
    world.run("a", 2 * GIB, forecast_bytes=6 * GIB)
    world.look()
    assert world.free == 20 * GIB - 6 * GIB - ONE.overhead_bytes
    # It has grown beyond: that counts.
    world.run("a", 7 * GIB, forecast_bytes=6 * GIB)
    world.look()
    assert world.free == 20 * GIB - 7 * GIB - ONE.overhead_bytes
    assert not world.account.admit(claim("b", 14 * GIB)).allowed


def test_a_larger_forecast_takes_nothing_from_what_was_admitted(world: World) -> None:
    world.account.admit(claim("a", 8 * GIB))
    world.run("a", 2 * GIB, forecast_bytes=6 * GIB)
    world.look()
    assert world.free == 20 * GIB - 8 * GIB - ONE.overhead_bytes
