"""What is used, against what is kept: kubelet's eviction signals, whether the reservation holds, and what nobody sees.

Sources: kubelet's pkg/kubelet/eviction (memory.available = capacity − working set of the root; allocatableMemory.available =
limit − working set of the pods' group); OpenShift's machine-config-operator for the alert SystemMemoryExceedsReservation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import eviction_threshold_bytes
from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

# Source: machine-config-operator's rule; it must hold for 15 minutes there.
ALERT_SHARE = 0.95
ALERT_GROUP = "/system.slice"
_ALERT = "SystemMemoryExceedsReservation"
# From here on little is left: ours, for what is said and not for what is done.
_NEARLY = 0.9
_NEAR_EVICTION = 0.05
_MUCH_UNSEEN = 0.1
_STALLED_PERCENT = 10.0


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A node's memory in use, in bytes; ``None`` where it is not known.

    Attributes:
        capacity_bytes: MemTotal.
        reserved_bytes: systemReserved and kubeReserved.
        allocatable_bytes: as kubelet publishes it.
        eviction_hard: the threshold of memory.available, as configured.
        root_working_set_bytes: of the root group.
        system_rss_bytes: of ``ALERT_GROUP``, as the alert reads it; not of any other group.
        system_working_set_bytes: of the system's group.
        pods_limit_bytes: limit of the pods' group.
        pods_working_set_bytes: of the pods' group.
        kata_overhead_bytes: working set of ``/kata_overhead``, which is in neither of them.
        available_bytes: the kernel's MemAvailable.
        slab_bytes: slab that cannot be reclaimed, node-wide.
        page_tables_bytes: node-wide.
        hugetlb_bytes: memory set aside as huge pages.
        system_swap_bytes: of the system's group.
        pressure_percent: time in which some task waited for memory, last 60 s.
    """

    capacity_bytes: int
    reserved_bytes: int = 0
    allocatable_bytes: int = 0
    eviction_hard: str = ""
    root_working_set_bytes: int | None = None
    system_rss_bytes: int | None = None
    system_working_set_bytes: int | None = None
    pods_limit_bytes: int | None = None
    pods_working_set_bytes: int | None = None
    kata_overhead_bytes: int | None = None
    available_bytes: int | None = None
    slab_bytes: int | None = None
    page_tables_bytes: int | None = None
    hugetlb_bytes: int | None = None
    system_swap_bytes: int | None = None
    pressure_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Signals:
    """Kubelet's two eviction signals for memory, and what is left of each until it evicts, in bytes.

    ``until_*`` is negative where kubelet evicts; ``None`` where there is no threshold or no signal. ``unseen_bytes`` is in
    use, but in neither signal.
    """

    memory_available_bytes: int | None
    until_eviction_bytes: int | None
    pods_available_bytes: int | None
    pods_until_eviction_bytes: int | None
    unseen_bytes: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth knowing about what is used; a problem if somebody should do something about it."""

    reason: str
    message: str
    remedy: str = ""
    problem: bool = False


def signals(use: MemoryUse) -> Signals:
    """The signals as kubelet computes them.

    Raises:
        QuantityError: the threshold is no amount.
    """
    node = _left(use.capacity_bytes, use.root_working_set_bytes)
    pods = _left(use.pods_limit_bytes, use.pods_working_set_bytes)
    parts = (use.slab_bytes, use.page_tables_bytes, use.hugetlb_bytes)
    return Signals(
        memory_available_bytes=node,
        until_eviction_bytes=_until(node, use.eviction_hard, use.capacity_bytes),
        pods_available_bytes=pods,
        # Kubelet adds the signal of the pods' group with the value of the hard threshold of memory.available.
        pods_until_eviction_bytes=_until(pods, use.eviction_hard, use.pods_limit_bytes or 0),
        unseen_bytes=None if all(part is None for part in parts) else sum(part or 0 for part in parts),
    )


def _left(total: int | None, used: int | None) -> int | None:
    """Kubelet gives 0 where more is used than there is."""
    return None if total is None or used is None else max(0, total - used)


def _until(available: int | None, threshold: str, capacity: int) -> int | None:
    kept = eviction_threshold_bytes(threshold, capacity)
    return None if available is None or not kept else available - kept


def alert_fires(use: MemoryUse) -> bool | None:
    """OpenShift's condition: RSS of the system's group above 95 % of (capacity − allocatable); ``None`` if not known."""
    if use.system_rss_bytes is None:
        return None
    return use.system_rss_bytes > ALERT_SHARE * (use.capacity_bytes - use.allocatable_bytes)


def outside_pods_bytes(use: MemoryUse) -> int | None:
    """Working set of all that is not a pod: what the reservation has to cover."""
    if use.root_working_set_bytes is None or use.pods_working_set_bytes is None:
        return None
    return max(0, use.root_working_set_bytes - use.pods_working_set_bytes)


def findings(use: MemoryUse) -> tuple[Finding, ...]:
    """What these numbers mean, most urgent first.

    Raises:
        QuantityError: the threshold is no amount.
    """
    return (*_about_eviction(use, signals(use)), *_about_reservation(use), *_about_unseen(use, signals(use)))


def _about_eviction(use: MemoryUse, now: Signals) -> Iterator[Finding]:
    remedy = "end or move pods, or lower what they may use; see the largest ones in this report"
    for name, until, total in (
        ("memory.available", now.until_eviction_bytes, use.capacity_bytes),
        ("allocatableMemory.available", now.pods_until_eviction_bytes, use.pods_limit_bytes or 0),
    ):
        if until is None:
            continue
        if until < 0:
            text = f"{name} is {format_bytes(-until)} below the hard threshold: kubelet evicts pods"
            yield Finding("EvictionUnderWay", text, remedy, problem=True)
        elif until < _NEAR_EVICTION * total:
            text = f"{name} is {format_bytes(until)} above the hard threshold; below it kubelet evicts pods"
            yield Finding("EvictionNear", text, remedy, problem=True)
    if use.pressure_percent is not None and use.pressure_percent >= _STALLED_PERCENT:
        text = f"tasks waited for memory {use.pressure_percent:.0f} % of the last minute"
        yield Finding("MemoryStalls", text, remedy, problem=True)


def _about_reservation(use: MemoryUse) -> Iterator[Finding]:
    outside, kept = outside_pods_bytes(use), use.reserved_bytes
    remedy = "raise systemReserved; the advice in this report says to what, once there is a history"
    if outside is not None:
        numbers = (
            f"{format_bytes(outside)} is in use outside of pods, {format_bytes(kept)} is reserved for it"
        )
        if outside > kept:
            yield Finding("ReservationExceeded", numbers, remedy, problem=True)
        elif outside > _NEARLY * kept:
            yield Finding("ReservationNearlyUsed", numbers, remedy)
    fires = alert_fires(use)
    limit = format_bytes(int(ALERT_SHARE * (use.capacity_bytes - use.allocatable_bytes)))
    if fires:
        rss = format_bytes(use.system_rss_bytes or 0)
        text = f"the system's RSS is {rss}, above {limit} (95 % of capacity − allocatable)"
        yield Finding(
            f"{_ALERT}", f"{text}: OpenShift alerts when this lasts 15 minutes", remedy, problem=True
        )
    elif fires is False and outside is not None and outside > kept:
        missed = [
            f"{format_bytes(amount)} {what}"
            for amount, what in (
                (
                    max(0, (use.system_working_set_bytes or 0) - (use.system_rss_bytes or 0)),
                    "of file cache and kernel memory of the system",
                ),
                (use.kata_overhead_bytes or 0, "in /kata_overhead"),
                (use.system_swap_bytes or 0, "of the system in swap"),
            )
            if amount
        ]
        rest = f"; it does not see {', '.join(missed)}" if missed else ""
        text = f"OpenShift's alert {_ALERT} is silent (RSS {format_bytes(use.system_rss_bytes or 0)} of {limit}){rest}"
        yield Finding("AlertIsBlind", text)
    if use.kata_overhead_bytes:
        amount = format_bytes(use.kata_overhead_bytes)
        text = f"{amount} of Kata's processes is in /kata_overhead: in no pod and not in the system"
        yield Finding(
            "KataOutsidePods",
            text,
            "set sandbox_cgroup_only = true in Kata's configuration, or reserve for it",
        )


def _about_unseen(use: MemoryUse, now: Signals) -> Iterator[Finding]:
    threshold = eviction_threshold_bytes(use.eviction_hard, use.capacity_bytes)
    available, signal = use.available_bytes, now.memory_available_bytes
    if available is not None and signal is not None and available < threshold <= signal:
        text = (
            f"the kernel has {format_bytes(available)} left (MemAvailable), less than the threshold of "
            f"{format_bytes(threshold)}, but kubelet counts {format_bytes(signal)} and does not evict"
        )
        yield Finding(
            "KubeletSeesTooMuch", text, "free memory; the kernel's OOM killer may come first", problem=True
        )
    if now.unseen_bytes is not None and now.unseen_bytes > _MUCH_UNSEEN * use.capacity_bytes:
        parts = ", ".join(
            f"{what} {format_bytes(amount)}"
            for what, amount in (
                ("slab", use.slab_bytes),
                ("page tables", use.page_tables_bytes),
                ("huge pages", use.hugetlb_bytes),
            )
            if amount
        )
        text = f"{format_bytes(now.unseen_bytes)} is in use that kubelet's signal does not see: {parts}"
        yield Finding("MemoryUnseen", text)
