from __future__ import annotations

import errno

import pytest

from kata_node_agent.eligibility import Verdict, evaluate
from kata_node_agent.host.devices import DeviceNode
from kata_node_agent.host.kvm import KvmFacts, KvmOutcome
from tests.eligibility.cases import DONE, KVM_NODE, good_node, with_outcome

KVM_CHECKS = ("kvm.device", "kvm.open", "kvm.api-version", "kvm.create-vm", "kvm.run-guest")


def statuses(verdict: Verdict) -> dict[str, tuple[str, str]]:
    return {check.id: (check.status, check.reason) for check in verdict.checks if check.id in KVM_CHECKS}


@pytest.mark.parametrize(
    ("number", "status", "reason", "verdict"),
    [
        (errno.ENOENT, "fail", "KvmDeviceMissing", "ineligible"),
        (errno.ENODEV, "fail", "KvmNoDevice", "ineligible"),
        (errno.ENXIO, "fail", "KvmNoDriver", "ineligible"),
        (errno.EBUSY, "fail", "KvmBusy", "ineligible"),
        (errno.EIO, "fail", "KvmOpenFailed", "ineligible"),
        # What is refused to us says nothing of the node.
        (errno.EACCES, "unknown", "KvmPermissionDenied", "unknown"),
        (errno.EPERM, "unknown", "KvmNotPermitted", "unknown"),
        (errno.EMFILE, "unknown", "KvmOpenShortage", "unknown"),
    ],
)
def test_what_open_says(number: int, status: str, reason: str, verdict: str) -> None:
    judged = evaluate(with_outcome(KvmOutcome("open", number)), profile="upstream")
    found = statuses(judged)
    assert found["kvm.open"] == (status, reason)
    later = ("skip" if status == "fail" else "unknown", "NotReached")
    assert found["kvm.api-version"] == found["kvm.create-vm"] == found["kvm.run-guest"] == later
    assert judged.verdict == verdict
    check = next(check for check in judged.checks if check.id == "kvm.open")
    assert check.remedy
    assert errno.errorcode[number] in check.message
    assert check.evidence["errno"] == errno.errorcode[number]


@pytest.mark.parametrize(
    ("outcome", "check", "status", "reason"),
    [
        (KvmOutcome("device", errno.ENODEV), "kvm.open", "fail", "KvmDeviceNotCharacter"),
        (KvmOutcome("api-version", errno.EPERM), "kvm.api-version", "unknown", "KvmIoctlForbidden"),
        (KvmOutcome("api-version", errno.ENOTTY), "kvm.api-version", "fail", "KvmNotAnswering"),
        (KvmOutcome("api-version", errno.EPROTO, 11), "kvm.api-version", "fail", "KvmApiVersionOther"),
        (KvmOutcome("create-vm", errno.EBUSY, 12), "kvm.create-vm", "fail", "VmHardwareBusy"),
        (KvmOutcome("create-vm", errno.ENOMEM, 12), "kvm.create-vm", "unknown", "VmShortage"),
        (KvmOutcome("create-vm", errno.EPERM, 12), "kvm.create-vm", "unknown", "KvmIoctlForbidden"),
        (KvmOutcome("create-vm", errno.EIO, 12), "kvm.create-vm", "fail", "VmCreationFailed"),
        (KvmOutcome("memory", errno.EINVAL, 12), "kvm.run-guest", "fail", "GuestMemoryRefused"),
        (KvmOutcome("create-vcpu", errno.EINVAL, 12), "kvm.run-guest", "fail", "VcpuNotCreated"),
        (KvmOutcome("mmap", errno.EINVAL, 12), "kvm.run-guest", "fail", "VcpuNotMapped"),
        (KvmOutcome("registers", errno.EINVAL, 12), "kvm.run-guest", "fail", "VcpuRegistersRefused"),
        (KvmOutcome("run", errno.EFAULT, 12), "kvm.run-guest", "fail", "GuestRunFailed"),
        (
            KvmOutcome("run", errno.ETIMEDOUT, 12, 10, "KVM_EXIT_INTR"),
            "kvm.run-guest",
            "fail",
            "GuestTimedOut",
        ),
        (
            KvmOutcome("run", errno.EIO, 12, 9, "KVM_EXIT_FAIL_ENTRY"),
            "kvm.run-guest",
            "fail",
            "GuestUnexpectedExit",
        ),
        (
            KvmOutcome("run", errno.ENOSYS, 12, guest_supported=False),
            "kvm.run-guest",
            "skip",
            "NoGuestForArchitecture",
        ),
        (KvmOutcome("value", errno.ENODATA, 12, 5), "kvm.run-guest", "fail", "GuestGaveNoValue"),
        (
            KvmOutcome("value", errno.EBADMSG, 12, 5, value=1, expected=2),
            "kvm.run-guest",
            "fail",
            "GuestWrongValue",
        ),
        (KvmOutcome("run", 1 << 40, 12), "kvm.run-guest", "fail", "GuestRunFailed"),
        (DONE, "kvm.run-guest", "pass", "GuestRan"),
    ],
    ids=lambda value: value.reason if hasattr(value, "reason") else None,
)
def test_each_step_has_its_own_reason(outcome: KvmOutcome, check: str, status: str, reason: str) -> None:
    assert statuses(evaluate(with_outcome(outcome), profile="upstream"))[check] == (status, reason)


def test_evidence_of_the_guest() -> None:
    checks = {check.id: check for check in evaluate(good_node(), profile=None).checks}
    assert dict(checks["kvm.run-guest"].evidence) == {
        "exit_reason": "KVM_EXIT_HLT",
        "value": 7,
        "microseconds": 60,
    }


@pytest.mark.parametrize(
    ("node", "status", "reason"),
    [
        (DeviceNode("/dev/kvm", "absent"), "fail", "KvmDeviceMissing"),
        (DeviceNode("/dev/kvm", "other", mode=0o644), "fail", "KvmDeviceNotCharacter"),
        (DeviceNode("/dev/kvm", "unknown", problem="Permission denied"), "unknown", "KvmDeviceUnreachable"),
        (DeviceNode("/dev/kvm", "char", 10, 200), "fail", "KvmDeviceWrongNumber"),
        (KVM_NODE, "pass", "KvmDevicePresent"),
    ],
)
def test_what_lies_at_the_path(node: DeviceNode, status: str, reason: str) -> None:
    assert statuses(evaluate(good_node(kvm=KvmFacts(node)), profile=None))["kvm.device"] == (status, reason)


def test_another_device_in_its_place_is_not_opened() -> None:
    node = DeviceNode("/dev/kvm", "char", 10, 130)
    assert statuses(evaluate(good_node(kvm=KvmFacts(node)), profile=None))["kvm.open"] == (
        "fail",
        "KvmDeviceWrongNumber",
    )


def test_a_missing_capability_is_named() -> None:
    capabilities = {**DONE.capabilities, "irqfd": 0}
    outcome = KvmOutcome("done", 0, 12, 5, value=7, expected=7, microseconds=1, capabilities=capabilities)
    check = next(c for c in evaluate(with_outcome(outcome), profile=None).checks if c.id == "kvm.api-version")
    assert (check.status, check.reason, check.evidence["lacking"]) == (
        "fail",
        "KvmCapabilityMissing",
        ["irqfd"],
    )


def test_a_step_of_a_later_version_is_no_fact() -> None:
    assert statuses(evaluate(with_outcome(KvmOutcome("later", 0)), profile=None))["kvm.open"][0] == "unknown"
