"""What there would be for VMs if none ran and none was promised, as it counts: falling at once, rising late. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import ALLOCATABLE, Window, budgets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.capacity.free import NodeMemory, OtherPod
    from kata_node_agent.ledger.book import Book


class Budgets:
    """Each term's budget, held back, and the pods without a VM that are counted against it.

    Attributes:
        by_term: in bytes; may be negative.
    """

    def __init__(self) -> None:
        self.by_term: dict[str, int] = {}
        self._windows: dict[str, Window] = {}
        self._others: dict[str, OtherPod] = {}

    @property
    def others_bytes(self) -> int:
        """What pods without a VM claim of the first term."""
        return sum(pod.claims_bytes for pod in self._others.values())

    def take(
        self,
        node: NodeMemory,
        book: Book,
        now: float,
        *,
        share: float,
        margin_bytes: int,
        rise_seconds: float,
    ) -> None:
        """The node's memory as it is now; see `Account.take_memory`."""
        uids, others = book.uids, node.others or {}
        before, self._others = (
            self._others,
            {
                # A device stands already for the VM of its pod that is still to come.
                uid: pod
                for uid, pod in others.items()
                if uid not in uids and not book.stands_for(pod.pod)
            },
        )
        for uid in before.keys() & others.keys() - self._others.keys():
            self._shift(before[uid])
        seen = budgets(
            replace(node, others=self._others), book.touched, share=share, margin_bytes=margin_bytes
        )
        self._windows = {term: self._windows.get(term) or Window() for term in seen}
        self.by_term = {
            term: self._windows[term].take(value, now, rise_seconds) for term, value in seen.items()
        }

    def hand_over(self, uid: str) -> None:
        """The pod has a VM from now on: it was counted as another, and is none."""
        if (pod := self._others.pop(uid, None)) is not None:
            self._shift(pod)

    def for_pod(self, uid: str) -> Mapping[str, int]:
        """As this pod finds them: its own memory, counted among the others', is what its VM is asked for."""
        pod = self._others.get(uid)
        if pod is None or ALLOCATABLE not in self.by_term:
            return self.by_term
        return self.by_term | {ALLOCATABLE: self.by_term[ALLOCATABLE] + pod.claims_bytes}

    def _shift(self, pod: OtherPod) -> None:
        if ALLOCATABLE in self.by_term:
            self.by_term[ALLOCATABLE] += pod.claims_bytes
            self._windows[ALLOCATABLE].shift(pod.claims_bytes)
