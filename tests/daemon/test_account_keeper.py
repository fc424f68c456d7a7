"""What the daemon tells the account, and what it says of it: on a recorded node with Kata pods that nobody announced."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.capacity.free import ALLOCATABLE, SHARED
from kata_node_agent.config.schema import AccountingConfig, Config, DevicePluginConfig, Mode, SandboxConfig
from kata_node_agent.daemon.account import AccountKeeper
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.memory import MemoryReader
from kata_node_agent.daemon.node import look, plan
from kata_node_agent.errors import HostError
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.series import Series
from tests.report.kata_node import GIB, KataNode
from tests.sandboxes.support import MIB, qemu, region, shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kata_node_agent.capacity.devices import DevicePlan


def no_cpuid(cpu: int) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    raise HostError(f"CPU {cpu} is not asked", reason="CpuidUnavailable")


class Kept:
    """An account keeper on a recorded node."""

    def __init__(self, folder: Path, settings: str = "", **sections: Any) -> None:
        self.node = KataNode(folder / "node", settings)
        (folder / "run").mkdir()
        self.changes = 0
        self.config = Config(
            host_root=self.node.folder, run_dir=folder / "run", state_dir=folder / "state",
            accounting=AccountingConfig(rise_seconds=0, pressure_stop=False), **sections,
        )  # fmt: skip
        self.view = look(self.config, cpuid=no_cpuid)
        watch: Any = SimpleNamespace(view=self.view)
        self.keeper = AccountKeeper(lambda: self.config, watch, History(), self._changed)
        self.keeper.open()

    def _changed(self) -> None:
        self.changes += 1

    def sweep(self) -> None:
        """One look at the VMs, as the daemon takes it."""
        found = self.node.watcher().sweep()
        self.keeper.sandboxes.sandboxes = found
        self.keeper._swept(found, time.monotonic())

    def look(self) -> None:
        """VMs, then memory."""
        if self.keeper.sandboxes.follows:
            self.sweep()
        asyncio.run(self.keeper.first_look())

    def admit(self, name: str, vm_bytes: int = 2 * GIB, *, extend: bool = False) -> Any:
        question = self.keeper.extend if extend else self.keeper.admit
        return asyncio.run(question(Claim(name, vm_bytes)))

    def vm_bytes(self, sandbox: str) -> int:
        commitment = self.keeper.account.book.commitment(sandbox)
        return commitment.need.vm_bytes if commitment is not None else 0

    @property
    def reasons(self) -> list[str]:
        return [problem.reason for problem in self.keeper.problems()]

    def plan(self) -> DevicePlan:
        account = self.keeper.account
        return plan(
            replace(self.view, verdict=replace(self.view.verdict, verdict="eligible")),
            self.config, account.book, account.room, account.cost_of_one, self.keeper.closed(),
        )  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.keeper.close()


def test_a_vm_that_nobody_announced_counts_with_what_its_pod_was_allocated_before_it_grows(
    kept: Kept,
) -> None:
    sandbox = kept.node.sandbox(limit_mib=6144, plugged_mib=0)
    kept.look()
    assert kept.keeper.account.book.vms[sandbox].vm_bytes == 2 * GIB
    assert kept.vm_bytes(sandbox) == 8 * GIB
    # It grows into what is kept for it, and no slot goes.
    before = kept.plan().free
    kept.node.sandbox(limit_mib=6144)
    kept.look()
    assert kept.vm_bytes(sandbox) == 8 * GIB
    assert kept.plan().free == before


def test_without_kubelets_record_the_runtimes_own_gives_the_limits(kept: Kept) -> None:
    sandbox = kept.node.sandbox(limit_mib=6144, plugged_mib=0)
    (kept.node.folder / "var/lib/kubelet/allocated_pods_state").unlink()
    kept.look()
    assert kept.vm_bytes(sandbox) == 8 * GIB


def test_a_record_of_kubelets_that_is_not_understood_takes_nothing_from_what_a_vm_is_promised(
    kept: Kept,
) -> None:
    """The pod was resized in place: only kubelet's record says what its VM becomes."""
    sandbox = kept.node.sandbox(limit_mib=1024)
    place = kept.node.folder / "var/lib/kubelet/allocated_pods_state"
    place.write_text(place.read_text().replace("1024Mi", "6144Mi"))
    kept.look()
    assert kept.vm_bytes(sandbox) == 8 * GIB
    place.write_text("{")
    kept.look()
    assert kept.vm_bytes(sandbox) == 8 * GIB


