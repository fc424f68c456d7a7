"""Is podFixed right: what VMs of a handler have beyond their containers' limits, and what runs beside them. Pure.

The scheduler adds a RuntimeClass' ``overhead.podFixed`` to the containers' requests, and kubelet adds it to the limit of the
pod's cgroup. So it has to cover all that is no container's: the VM's memory beyond the limits, and the host's processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.advice.span import MIN_RECORDS, duration, percentiles, until_enough
from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from kata_node_agent.series import Observed

_MIB = 1 << 20
# Ours: room for what the history did not show, and a figure that a person would write.
_HEADROOM = 1.1
_STEP_BYTES = 16 * _MIB
_STEP_MILLICORES = 50
# Below this a percentile says little: the busy hour of a day is not in it.
_ENOUGH_SECONDS = 24 * 3600.0
# More than the need by so much is worth taking back.
_WASTE_BYTES = 128 * _MIB


@dataclass(frozen=True, slots=True)
class HandlerUse:
    """A handler, what it is set to and what was seen of its sandboxes on this node. Amounts are bytes and millicores.

    Attributes:
        name: of the handler.
        runs_here: whether its VMs are on this node; of kata-remote only the shim is.
        beyond_bytes: memory that a VM has by its settings beyond its containers' limits.
        beyond_setting: the setting that says so.
        running: the podFixed of each of its sandboxes that shows it; a class that was changed leaves older pods as they are.
        pod_fixed_bytes, pod_fixed_millicores: the podFixed of its newest pod; ``None`` where no pod shows it.
        host_overhead: history of what a sandbox costs beside its guest's memory, of the largest one each time.
        beyond: history of what VMs had beyond their limits, of the largest one each time.
        host_millicores: history of the CPU that its host processes used, vCPUs left out, of the busiest one each time.
        default_overhead_bytes: host overhead without a history.
        openshift: whether an operator owns the RuntimeClass.
    """

    name: str
    runs_here: bool = True
    beyond_bytes: int = 0
    beyond_setting: str = "default_memory"
    running: tuple[int, ...] = ()
    pod_fixed_bytes: int | None = None
    pod_fixed_millicores: int | None = None
    host_overhead: Observed | None = None
    beyond: Observed | None = None
    host_millicores: Observed | None = None
    default_overhead_bytes: int = 60 * _MIB
    openshift: bool = False


@dataclass(frozen=True, slots=True)
class OverheadAdvice:
    """What podFixed of a handler should be.

    Attributes:
        handler: its name.
        reason: ``RaisePodFixed``, ``LowerPodFixed``, ``PodFixedFits`` or ``PodFixedNotSeen``.
        message: what to do, in one line.
        why: what was seen, and what the present value costs.
        need_bytes, need_millicores: what podFixed should be; no CPU where none was measured.
        current_bytes, current_millicores: what it is.
        uncounted_bytes: of all sandboxes that run, what the scheduler does not know of.
        wasted_bytes: of all sandboxes that run, what is reserved and not needed.
        setting: the RuntimeClass to apply; empty where there is nothing to change.
    """

    handler: str
    reason: str
    message: str
    why: str
    need_bytes: int
    need_millicores: int | None
    current_bytes: int | None
    current_millicores: int | None
    uncounted_bytes: int
    wasted_bytes: int
    setting: str


def advise_overhead(use: HandlerUse) -> OverheadAdvice:
    """What podFixed of one handler should be, and what its present value costs."""
    beside = use.default_overhead_bytes
    if use.host_overhead is not None:
        # Little history can show that what is assumed is too low, not that it is too high.
        beside = use.host_overhead.p99 if _enough(use.host_overhead) else max(beside, use.host_overhead.max)
    beyond = use.beyond_bytes if use.runs_here else 0
    if use.runs_here and use.beyond is not None:
        # Blocks are rounded up, and what an init container was given stays.
        beyond = max(beyond, use.beyond.p99)
    covered = beyond + beside
    need = _up(beyond + int(beside * _HEADROOM), _STEP_BYTES)
    millicores = None
    if use.host_millicores is not None and _enough(use.host_millicores):
        millicores = _up(max(1, int(use.host_millicores.p99 * _HEADROOM)), _STEP_MILLICORES)
    current = use.pod_fixed_bytes
    uncounted = sum(max(0, covered - each) for each in use.running)
    wasted = sum(max(0, each - need) for each in use.running)
    number = len(use.running)
    have = f"podFixed of handler {use.name}"
    why = [_seen(use, beyond, beside)]
    if current is None:
        reason, message = "PodFixedNotSeen", f"set {have} to {_mib(need)}"
        why.append("no pod of it on this node shows its podFixed")
    elif current < covered:
        reason, message = "RaisePodFixed", f"raise {have} from {_mib(current)} to {_mib(need)}"
        why.append(
            f"of each pod the scheduler does not know of {format_bytes(covered - current)}"
            + (f", of the {number} that run of {format_bytes(uncounted)}" if number else "")
            + "; a pod whose containers all have limits is killed that much before its VM is full"
        )
        if use.beyond_setting == "default_memory" and use.runs_here:
            why.append("each MiB less of default_memory is one less to reserve")
    elif current > need + _WASTE_BYTES:
        reason, message = "LowerPodFixed", f"lower {have} from {_mib(current)} to {_mib(need)}"
        why.append(
            f"each pod reserves {format_bytes(current - need)} that it does not need"
            + (f", the {number} that run {format_bytes(wasted)}" if number else "")
        )
    else:
        reason, message = "PodFixedFits", f"keep {have} at {_mib(current)}"
    return OverheadAdvice(
        handler=use.name,
        reason=reason,
        message=message,
        why="; ".join(why),
        need_bytes=need,
        need_millicores=millicores,
        current_bytes=current,
        current_millicores=use.pod_fixed_millicores,
        uncounted_bytes=uncounted,
        wasted_bytes=wasted,
        setting="" if reason == "PodFixedFits" else runtime_class(use, need, millicores),
    )


def runtime_class(use: HandlerUse, memory_bytes: int, millicores: int | None) -> str:
    """The RuntimeClass, as YAML. Its overhead may be changed in place; pods that run keep what they were admitted with."""
    cpu = millicores if millicores is not None else use.pod_fixed_millicores
    owner = (
        "# the operator owns the class that it made: give this one a name of its own\n"
        if use.openshift
        else ""
    )
    name = f"{use.name}-measured" if use.openshift else use.name
    return (
        f"# kubectl apply -f this; new pods have it\n{owner}"
        "apiVersion: node.k8s.io/v1\n"
        "kind: RuntimeClass\n"
        "metadata:\n"
        f"  name: {name}\n"
        f"handler: {use.name}\n"
        "overhead:\n"
        "  podFixed:\n"
        f"    memory: {_mib(memory_bytes)}" + (f"\n    cpu: {cpu}m" if cpu is not None else "")
    )


def _seen(use: HandlerUse, beyond: int, beside: int) -> str:
    if not use.runs_here:
        vm = "its VMs are not on this node"
    elif beyond > use.beyond_bytes:
        rank = "p99; " if use.beyond is not None and _enough(use.beyond) else ""
        vm = f"VMs had up to {format_bytes(beyond)} beyond their containers' limits ({rank}{use.beyond_setting} alone "
        vm += f"is {format_bytes(use.beyond_bytes)})"
    else:
        vm = f"a VM has {format_bytes(beyond)} beyond its containers' limits ({use.beyond_setting})"
    seen = use.host_overhead
    if seen is None:
        return f"{vm}; {format_bytes(beside)} for the host's processes is assumed: no sandbox of it was measured yet"
    seconds = seen.seconds
    text = f"{vm}; in {duration(seconds)} the host's processes of a sandbox used {percentiles(seen)}"
    if use.host_millicores is not None and _enough(use.host_millicores):
        text += f", and p99 {use.host_millicores.p99}m of CPU"
    if not _enough(seen):
        assumed = (
            "is assumed" if beside == use.default_overhead_bytes else "counts, which is more than is assumed"
        )
        return f"{text}; {format_bytes(beside)} {assumed}: {until_enough(seen)}"
    if seconds < _ENOUGH_SECONDS:
        text += f"; {duration(seconds)} is little: look again after a day"
    return text


def _enough(seen: Observed) -> bool:
    return seen.records >= MIN_RECORDS


def _up(amount: int, step: int) -> int:
    return -(-amount // step) * step


def _mib(amount: int) -> str:
    """As it is written in YAML: whole MiB where it is that."""
    return f"{amount // _MIB}Mi" if amount % _MIB == 0 else str(amount)
