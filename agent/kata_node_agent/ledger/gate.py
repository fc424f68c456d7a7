"""What others ask of the account, and what they are told. Nothing is decided here.

A sandbox is known by its id, as the container runtime has it. Every call may be repeated: it then changes nothing and gives
the same answer. Forecasts are of the VM's memory alone; the account adds the host's overhead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Claim:
    """A sandbox that wants memory.

    Attributes:
        sandbox: its id; not empty.
        vm_bytes: the final VM: its memory with all containers that are known; 0 where the VM runs elsewhere.
        pod_uid: of its pod; empty where it is not known.
        pod: ``namespace/name``, the same.
        handler: the runtime's name for it.
        overhead_bytes: of the host's processes; ``None``: what the configuration says.
        pod_fixed_bytes: RuntimeClass ``overhead.podFixed`` of the pod; ``None`` where it is not known.
        limits_bytes: Σ memory limits of its containers, the same.
    """

    sandbox: str
    vm_bytes: int
    pod_uid: str = ""
    pod: str = ""
    handler: str = ""
    overhead_bytes: int | None = None
    pod_fixed_bytes: int | None = None
    limits_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, with its numbers; amounts are bytes.

    Attributes:
        allowed: whether to go on. Also true for what mode ``warn`` lets through.
        reason: stable CamelCase: ``Fits``, ``AlreadyAdmitted``, ``ModeOff``; ``NotEnoughMemory``, ``Draining``,
            ``MemoryPressure``, ``MemoryUnknown``, ``LedgerUnavailable``, ``InvalidClaim``.
        message: one line for the pod's owner: what was asked, what is free, what limits it.
        remedy: what to do about a refusal; empty for none.
        would_refuse: enforce would have refused this.
        needs_bytes: what the claim adds to the commitments.
        free_bytes: what was free before it.
        limited_by: name of the term that is the least; see `capacity.free`.
        committed_bytes: all commitments before it.
    """

    allowed: bool
    reason: str
    message: str
    remedy: str = ""
    would_refuse: bool = False
    needs_bytes: int = 0
    free_bytes: int = 0
    limited_by: str = ""
    committed_bytes: int = 0


class Gate(Protocol):
    """The account, for whoever creates VMs or makes them larger. It never raises and answers within milliseconds."""

    async def admit(self, claim: Claim) -> Decision:
        """A new sandbox, as a whole or not at all. An admission that nobody confirms lapses after the boot grace."""

    async def extend(self, claim: Claim) -> Decision:
        """The VM of a sandbox is to become ``vm_bytes`` in all, never less than before. Admits one that is not known."""

    async def confirm(self, sandbox: str) -> None:
        """The sandbox, or a container of it, exists: its admission does not lapse any more."""

    async def release(self, sandbox: str) -> None:
        """The sandbox ends. Its memory counts until its VMM has exited."""

    async def synchronize(self, claims: Collection[Claim]) -> None:
        """The sandboxes that the runtime has, those that have stopped included, and no others.

        Those that are known are confirmed; the admissions of all others are released. One that is not known is noted with its
        names, and counts only as far as a VM of it runs.
        """
