"""What is promised: admissions, the VMs that were seen, the devices that pods hold, and the commitments that follow. No I/O.

The commitment of a sandbox is the larger of what was admitted and what its VM is, with the host's overhead. A device stands
for a VM of the usual size until a sandbox of the same pod is known; from then on the sandbox counts, and the device does not.
Until then it keeps others out, but no pod that holds a device itself: pods that all want more than their devices stand for
would else wait for each other for ever.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Backing, Commitment, Need
from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping


class Origin(enum.StrEnum):
    """How a sandbox came into the book."""

    ADMITTED = "admitted"
    LET_THROUGH = "let-through"
    ADOPTED = "adopted"
    NOTED = "noted"


@dataclass(frozen=True, slots=True)
class Admission:
    """A sandbox in the book. Times are `time.monotonic`, which all processes of one boot share.

    Attributes:
        sandbox: its id.
        origin: ``admitted``; ``let-through``: enforce would have refused it; ``adopted``: its VM ran and nobody had asked;
            ``noted``: the runtime has it, and nobody had asked.
        vm_bytes: what was admitted for the VM; 0 for those that nobody asked for.
        overhead_bytes: of the host's processes.
        since: when it came into the book.
        confirmed: the runtime said that it, or a container of it, exists.
        seen: a VM of it was seen.
        released: when the runtime said that it ends; ``None`` while it has not.
        lapsed: it has no VM and none is waited for: it commits nothing.
        pod_uid, pod, handler, pod_fixed_bytes, limits_bytes: see `gate.Claim`.
    """

    sandbox: str
    origin: Origin
    vm_bytes: int
    overhead_bytes: int
    since: float
    confirmed: bool = False
    seen: bool = False
    released: float | None = None
    lapsed: bool = False
    pod_uid: str = ""
    pod: str = ""
    handler: str = ""
    backing: Backing = Backing.ANONYMOUS
    pod_fixed_bytes: int | None = None
    limits_bytes: int | None = None

    @property
    def asked(self) -> bool:
        """Whether somebody asked, and was told to go on."""
        return self.origin in {Origin.ADMITTED, Origin.LET_THROUGH}

    @property
    def need(self) -> Need:
        """What was admitted."""
        return Need(self.vm_bytes, self.overhead_bytes, self.backing)


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM that runs, in bytes.

    Attributes:
        sandbox: whose.
        vm_bytes: its memory as it is now.
        forecast_bytes: what it becomes by what its pod was allocated; 0 where that is not known.
        pod_fixed_bytes: overhead of its pod; ``None`` where it is not known.
        counted_bytes: what the scheduler counts for its containers at most, limits or requests; the same.
        overhead_bytes: of the host's processes, as observed; ``None`` where it is not known.
        resident_bytes, guest_resident_bytes: see `capacity.free.Commitment`.
    """

    sandbox: str
    vm_bytes: int
    overhead_bytes: int | None = None
    resident_bytes: int = 0
    guest_resident_bytes: int = 0
    backing: Backing = Backing.ANONYMOUS
    pod_uid: str = ""
    pod: str = ""
    handler: str = ""
    forecast_bytes: int = 0
    pod_fixed_bytes: int | None = None
    counted_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device that kubelet allocated; ``pod`` is ``namespace/name``, empty while kubelet has not said whose it is."""

    index: int
    since: float
    pod: str = ""


class Book:
    """The state of the account. Changed by `put`, `drop` and `see` only, which keep the sums."""

    def __init__(self, cost_of_one: Need) -> None:
        """See the class.

        Args:
            cost_of_one: what a device without a sandbox stands for.
        """
        self._cost_of_one = cost_of_one
        self.admissions: dict[str, Admission] = {}
        self.vms: dict[str, Vm] = {}
        self.devices: dict[int, Device] = {}
        self._commitments: dict[str | int, Commitment] = {}
        self._touched_of: dict[str | int, dict[str, int]] = {}
        self._of_pod: dict[str, set[str]] = {}
        self._devices_of_pod: dict[str, set[int]] = {}
        self._committed: Counter[str] = Counter()
        self._touched: Counter[str] = Counter()
        self._total = 0
        # Devices that stand for sandboxes to come.
        self._standing = 0

    @property
    def committed(self) -> Mapping[str, int]:
        """Σ of what all commitments take, by term."""
        return self._committed

    @property
    def touched(self) -> Mapping[str, int]:
        """Σ of what is touched of them, by term."""
        return self._touched

    @property
    def committed_bytes(self) -> int:
        """Σ of all commitments, whatever the VMs' memory is made of."""
        return self._total

    @property
    def uids(self) -> set[str]:
        """Pods with a sandbox: they are no others. One whose VM is elsewhere, or was never seen, claims as others do."""
        return {
            admission.pod_uid
            for admission in self.admissions.values()
            if admission.pod_uid and (admission.seen or not admission.lapsed)
        }

    @property
    def running(self) -> list[str]:
        """Sandboxes that commit something."""
        return [key for key in self._commitments if isinstance(key, str)]

    @property
    def without_device(self) -> int:
        """How many sandboxes that commit something are of no pod that holds a device."""
        return sum(1 for key in self.running if self.admissions[key].pod not in self._devices_of_pod)

    def commitment(self, key: str | int) -> Commitment | None:
        """Of a sandbox, or of a device that stands for one; ``None`` where it commits nothing."""
        return self._commitments.get(key)

    def stands_for(self, pod: str) -> bool:
        """Whether a device of the pod stands for a sandbox of it that is still to come."""
        return bool(pod) and any(index in self._commitments for index in self._devices_of_pod.get(pod, ()))

    def standing_for(self, pod: str) -> Mapping[str, int]:
        """What devices of the pod stand for, by term."""
        count = sum(index in self._commitments for index in self._devices_of_pod.get(pod, ()))
        return {term: amount * count for term, amount in self._cost_of_one.by_term.items()}

    @property
    def committed_to_sandboxes(self) -> Mapping[str, int]:
        """Σ of what commitments take, by term, without the devices that stand for sandboxes to come."""
        of_one = self._cost_of_one.by_term
        return {
            term: amount - self._standing * of_one.get(term, 0) for term, amount in self._committed.items()
        }

    def put(self, admission: Admission) -> None:
        """Enters an admission, or enters it anew."""
        before = self.admissions.get(admission.sandbox)
        self.admissions[admission.sandbox] = admission
        if before is not None and before.pod != admission.pod:
            self._leave_pod(before)
        if admission.pod:
            self._of_pod.setdefault(admission.pod, set()).add(admission.sandbox)
        self._count(admission.sandbox)

    def drop(self, sandbox: str) -> None:
        """Strikes an admission out, and what is known of its VM; nothing where there is none."""
        admission = self.admissions.pop(sandbox, None)
        self.vms.pop(sandbox, None)
        if admission is not None:
            self._commit(sandbox, None)
            self._leave_pod(admission)

    def see(self, vm: Vm | None, sandbox: str) -> None:
        """A VM of a sandbox in the book as it is now, or that there is none."""
        if vm is None:
            self.vms.pop(sandbox, None)
        else:
            self.vms[sandbox] = vm
        self._count(sandbox)

    def put_device(self, device: Device) -> None:
        """Enters a device, or enters it anew."""
        self.drop_device(device.index)
        self.devices[device.index] = device
        if device.pod:
            self._devices_of_pod.setdefault(device.pod, set()).add(device.index)
        self._count_devices(device.pod or device.index)

    def drop_device(self, index: int) -> None:
        """Strikes a device out; nothing where it is not held."""
        device = self.devices.pop(index, None)
        if device is None:
            return
        self._commit(index, None)
        if device.pod:
            indices = self._devices_of_pod[device.pod]
            indices.discard(index)
            if not indices:
                del self._devices_of_pod[device.pod]

    def reprice(self, cost_of_one: Need) -> None:
        """Another cost of one is in force."""
        if cost_of_one != self._cost_of_one:
            self._cost_of_one = cost_of_one
            for index, device in self.devices.items():
                self._count_devices(device.pod or index)

    def _leave_pod(self, admission: Admission) -> None:
        if admission.pod:
            sandboxes = self._of_pod.get(admission.pod, set())
            sandboxes.discard(admission.sandbox)
            if not sandboxes:
                self._of_pod.pop(admission.pod, None)
            self._count_devices(admission.pod)

    def _count(self, sandbox: str) -> None:
        admission = self.admissions[sandbox]
        self._commit(sandbox, commitment_of(admission, self.vms.get(sandbox)))
        if admission.pod in self._devices_of_pod:
            self._count_devices(admission.pod)

    def _count_devices(self, of: str | int) -> None:
        """Devices of a pod, or one whose pod is not known: they count while no sandbox of the pod does."""
        if isinstance(of, int):
            indices, known = {of}, False
        else:
            indices = self._devices_of_pod.get(of, set())
            known = any(sandbox in self._commitments for sandbox in self._of_pod.get(of, ()))
        for index in indices:
            self._commit(index, None if known else Commitment(self._cost_of_one))

    def _commit(self, key: str | int, commitment: Commitment | None) -> None:
        before = self._commitments.get(key)
        if before == commitment:
            return
        if isinstance(key, int):
            self._standing += (commitment is not None) - (before is not None)
        if before is None or commitment is None or before.need != commitment.need:
            # Most of the time a VM has touched more, and nothing else.
            self._add_need(before, -1)
            self._add_need(commitment, 1)
        for term, amount in self._touched_of.pop(key, {}).items():
            self._touched[term] -= amount
        if commitment is None:
            del self._commitments[key]
            return
        self._commitments[key] = commitment
        touched = self._touched_of[key] = commitment.touched_by_term
        for term, amount in touched.items():
            self._touched[term] += amount

    def _add_need(self, commitment: Commitment | None, sign: int) -> None:
        if commitment is not None:
            self._total += sign * commitment.need.total_bytes
            for term, amount in commitment.need.by_term.items():
                self._committed[term] += sign * amount


def commitment_of(admission: Admission, vm: Vm | None) -> Commitment | None:
    """What a sandbox is promised; ``None`` for nothing."""
    if vm is None:
        return None if admission.lapsed else Commitment(admission.need)
    need = Need(
        vm_bytes=max(admission.vm_bytes, vm.vm_bytes, vm.forecast_bytes),
        overhead_bytes=max(admission.overhead_bytes, vm.overhead_bytes or 0),
        backing=vm.backing,
    )
    return Commitment(need, vm.resident_bytes, vm.guest_resident_bytes)


def named(admission: Admission, *, pod_uid: str = "", pod: str = "", handler: str = "") -> Admission:
    """The admission with the names that it lacked."""
    return replace(
        admission,
        pod_uid=admission.pod_uid or pod_uid,
        pod=admission.pod or pod,
        handler=admission.handler or handler,
    )
