"""Where the agent can say no to a VM on this node, as `status` tells it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_node_agent.pb import agent_pb2

AT_KUBELET = ("devices", "allocate")
AT_RUNTIME = ("sandbox", "container")


@dataclass(frozen=True, slots=True)
class Gate:
    """One place.

    Attributes:
        name: ``devices`` (scheduling), ``allocate`` (a pod's admission), ``sandbox`` and ``container`` (the runtime asks).
        there: whether anybody asks there now.
        why_not: why nobody does; empty where somebody does.
    """

    name: str
    there: bool
    why_not: str = ""


def gates(status: agent_pb2.Status) -> tuple[Gate, ...]:
    """All places, the gentlest first."""
    kubelet, nri = status.kubelet, status.nri
    at_kubelet = kubelet.registered and kubelet.stream_open
    why_not_there = "" if at_kubelet else kubelet.last_error or "not registered with kubelet"
    why_not_nri = "" if nri.connected else nri.last_error or nri.state or "off"
    return (
        *(Gate(name, at_kubelet, why_not_there) for name in AT_KUBELET),
        *(Gate(name, nri.connected, why_not_nri) for name in AT_RUNTIME),
    )


def gates_line(status: agent_pb2.Status) -> str:
    """The same as one line: what stands, what does not, and what that means."""
    found = {gate.name: gate for gate in gates(status)}
    devices, sandbox = found["devices"], found["sandbox"]
    # Why not is a problem, which `status` begins with.
    parts = [
        "devices and Allocate at kubelet" if devices.there else "none at kubelet: not registered with it"
    ]
    if sandbox.there:
        parts.append("sandboxes, containers and resizes at the runtime")
    else:
        parts.append(f"none at the runtime ({sandbox.why_not}): a pod without a device is only counted")
    if status.mode in {"warn", "off"} and (devices.there or sandbox.there):
        parts.append(f"mode {status.mode}: pods are not refused")
    return "gates      " + "; ".join(parts)