def test_a_new_vm_is_not_waited_for_until_the_next_look_at_memory(kept: Kept) -> None:
    kept.node.sandbox(plugged_mib=0)
    kept.sweep()
    assert kept.keeper._look_now.is_set()
    kept.look()
    kept.sweep()
    assert not kept.keeper._look_now.is_set()


def test_memory_is_read_once_at_a_time_and_not_again_for_what_is_being_read(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look may still be going on when the loop begins, or when its caller has given up."""
    kept.node.sandbox(plugged_mib=0)
    kept.sweep()
    go = threading.Event()
    inside: list[int] = []
    read = MemoryReader._read

    def slow(*args: Any) -> Any:
        inside.append(1)
        go.wait(20)
        result = read(*args)
        inside.append(-1)
        return result

    monkeypatch.setattr(MemoryReader, "_read", slow)

    async def scenario() -> None:
        first = asyncio.create_task(kept.keeper.first_look())
        while not inside:
            await asyncio.sleep(0.01)
        assert not kept.keeper._look_now.is_set(), "what it was hinted at is in this look"
        second = asyncio.create_task(kept.keeper.first_look())
        # Long enough for the second to be in there, too, if it were let.
        await asyncio.sleep(0.1)
        go.set()
        await asyncio.gather(first, second)

    asyncio.run(scenario())
    assert inside == [1, -1, 1, -1]


def test_a_pod_that_is_resized_in_place_is_forecast_anew(kept: Kept) -> None:
    sandbox = kept.node.sandbox(limit_mib=1024)
    kept.look()
    assert kept.vm_bytes(sandbox) == 3 * GIB
    kept.node.sandbox(limit_mib=4096, plugged_mib=1024)
    kept.look()
    assert kept.vm_bytes(sandbox) == 6 * GIB


def test_a_podfixed_that_does_not_cover_the_vm_is_a_problem_without_anybody_asking(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.node.sandbox(overhead_mib=350, limit_mib=1024)
    kept.look()
    (problem,) = [p for p in kept.keeper.problems() if p.reason == "PodFixedTooLow"]
    # 2 GiB of default_memory and 60 MiB beside it.
    assert "is 350Mi: its VM takes 2.1Gi beside" in problem.message
    assert "2108Mi" in problem.remedy
    kept.look()
    assert [r.levelname for r in caplog.records if "podFixed" in r.message] == ["ERROR"]


def test_a_podfixed_that_covers_the_vm_is_none(kept: Kept) -> None:
    kept.node.sandbox(overhead_mib=2108, limit_mib=1024)
    kept.look()
    assert "PodFixedTooLow" not in kept.reasons


def test_a_request_that_covers_the_vm_needs_no_podfixed(kept: Kept) -> None:
    kept.node.sandbox(overhead_mib=350, limit_mib=0, request_mib=2048, plugged_mib=0)
    kept.look()
    assert "PodFixedTooLow" not in kept.reasons


def test_a_hotplug_that_is_seen_changes_what_is_shown_at_once(kept: Kept) -> None:
    sandbox = kept.node.sandbox(limit_mib=0, plugged_mib=0)
    kept.look()
    kept.changes = 0
    kept.sweep()
    assert kept.changes == 0
    kept.node.sandbox(limit_mib=0, plugged_mib=4096)
    kept.sweep()
    assert kept.vm_bytes(sandbox) == 6 * GIB
    assert kept.changes == 1


def test_one_more_vm_is_as_large_as_katas_settings_make_it_and_costs_what_was_observed(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    assert kept.keeper.cost_of_one.total_bytes == 2 * GIB + 60 * MIB
    kept.node.write(
        "usr/share/kata-containers/defaults/configuration.toml", "[hypervisor.qemu]\ndefault_memory = 4096\n"
    )
    kept.look()
    assert kept.keeper.cost_of_one.vm_bytes == 4 * GIB
    assert kept.keeper.account.cost_of_one == kept.keeper.cost_of_one
    # A history is this machine's own; a recorded tree has none.
    (tmp_path / "state").mkdir()
    Series(tmp_path / "state/overhead-kata.series", ("host_overhead",)).add(
        time.time(), {"host_overhead": 98 * MIB}
    )
    kept.keeper._reader._live = True
    kept.keeper._reader._settings_at = 0
    kept.look()
    assert kept.keeper.cost_of_one.overhead_bytes == 100 * MIB
    kept.config = replace(kept.config, sandbox=SandboxConfig(vm_memory=1 * GIB, host_overhead=0))
    kept.look()
    assert kept.keeper.cost_of_one.total_bytes == GIB
    kept.keeper.close()


def test_nothing_is_promised_before_it_is_known_what_runs(kept: Kept) -> None:
    asyncio.run(kept.keeper.first_look())
    refused = kept.admit("a")
    assert (refused.allowed, refused.reason) == (False, "MemoryUnknown")
    assert "not known yet which VMs run" in refused.message
    assert kept.plan().limit.name == "starting"
    kept.look()
    assert kept.admit("a").allowed


def test_a_node_whose_vms_are_not_followed_has_slots_and_believes_the_runtime(tmp_path: Path) -> None:
    kept = Kept(tmp_path, sandbox=SandboxConfig(follow=False))
    kept.look()
    assert kept.plan().free > 0
    for name in ("kept", "ended", "forgotten"):
        assert kept.admit(name).allowed
    asyncio.run(kept.keeper.confirm("kept"))
    asyncio.run(kept.keeper.release("ended"))
    kept.look()
    assert sorted(kept.keeper.account.book.running) == ["forgotten", "kept"]
    later = time.monotonic() + 3600
    kept.keeper.account._clock = lambda: later
    kept.look()
    assert kept.keeper.account.book.running == ["kept"]
    kept.keeper.close()


def test_a_vm_that_runs_may_grow_while_the_node_is_drained_also_if_nobody_had_asked_for_it(
    kept: Kept,
) -> None:
    sandbox = kept.node.sandbox(limit_mib=0, plugged_mib=0)
    kept.look()
    kept.keeper.set_drain(on=True)
    assert kept.admit("another").reason == "Draining"
    assert kept.admit("another", extend=True).reason == "Draining"
    # Asked for its sandbox it is new, though its VM has booted.
    assert kept.admit(sandbox).reason == "Draining"
    assert kept.admit(sandbox, 3 * GIB, extend=True).allowed


def test_an_unannounced_vm_is_not_denied_what_it_has_on_a_node_that_is_promised_too_much(kept: Kept) -> None:
    sandbox = kept.node.sandbox(limit_mib=0, plugged_mib=0)
    kept.look()
    kept.keeper.account._budgets.by_term = dict.fromkeys((ALLOCATABLE, SHARED), GIB)
    assert not kept.admit(sandbox, 2 * GIB).allowed
    assert not kept.admit(sandbox, 3 * GIB, extend=True).allowed
    assert kept.admit(sandbox, 2 * GIB, extend=True).allowed


def test_places_that_vms_without_a_device_take_are_told_of_where_pods_ask_for_devices(kept: Kept) -> None:
    kept.node.sandbox(limit_mib=1024)
    kept.look()
    shown = kept.plan()
    assert shown.used == 1
    assert len(shown.healthy_indices) == shown.free + 1
    assert "1 more healthy for VMs whose pods hold no device" in shown.limit.message
    # Where nobody asks for devices, a RuntimeClass may have the resource: nothing is wrong.
    assert "PlacesTakenWithoutDevice" not in kept.reasons
    assert kept.keeper.allocate([0]).allowed
    assert "PlacesTakenWithoutDevice" in kept.reasons
    kept.config = replace(kept.config, device_plugin=DevicePluginConfig(containers_only=True))
    assert "PlacesTakenWithoutDevice" not in kept.reasons
    shown = kept.plan()
    # What is healthy is what is held, and what fits: kubelet's next one is not refused.
    assert (shown.used, len(shown.healthy_indices)) == (1, shown.free + 1)
    assert "hold no device" not in shown.limit.message
    for index in [i for i in shown.healthy_indices if i != 0]:
        assert kept.keeper.allocate([index]).allowed
    assert not kept.keeper.allocate([99]).allowed


def test_a_vm_that_may_not_be_looked_into_leaves_no_free_place_and_admits_none(kept: Kept) -> None:
    kept.look()
    assert kept.plan().free > 0
    kept.keeper.sandboxes.sees_all = False
    shown = kept.plan()
    assert (shown.free, shown.limit.name) == (0, "vms_unseen")
    refused = kept.admit("another")
    assert (refused.allowed, refused.reason) == (False, "MemoryUnknown")
    kept.keeper.sandboxes.sees_all = True
    assert kept.admit("another").allowed


def test_places_taken_by_vms_without_a_known_pod_are_told_apart(kept: Kept) -> None:
    kept.keeper.allocate([0])
    kept.node.process(801, qemu("started-by-hand", "512M", *shared("512M")))
    kept.node.memory(801, region(4096, 512, "/dev/shm/qemu_back_mem.dimm1.x (deleted)", inode=99))
    kept.look()
    (problem,) = [one for one in kept.keeper.problems() if one.reason == "PlacesTakenWithoutDevice"]
    assert "1 by VMs without a known pod (sandbox started-by-h)" in problem.message
    assert "hold no device" not in problem.message
    assert "containers_only" not in problem.remedy
    kept.node.sandbox(limit_mib=1024)
    kept.look()
    (problem,) = [one for one in kept.keeper.problems() if one.reason == "PlacesTakenWithoutDevice"]
    assert "1 by VMs of pods that hold no device and 1 by VMs without a known pod" in problem.message
    assert "containers_only" in problem.remedy


def test_by_default_a_place_that_a_vm_without_a_device_takes_is_refused_at_allocate(kept: Kept) -> None:
    """Why the setting is there."""
    kept.node.sandbox(limit_mib=1024)
    kept.look()
    allowed = [kept.keeper.allocate([index]).allowed for index in kept.plan().healthy_indices]
    assert allowed.count(False) == 1
    assert kept.keeper.mode is Mode.ENFORCE


def test_a_pod_without_a_vm_that_kubelet_has_just_admitted_counts_at_once(kept: Kept) -> None:
    kept.look()
    before = kept.keeper.account.room.left(ALLOCATABLE)
    uid = "0e6b1c52-0000-4000-9000-000000000001"
    group = f"sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    kept.node.write(f"{group}/memory.current", "0\n")
    kept.node.write(f"{group}/memory.stat", "anon 0\n")
    kept.node.allocations[uid] = {"ContainerResources": {"a": {"requests": {"memory": "5Gi"}}}}
    data = json.dumps({"entries": kept.node.allocations})
    kept.node.write("var/lib/kubelet/allocated_pods_state", json.dumps({"data": data, "checksum": 1}))
    kept.look()
    assert kept.keeper.account.room.left(ALLOCATABLE) == before - 5 * GIB


def test_a_podfixed_is_judged_by_what_the_vm_comes_to_not_by_the_most_it_was_admitted_for(kept: Kept) -> None:
    """OpenShift's annotation makes a VM of the limits and 350 MiB; to be safe it is admitted as if it were not there."""
    annotations = {"io.katacontainers.config.hypervisor.memory_overhead": "350"}
    sandbox = kept.node.sandbox(limit_mib=4096, overhead_mib=512, plugged_mib=2398, annotations=annotations)
    claim = Claim(sandbox, 6 * GIB, pod_fixed_bytes=512 * MIB, limits_bytes=4 * GIB)
    kept.look()
    assert asyncio.run(kept.keeper.admit(claim)).allowed
    kept.look()
    assert kept.vm_bytes(sandbox) == 6 * GIB
    assert "PodFixedTooLow" not in kept.reasons
