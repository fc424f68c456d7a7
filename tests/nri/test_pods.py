"""What events mean for the account, without anybody who answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.nri import pods
from kata_node_agent.nri.events import events_for
from kata_node_agent.nri.facts import Container, Limits, Sandbox, limits_of, sandbox_of
from kata_node_agent.nri.pods import Known
from kata_node_agent.nri.sizing import size_for, size_with
from kata_node_agent.pb import nri_pb2

MIB, GIB = 1 << 20, 1 << 30
GO = size_with(VmSettings(default_memory_bytes=2 * GIB))
STATIC = size_with(VmSettings(kind="runtime-rs", static=True))
REMOTE = size_with(VmSettings(runs_here=False))
TOLD = Sandbox("s", "u", "ns/p", "kata", limits=Limits(4 * GIB), overhead_bytes=350 * MIB)


def member(name: str, limit: int | None, identity: str = "") -> Container:
    return Container(identity or f"c-{name}", "s", name, Limits(limit))


def test_a_sandbox_asks_for_the_whole_pod_with_its_names() -> None:
    step = pods.run_sandbox(TOLD, GO)
    assert step.question == "admit"
    claim = step.claim
    assert (claim.sandbox, claim.vm_bytes, claim.pod, claim.pod_uid, claim.handler) == (
        "s",
        6 * GIB,
        "ns/p",
        "u",
        "kata",
    )
    assert (claim.pod_fixed_bytes, claim.limits_bytes) == (350 * MIB, 4 * GIB)
    assert step.then == Known(TOLD, 6 * GIB)


def test_a_pod_cannot_make_its_forecast_smaller_by_an_annotation_that_nobody_documents() -> None:
    key = "io.katacontainers.config.hypervisor.memory_overhead"
    for value, wanted in (("0", 6 * GIB), ("4096", 8 * GIB)):
        told = replace(TOLD, annotations={key: value})
        assert pods.run_sandbox(told, GO).claim.vm_bytes == wanted


def test_containers_of_a_pod_that_was_forecast_only_confirm_it() -> None:
    known = pods.run_sandbox(TOLD, GO).then
    for name in ("init", "main"):
        step = pods.create_container(known, member(name, 2 * GIB), GO)
        assert step.question == "confirm"
        known = step.then
    # A container without a limit adds nothing to the VM.
    assert pods.create_container(known, member("debugger", None), GO).question == "confirm"


def test_a_container_beyond_the_forecast_asks_for_the_larger_vm() -> None:
    known = pods.run_sandbox(TOLD, GO).then
    step = pods.create_container(known, member("main", 5 * GIB), GO)
    assert (step.question, step.claim.vm_bytes, step.then.granted_bytes) == ("extend", 7 * GIB, 7 * GIB)


def test_a_pod_whose_limits_the_runtime_was_not_told_grows_with_each_container() -> None:
    known = pods.run_sandbox(replace(TOLD, limits=Limits()), GO).then
    assert known.granted_bytes == 2 * GIB
    step = pods.create_container(known, member("one", GIB), GO)
    assert (step.question, step.claim.vm_bytes) == ("extend", 3 * GIB)
    step = pods.create_container(step.then, member("two", GIB), GO)
    assert (step.question, step.claim.vm_bytes) == ("extend", 4 * GIB)


def test_a_container_that_is_started_again_counts_once() -> None:
    known = pods.create_container(
        Known(replace(TOLD, limits=Limits())), member("main", GIB, "first"), GO
    ).then
    again = pods.create_container(known, member("main", GIB, "second"), GO)
    assert again.question == "confirm"
    assert set(again.then.containers) == {"second"}


def test_an_init_container_that_has_stopped_counts_no_more_but_its_memory_stays() -> None:
    known = pods.create_container(Known(replace(TOLD, limits=Limits())), member("init", 2 * GIB), GO).then
    known = pods.without_container(known, "c-init")
    step = pods.create_container(known, member("main", GIB), GO)
    assert (step.question, step.then.granted_bytes) == ("confirm", 4 * GIB)


def test_a_resize_asks_for_what_is_more_and_confirms_what_is_less() -> None:
    known = pods.create_container(pods.run_sandbox(TOLD, GO).then, member("main", 4 * GIB), GO).then
    more = pods.update_container(known, member("main", 4 * GIB), Limits(5 * GIB), GO)
    assert more is not None
    assert (more.question, more.claim.vm_bytes) == ("extend", 7 * GIB)
    less = pods.update_container(known, member("main", 4 * GIB), Limits(3 * GIB), GO)
    assert less is not None
    assert less.question == "confirm"
    assert pods.update_container(known, member("main", 4 * GIB), Limits(None), GO) is None
    assert pods.update_container(known, member("main", 4 * GIB), Limits(4 * GIB), GO) is None
    whole = pods.update_sandbox(known, Limits(8 * GIB), GO)
    assert whole is not None
    assert (whole.question, whole.claim.vm_bytes) == ("extend", 10 * GIB)
    assert pods.update_sandbox(known, Limits(None), GO) is None


def test_a_static_vm_has_its_size_from_the_start_and_keeps_it() -> None:
    step = pods.run_sandbox(TOLD, STATIC)
    assert step.claim.vm_bytes == 4 * GIB + 32 * MIB
    more = pods.create_container(step.then, member("main", 5 * GIB), STATIC)
    assert more.question == "confirm"


def test_a_vm_that_runs_elsewhere_needs_no_memory_here() -> None:
    assert pods.run_sandbox(TOLD, REMOTE).claim.vm_bytes == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["create", "stop", "resize"]), st.sampled_from("abc"), st.integers(1, 4096))
    ),
    st.none() | st.integers(1, 4096),
)
def test_what_was_granted_always_covers_the_containers_that_run(
    events: list[tuple[str, str, int]], told: int | None
) -> None:
    sandbox = replace(TOLD, limits=Limits(told * MIB if told else None))
    known = pods.run_sandbox(sandbox, GO).then
    for what, name, mib in events:
        before = known.granted_bytes
        if what == "stop":
            known = pods.without_container(known, f"c-{name}")
        else:
            step = (
                pods.create_container(known, member(name, mib * MIB), GO)
                if what == "create"
                else pods.update_container(known, member(name, None), Limits(mib * MIB), GO)
            )
            known = step.then if step is not None else known
        running = sum(c.limits.memory_bytes or 0 for c in known.containers.values())
        assert known.granted_bytes is not None
        assert known.granted_bytes >= 2 * GIB + running
        assert before is not None
        assert known.granted_bytes >= before


@pytest.mark.parametrize(
    ("version", "last"),
    [
        ("v0.12.3", 12),
        ("v0.10.0", 12),
        ("1.0.0", 12),
        ("v0.9.9", 11),
        ("0.6.1", 11),
        ("", 11),
        ("(devel)", 11),
        ("v0", 11),
        ("9" * 5000, 11),
    ],
)
def test_no_event_is_asked_for_that_the_runtime_may_not_know(version: str, last: int) -> None:
    mask = events_for(version)
    assert mask.bit_length() == last
    # Those that only older plugins want are not asked for: each costs every pod of the node a call.
    assert {bit + 1 for bit in range(mask.bit_length()) if mask >> bit & 1} == {1, 2, 3, 4, 8, 10, 11} | (
        {12} if last == 12 else set()
    )


def test_handlers_are_those_configured_or_those_that_lead_to_kata() -> None:
    default, own = VmSettings(), VmSettings(default_memory_bytes=256 * MIB)

    def known(handler: str, *configured: str) -> bool:
        return size_for(handler, {"vms": own}, configured, default) is not None

    assert all(map(known, ("vms", "kata", "kata-qemu")))
    assert not any(map(known, ("", "runc", "katana")))
    assert known("runc", "runc")
    assert not known("kata", "runc")
    size = size_for("vms", {"vms": own}, (), default)
    assert size is not None
    assert size(Sandbox("s"), (), None) == 256 * MIB


def test_numbers_that_make_no_sense_are_not_known() -> None:
    def limit(value: int) -> int | None:
        message = nri_pb2.LinuxResources()
        message.memory.limit.value = value
        return limits_of(message).memory_bytes

    assert [limit(v) for v in (0, -1, -(1 << 63), (1 << 63) - 1, 5)] == [None, None, None, None, 5]
    message = nri_pb2.LinuxResources()
    message.cpu.quota.value, message.cpu.period.value = 150_000, 100_000
    message.hugepage_limits.add(page_size="2MB", limit=4 * MIB)
    message.hugepage_limits.add(page_size="1GB", limit=(1 << 64) - 1)
    assert limits_of(message) == Limits(None, 4 * MIB, 1500)


def test_a_runtimeclass_without_memory_in_its_overhead_is_known_to_reserve_nothing() -> None:
    """The worst podFixed there is; a runtime that tells of no overhead at all leaves it open."""
    told, silent = nri_pb2.PodSandbox(id="a"), nri_pb2.PodSandbox(id="b")
    told.linux.pod_overhead.SetInParent()
    told.linux.pod_resources.SetInParent()
    claims = [pods.claim_of(Known(sandbox_of(each)), lambda *_: 2 * GIB) for each in (told, silent)]
    assert [(claim.pod_fixed_bytes, claim.limits_bytes) for claim in claims] == [(0, 0), (None, None)]
