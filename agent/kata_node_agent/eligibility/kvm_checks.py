"""Checks of KVM itself: each step of making a VM, and the proof that a guest runs. Pure."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from kata_node_agent.eligibility.findings import NOT_REACHED, fails, holds, missing, skip, unknown
from kata_node_agent.host.kvm import KVM_NUMBER, STEPS, KvmOutcome

if TYPE_CHECKING:
    from typing import Any

    from kata_node_agent.eligibility.model import Finding
    from kata_node_agent.eligibility.processor import Processor
    from kata_node_agent.host.facts import NodeFacts

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
# Our own limits or a passing shortage: says nothing about the node's ability.
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
_CAPABILITIES = ("user-memory", "sync-mmu")
# s390x and ppc64le have interrupt controllers of other names.
_CAPABILITIES_OF = {
    "x86_64": (*_CAPABILITIES, "irqchip", "irqfd", "ioeventfd"),
    "aarch64": (*_CAPABILITIES, "irqchip", "irqfd", "ioeventfd"),
}


def check_device(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``kvm.device``: the node /dev/kvm is there and is what it should be."""
    if facts.kvm is None:
        return missing("whether there is a /dev/kvm is not known")
    node = facts.kvm.node
    evidence: dict[str, Any] = {"path": node.path, "type": node.kind}
    if node.kind not in {"char", "other", "absent"}:
        return unknown("KvmDeviceUnreachable", f"/dev/kvm could not be looked at: {node.problem}", evidence)
    if node.kind == "absent":
        return fails("KvmDeviceMissing", "there is no /dev/kvm", evidence)
    evidence |= {
        "mode": f"{node.mode:04o}" if node.mode is not None else None,
        "uid": node.uid,
        "gid": node.gid,
    }
    if node.kind != "char":
        return fails("KvmDeviceNotCharacter", "/dev/kvm is no character device", evidence)
    evidence["number"] = f"{node.major}:{node.minor}"
    if (node.major, node.minor) != KVM_NUMBER:
        message = f"/dev/kvm has the number {node.major}:{node.minor} instead of 10:232"
        return fails("KvmDeviceWrongNumber", message, evidence)
    return holds("KvmDevicePresent", f"/dev/kvm is there, mode {evidence['mode']}", evidence)


def check_open(facts: NodeFacts, _cpu: Processor) -> Finding:
    """``kvm.open``: the device can be opened for reading and writing."""
    outcome = _outcome(facts)
    if outcome is None:
        return _without_outcome(facts)
    evidence = _error_evidence(outcome, "open", "device")
    if outcome.reached("device"):
        return holds("KvmOpened", "/dev/kvm can be opened", evidence)
    if outcome.step == "device":
        return fails("KvmDeviceNotCharacter", "/dev/kvm is no character device", evidence)
    said = f"opening /dev/kvm: {_words(outcome.errno)}"
    if outcome.errno == errno.EACCES:
        return unknown("KvmPermissionDenied", said, evidence)
    if outcome.errno == errno.EPERM:
        return unknown("KvmNotPermitted", said, evidence)
    if outcome.errno in _SHORTAGE:
        return unknown("KvmOpenShortage", said, evidence)
    reasons = {
        errno.ENOENT: "KvmDeviceMissing",
        errno.ENODEV: "KvmNoDevice",
        errno.ENXIO: "KvmNoDriver",
        errno.EBUSY: "KvmBusy",
    }
    return fails(reasons.get(outcome.errno, "KvmOpenFailed"), said, evidence)


def check_api_version(facts: NodeFacts, cpu: Processor) -> Finding:
    """``kvm.api-version``: KVM speaks version 12 and has the capabilities that VMMs build on."""
    outcome = _outcome(facts)
    if outcome is None or not outcome.reached("device"):
        return _not_reached(facts, cpu)
    evidence = {
        "api_version": outcome.api_version,
        "capabilities": dict(sorted(outcome.capabilities.items())),
    }
    if not outcome.reached("api-version"):
        evidence |= _error_evidence(outcome, "api-version")
        if outcome.errno in _FORBIDDEN:
            return unknown("KvmIoctlForbidden", f"asking KVM its version: {_words(outcome.errno)}", evidence)
        if outcome.api_version is not None:
            message = f"KVM has API version {outcome.api_version} instead of 12"
            return fails("KvmApiVersionOther", message, evidence)
        return fails("KvmNotAnswering", f"asking KVM its version: {_words(outcome.errno)}", evidence)
    lacking = [
        name
        for name in _CAPABILITIES_OF.get(facts.arch or "", _CAPABILITIES)
        # One that was not asked for is no fact.
        if outcome.capabilities.get(name, 1) == 0
    ]
    if lacking:
        message = f"KVM lacks what VMs need: {', '.join(lacking)}"
        return fails("KvmCapabilityMissing", message, evidence | {"lacking": lacking})
    return holds("KvmApiVersion12", "KVM has API version 12", evidence)


def check_create_vm(facts: NodeFacts, cpu: Processor) -> Finding:
    """``kvm.create-vm``: KVM makes a VM."""
    outcome = _outcome(facts)
    if outcome is None or not outcome.reached("api-version"):
        return _not_reached(facts, cpu)
    evidence = _error_evidence(outcome, "create-vm")
    if outcome.reached("create-vm"):
        return holds("VmCreated", "KVM makes a VM", evidence)
    said = f"making a VM: {_words(outcome.errno)}"
    if outcome.errno in _FORBIDDEN:
        return unknown("KvmIoctlForbidden", said, evidence)
    if outcome.errno in _SHORTAGE:
        return unknown("VmShortage", said, evidence)
    reason = "VmHardwareBusy" if outcome.errno == errno.EBUSY else "VmCreationFailed"
    return fails(reason, said, evidence)


