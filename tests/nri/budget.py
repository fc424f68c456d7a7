"""An account in memory with a fixed budget, for tests and measurements of those who ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.ledger.gate import Claim, Decision

if TYPE_CHECKING:
    from collections.abc import Collection

MIB = 1 << 20


class Budget:
    """A gate. `committed` never exceeds `budget_bytes`; `asked` has every question."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.claims: dict[str, Claim] = {}
        self.confirmed: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.listed: list[Claim] = []

    @property
    def committed_bytes(self) -> int:
        """What was admitted and not released."""
        return sum(claim.vm_bytes for claim in self.claims.values())

    async def admit(self, claim: Claim) -> Decision:
        """As `extend`."""
        self.asked.append(("admit", claim.sandbox))
        return self._decide(claim)

    async def extend(self, claim: Claim) -> Decision:
        """All or nothing."""
        self.asked.append(("extend", claim.sandbox))
        return self._decide(claim)

    def _decide(self, claim: Claim) -> Decision:
        before = self.claims.get(claim.sandbox)
        needs = max(0, claim.vm_bytes - (before.vm_bytes if before else 0))
        free = self.budget_bytes - self.committed_bytes
        if needs > free:
            text = f"the VM of {claim.pod} needs {needs // MIB}Mi; {max(0, free) // MIB}Mi free of the budget"
            return Decision(
                False,
                "NotEnoughMemory",
                text,
                "end other pods",
                needs_bytes=needs,
                free_bytes=free,
                limited_by="budget",
            )
        self.claims[claim.sandbox] = claim
        return Decision(True, "Fits", "it fits", needs_bytes=needs, free_bytes=free)

    async def confirm(self, sandbox: str) -> None:
        """Notes it."""
        self.asked.append(("confirm", sandbox))
        self.confirmed.add(sandbox)

    async def release(self, sandbox: str) -> None:
        """Gives back; there are no VMs here that would have to exit first."""
        self.asked.append(("release", sandbox))
        self.claims.pop(sandbox, None)

    async def synchronize(self, claims: Collection[Claim]) -> None:
        """What the runtime does not have is given back."""
        self.asked.append(("synchronize", ""))
        self.listed = list(claims)
        listed = {claim.sandbox for claim in claims}
        self.claims = {key: claim for key, claim in self.claims.items() if key in listed}
