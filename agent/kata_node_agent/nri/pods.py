"""What each event means for the account: which question to ask, and what is known of the pod once the answer is yes. Pure.

A pod is forecast as a whole when its sandbox is run. What comes later only confirms that, unless it makes the VM larger than
what was asked for: a pod whose limits the runtime was not told, an ephemeral container, a resize.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import field, replace
from typing import TYPE_CHECKING, Literal

from kata_node_agent.dataclass import dataclass
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.nri.facts import Container, Limits, Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

# The final memory in bytes of the VM of a sandbox with these containers; what it was granted already, where that is known.
# 0 for a VM that is not on this node.
Size = Callable[[Sandbox, Collection[Container], int | None], int]
Question = Literal["admit", "extend", "confirm"]


@dataclass(frozen=True, slots=True)
class Known:
    """A pod of ours.

    Attributes:
        sandbox: as the runtime has it now.
        granted_bytes: what of memory for its VM the account has said yes to; ``None`` where we did not hear it.
        containers: those that were let through and have not stopped, by id.
    """

    sandbox: Sandbox
    granted_bytes: int | None = None
    containers: Mapping[str, Container] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A question for the account, and what is known if it says yes."""

    question: Question
    claim: Claim
    then: Known


def run_sandbox(sandbox: Sandbox, size: Size) -> Step:
    """RunPodSandbox: the whole pod, or nothing."""
    claim = claim_of(Known(sandbox), size)
    return Step("admit", claim, Known(sandbox, claim.vm_bytes))


def create_container(known: Known, container: Container, size: Size) -> Step:
    """CreateContainer: within what was granted, or a larger VM. One of the same name is the same one, started again."""
    others = {key: other for key, other in known.containers.items() if other.name != container.name}
    return _grown(replace(known, containers={**others, container.id: container}), size)


def update_container(known: Known, container: Container, wanted: Limits, size: Size) -> Step | None:
    """UpdateContainer; ``None`` where it is not about memory."""
    before = known.containers.get(container.id, container)
    if wanted.memory_bytes is None or wanted.memory_bytes == before.limits.memory_bytes:
        return None
    after = replace(before, limits=replace(before.limits, memory_bytes=wanted.memory_bytes))
    return _grown(replace(known, containers={**known.containers, container.id: after}), size)


def update_sandbox(known: Known, wanted: Limits, size: Size) -> Step | None:
    """UpdatePodSandbox: other limits for the pod as a whole; ``None`` where it is not about memory."""
    limits = known.sandbox.limits
    if wanted.memory_bytes is None or wanted.memory_bytes == limits.memory_bytes:
        return None
    sandbox = replace(known.sandbox, limits=replace(limits, memory_bytes=wanted.memory_bytes))
    return _grown(replace(known, sandbox=sandbox), size)


def without_container(known: Known, container: str) -> Known:
    """One has stopped, or never was. What its VM was granted stays: a VM does not shrink by it."""
    return replace(known, containers={key: c for key, c in known.containers.items() if key != container})


def claim_of(known: Known, size: Size) -> Claim:
    """What the pod wants, as far as it is known."""
    sandbox = known.sandbox
    return Claim(
        sandbox=sandbox.id,
        vm_bytes=size(sandbox, tuple(known.containers.values()), known.granted_bytes),
        pod_uid=sandbox.uid,
        pod=sandbox.pod,
        handler=sandbox.handler,
        pod_fixed_bytes=sandbox.overhead_bytes,
        # Kubelet tells both or none: without any limit the sum is 0.
        limits_bytes=sandbox.limits.memory_bytes or (0 if sandbox.overhead_bytes is not None else None),
    )


def _grown(known: Known, size: Size) -> Step:
    claim = claim_of(known, size)
    if known.granted_bytes is not None and claim.vm_bytes <= known.granted_bytes:
        return Step("confirm", claim, known)
    return Step("extend", claim, replace(known, granted_bytes=claim.vm_bytes))
