"""How much memory may still be promised, and what limits it. Pure; docs/accounting.md has the model.

Free is the least of some terms. Each is a budget, which is what there would be for VMs if none ran and none was promised,
less all commitments. Budgets follow what others do: they fall at once and rise late. Commitments are our own and count at
once, so that a VM that has ended makes room for the next without a pause.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

ALLOCATABLE = "allocatable_memory"
AVAILABLE = "available_memory"
SHARED = "shared_memory"
HUGE = "hugepages"


class Backing(enum.StrEnum):
    """Where a VM's memory lives."""

    ANONYMOUS = "anonymous"
    SHARED = "shm"
    HUGE = "hugepages"


@dataclass(frozen=True, slots=True)
class Need:
    """Memory that a VM takes, in bytes: the VM's own, and the host's processes for it."""

    vm_bytes: int
    overhead_bytes: int
    backing: Backing = Backing.ANONYMOUS

    @property
    def total_bytes(self) -> int:
        """Both."""
        return self.vm_bytes + self.overhead_bytes

    @property
    def by_term(self) -> dict[str, int]:
        """What it takes of each term. Huge pages are set aside already: of other memory such a VM takes the overhead only."""
        ram = self.overhead_bytes if self.backing is Backing.HUGE else self.total_bytes
        taken = {ALLOCATABLE: ram, AVAILABLE: ram}
        if self.backing is Backing.SHARED:
            taken[SHARED] = self.vm_bytes
        elif self.backing is Backing.HUGE:
            taken[HUGE] = self.vm_bytes
        return taken


@dataclass(frozen=True, slots=True)
class Commitment:
    """What is promised to one VM, and how much of it the VM has touched already.

    Attributes:
        need: what is promised.
        resident_bytes: in memory now, VM and processes, what is shared counted once; without huge pages.
        guest_resident_bytes: of the VM's own memory, in /dev/shm or in huge pages, as ``need.backing`` says.
    """

    need: Need
    resident_bytes: int = 0
    guest_resident_bytes: int = 0

    @property
    def touched_by_term(self) -> dict[str, int]:
        """What is touched of what it takes of each term; more than was promised does not count."""
        taken = self.need.by_term
        touched = {AVAILABLE: min(taken[AVAILABLE], self.resident_bytes)}
        for term in (SHARED, HUGE):
            if term in taken:
                touched[term] = min(taken[term], self.guest_resident_bytes)
        return touched


@dataclass(frozen=True, slots=True)
class OtherPod:
    """A pod without a VM, in bytes; ``None`` where it is not known.

    Attributes:
        request_bytes: what its containers request.
        held_bytes: what the kernel cannot take back from it: anonymous, shared, unevictable and unreclaimable kernel memory.
        pod: ``namespace/name``; empty where it is not known.
    """

    request_bytes: int | None
    held_bytes: int | None
    pod: str = ""

    @property
    def claims_bytes(self) -> int:
        """The larger of both: an idle pod may use its request at any moment. Page cache does not count."""
        return max(self.request_bytes or 0, self.held_bytes or 0)


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """A node at a moment, in bytes; ``None`` where it is not known, and then there is no such term.

    Attributes:
        allocatable_bytes: see `capacity.allocatable`.
        available_bytes: the kernel's MemAvailable.
        eviction_bytes: kubelet's hard eviction threshold.
        shared_free_bytes: left in /dev/shm.
        huge_free_bytes: in huge pages that nobody uses.
        others: by uid, pods without a VM.
    """

    allocatable_bytes: int | None
    available_bytes: int | None = None
    eviction_bytes: int = 0
    shared_free_bytes: int | None = None
    huge_free_bytes: int | None = None
    others: Mapping[str, OtherPod] | None = None


def budgets(
    node: NodeMemory, touched: Mapping[str, int], *, share: float, margin_bytes: int
) -> dict[str, int]:
    """Each term's budget in bytes; it may be negative.

    Args:
        node: as it is now.
        touched: Σ of `Commitment.touched_by_term`: what is gone from the node and promised all the same.
        share: of allocatable that may be promised.
        margin_bytes: kept free beyond the eviction threshold.
    """
    found: dict[str, int] = {}
    if node.allocatable_bytes is not None:
        others = sum(pod.claims_bytes for pod in (node.others or {}).values())
        found[ALLOCATABLE] = int(node.allocatable_bytes * share) - others
    if node.available_bytes is not None:
        left = node.available_bytes - node.eviction_bytes - margin_bytes
        found[AVAILABLE] = left + touched.get(AVAILABLE, 0)
    if node.shared_free_bytes is not None:
        found[SHARED] = node.shared_free_bytes + touched.get(SHARED, 0)
    if node.huge_free_bytes is not None:
        found[HUGE] = node.huge_free_bytes + touched.get(HUGE, 0)
    return found


class Window:
    """A figure that falls at once, and rises when the lower one has not been seen for a while: its least value of late."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, value: int, now: float, hold_seconds: float) -> int:
        """Takes what was read now (`time.monotonic`); returns the figure that counts, which is never above it."""
        seen = self._seen
        while seen and seen[-1][1] >= value:
            seen.pop()
        seen.append((now, value))
        while seen[0][0] < now - hold_seconds:
            seen.popleft()
        return seen[0][1]

    def shift(self, amount: int) -> None:
        """What was read included this amount as another's, and it is ours: nothing was ever low for its sake."""
        self._seen = deque((when, value + amount) for when, value in self._seen)


@dataclass(frozen=True, slots=True)
class Room:
    """What is left, by term, in bytes; negative where more is promised than there is.

    Attributes:
        budget: each term's budget, as it counts.
        committed: Σ of what commitments take of each term.
    """

    budget: Mapping[str, int]
    committed: Mapping[str, int]

    @property
    def known(self) -> bool:
        """Whether anything can be said."""
        return ALLOCATABLE in self.budget

    def left(self, term: str) -> int:
        """Of one term."""
        return self.budget[term] - self.committed.get(term, 0)

    def _asked(self, taken: Mapping[str, int]) -> dict[str, int]:
        """Of what is taken, the terms whose budget is known."""
        return {term: amount for term, amount in taken.items() if term in self.budget}

    def least(self, taken: Mapping[str, int]) -> str:
        """The term that limits those who take these amounts: the one of which the fewest would fit."""
        terms = self._asked(taken)
        return min(terms, key=lambda term: self.left(term) / max(1, terms[term]), default=ALLOCATABLE)

    def fits(self, taken: Mapping[str, int]) -> bool:
        """Whether this may be promised on top of what is. Nothing fits where more is promised than there is."""
        return self.known and all(amount <= self.left(term) for term, amount in self._asked(taken).items())

    def count(self, taken: Mapping[str, int]) -> int:
        """How many times this may be promised; 0 for nothing at all."""
        asked = self._asked(taken)
        terms = {term: amount for term, amount in asked.items() if amount > 0}
        if not (self.known and terms) or any(self.left(term) < 0 for term in asked):
            return 0
        return max(0, min(self.left(term) // amount for term, amount in terms.items()))

    def explain(self, term: str) -> str:
        """One line: ``2.1Gi of 23.4Gi allocatable memory``."""
        words = {
            ALLOCATABLE: "allocatable memory without other pods",
            AVAILABLE: "available memory above eviction and margin",
            SHARED: "/dev/shm",  # noqa: S108 - its name
            HUGE: "huge pages",
        }
        left, budget = max(0, self.left(term)), max(0, self.budget[term])
        return f"{format_bytes(left)} free of {format_bytes(budget)} {words[term]}"
