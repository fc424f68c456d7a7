"""Is systemReserved right: what this node used outside of pods, beside what OpenShift's formulas would reserve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.advice.openshift import newer_bytes, newer_millicores, older_bytes
from kata_node_agent.advice.span import MIN_RECORDS, duration, percentiles, until_enough
from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import Form, format_bytes, format_quantity

if TYPE_CHECKING:
    from kata_node_agent.series import Observed

_MIB = 1 << 20
# Ours: room for what four weeks did not show, and a figure that a person would write.
_HEADROOM = 1.1
_STEP_BYTES = 128 * _MIB
# Below this a maximum says little: a node's backups and updates come by the day.
_ENOUGH_SECONDS = 24 * 3600.0
_LONG_SECONDS = 7 * 24 * 3600.0
# More than so many times the need, and more than so much, is worth taking back.
_WASTE_FACTOR = 2
_WASTE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Advice:
    """What to change, why, and the lines to write."""

    reason: str
    message: str
    why: str
    setting: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set now.

    Attributes:
        capacity_bytes: the node's memory.
        cpus: its CPUs; ``None`` where not known.
        reserved_bytes: systemReserved and kubeReserved together.
        kube_reserved_bytes: of these, kubeReserved.
        origin: where systemReserved comes from.
        openshift: whether OpenShift's operator owns kubelet's settings.
    """

    capacity_bytes: int
    cpus: int | None
    reserved_bytes: int
    kube_reserved_bytes: int
    origin: str
    openshift: bool


def advise(now: Reservation, outside: Observed | None) -> tuple[Advice, ...]:
    """Advice about systemReserved.

    Args:
        now: the present settings.
        outside: working set of all that is no pod; ``None`` without a history.
    """
    formulas = (
        f"OpenShift's automatic sizing would reserve {format_bytes(newer_bytes(now.capacity_bytes))} (since 4.22) or "
        f"{format_bytes(older_bytes(now.capacity_bytes))} (before)"
        + (f" and {newer_millicores(now.cpus)}m CPU" if now.cpus is not None else "")
    )
    if outside is None:
        if now.reserved_bytes:
            return ()
        # Without any reservation every formula is better than nothing.
        return (
            Advice(
                "NothingReserved",
                f"reserve {format_bytes(newer_bytes(now.capacity_bytes))} for the system: nothing is reserved",
                f"pods may take all memory, and the system's own use then gets them killed; {formulas}; "
                "there is no history of this node yet: run the agent for a day to have its own figures",
                _setting(now, newer_bytes(now.capacity_bytes)),
            ),
        )
    seconds = outside.seconds
    seen = f"in {duration(seconds)} the use outside of pods was {percentiles(outside)}; {formulas}"
    if outside.records < MIN_RECORDS:
        return (
            Advice(
                "HistoryTooShort",
                f"no advice about the reservation of {format_bytes(now.reserved_bytes)} ({now.origin}) yet: "
                f"{until_enough(outside)}",
                seen,
                "",
            ),
        )
    need = -(-int(outside.max * _HEADROOM) // _STEP_BYTES) * _STEP_BYTES
    if seconds < _ENOUGH_SECONDS:
        seen += f"; {duration(seconds)} is little: look again after a day"
    if now.reserved_bytes < outside.max:
        return (
            Advice(
                "ReserveMore",
                f"raise the reservation from {format_bytes(now.reserved_bytes)} ({now.origin}) to {format_bytes(need)}",
                f"{seen}; {format_bytes(need)} is the highest with a tenth on top",
                _setting(now, need),
            ),
        )
    if (
        seconds >= _LONG_SECONDS
        and now.reserved_bytes > _WASTE_FACTOR * need
        and now.reserved_bytes > need + _WASTE_BYTES
    ):
        spare = format_bytes(now.reserved_bytes - need)
        return (
            Advice(
                "ReserveLess",
                f"the reservation of {format_bytes(now.reserved_bytes)} ({now.origin}) may be lowered to "
                f"{format_bytes(need)}: {spare} more for pods",
                seen,
                _setting(now, need),
            ),
        )
    return (
        Advice("ReservationFits", f"keep the reservation of {format_bytes(now.reserved_bytes)}", seen, ""),
    )


def _setting(now: Reservation, need_bytes: int) -> str:
    """The lines that reserve so much in all. Kubelet reads them at a start only."""
    amount = format_quantity(max(0, need_bytes - now.kube_reserved_bytes), Form.BINARY_SI)
    if now.openshift:
        return (
            "# oc apply -f this; the operator restarts the pool's nodes one after another\n"
            "apiVersion: machineconfiguration.openshift.io/v1\n"
            "kind: KubeletConfig\n"
            "metadata:\n"
            "  name: system-reserved\n"
            "spec:\n"
            "  autoSizingReserved: false\n"
            "  machineConfigPoolSelector:\n"
            "    matchLabels:\n"
            '      pools.operator.machineconfiguration.openshift.io/worker: ""\n'
            "  kubeletConfig:\n"
            "    systemReserved:\n"
            f"      memory: {amount}"
        )
    return (
        "# in kubelet's configuration file; then restart kubelet\n"
        "apiVersion: kubelet.config.k8s.io/v1beta1\n"
        "kind: KubeletConfiguration\n"
        "systemReserved:\n"
        f"  memory: {amount}"
    )