def check_run_guest(facts: NodeFacts, cpu: Processor) -> Finding:
    """``kvm.run-guest``: a guest ran on a virtual CPU and computed what it should."""
    outcome = _outcome(facts)
    evidence: dict[str, Any] = {
        "exit_reason": (outcome.exit_reason_name or outcome.exit_reason) if outcome else None,
        "value": outcome.value if outcome else None,
        "microseconds": outcome.microseconds if outcome else None,
    }
    if outcome is None or not outcome.reached("create-vm"):
        return _not_reached(facts, cpu, evidence)
    if outcome.step == "done":
        # Without the time, which stands in the evidence: the line is the same at every look.
        return holds("GuestRan", "a guest ran and computed the right value", evidence)
    evidence |= _error_evidence(outcome, outcome.step)
    if outcome.step == "run" and not outcome.guest_supported:
        message = "there is no test guest for this architecture; KVM made a VM and a virtual CPU"
        return skip("NoGuestForArchitecture", message, evidence)
    if outcome.errno in _FORBIDDEN:
        return unknown("KvmIoctlForbidden", f"step {outcome.step}: {_words(outcome.errno)}", evidence)
    if outcome.errno in _SHORTAGE:
        return unknown("VmShortage", f"step {outcome.step}: {_words(outcome.errno)}", evidence)
    return _guest_failed(outcome, evidence)


def _guest_failed(outcome: KvmOutcome, evidence: dict[str, Any]) -> Finding:
    said = _words(outcome.errno)
    if outcome.step == "run" and outcome.errno == errno.ETIMEDOUT:
        return fails("GuestTimedOut", "the guest did not end in time and was stopped", evidence)
    if outcome.step == "run" and outcome.errno == errno.EIO:
        name = outcome.exit_reason_name or f"exit reason {outcome.exit_reason}"
        message = f"the guest ended with {name} (detail {outcome.exit_detail:#x})"
        return fails("GuestUnexpectedExit", message, evidence | {"exit_detail": outcome.exit_detail})
    if outcome.step == "value":
        if outcome.value is None:
            return fails("GuestGaveNoValue", "the guest halted without giving its value", evidence)
        message = f"the guest computed {outcome.value} instead of {outcome.expected}"
        return fails("GuestWrongValue", message, evidence | {"expected": outcome.expected})
    reasons = {
        "memory": ("GuestMemoryRefused", "giving memory to the VM"),
        "create-vcpu": ("VcpuNotCreated", "making a virtual CPU"),
        "mmap": ("VcpuNotMapped", "mapping the virtual CPU"),
        "registers": ("VcpuRegistersRefused", "setting the virtual CPU's registers"),
    }
    reason, doing = reasons.get(outcome.step, ("GuestRunFailed", "running the guest"))
    return fails(reason, f"{doing}: {said}", evidence)


def _outcome(facts: NodeFacts) -> KvmOutcome | None:
    outcome = facts.kvm.outcome if facts.kvm is not None else None
    # A step of a later version's probe says nothing that we could read.
    return outcome if outcome is not None and outcome.step in STEPS else None


def _without_outcome(facts: NodeFacts) -> Finding:
    """What can be said of opening where it was not tried."""
    node = facts.kvm.node if facts.kvm is not None else None
    kind = node.kind if node is not None else "unknown"
    if node is not None and kind == "char" and (node.major, node.minor) != KVM_NUMBER:
        return fails("KvmDeviceWrongNumber", "/dev/kvm is another device, and was not opened")
    if kind == "absent":
        return fails("KvmDeviceMissing", "there is no /dev/kvm to open")
    if kind == "other":
        return fails("KvmDeviceNotCharacter", "/dev/kvm is no character device, and was not opened")
    return missing("whether /dev/kvm can be opened is not known")


def _not_reached(facts: NodeFacts, cpu: Processor, evidence: dict[str, Any] | None = None) -> Finding:
    """An earlier step stands in the way: skipped where that failed, unknown where it could not be told."""
    outcome = _outcome(facts)
    if outcome is None:
        earlier = _without_outcome(facts)
    elif not outcome.reached("device"):
        earlier = check_open(facts, cpu)
    elif not outcome.reached("api-version"):
        earlier = check_api_version(facts, cpu)
    else:
        earlier = check_create_vm(facts, cpu)
    if earlier.outcome == "fails":
        return skip(NOT_REACHED, "not tried, as an earlier step failed", evidence)
    return unknown(NOT_REACHED, "not tried, as an earlier step could not be made", evidence)


def _error_evidence(outcome: KvmOutcome, *steps: str) -> dict[str, Any]:
    """The errno by name, if one of these steps is the one that failed."""
    if outcome.step not in steps or not outcome.errno:
        return {}
    return {"step": outcome.step, "errno": errno.errorcode.get(outcome.errno, str(outcome.errno))}


def _words(number: int) -> str:
    name = errno.errorcode.get(number)
    # A snapshot may hold any number; strerror(3) takes an int.
    return f"{os.strerror(number)} ({name})" if name is not None else f"errno {number}"
