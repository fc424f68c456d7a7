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
        # What pods that hold a device claim beyond what that stands for. As with commitments, its end counts at once.
        self._beyond: dict[str, int] = {}

    @property
    def others_bytes(self) -> int:
        """What pods without a VM claim of the first term, beside what stands for their VMs."""
        return sum(pod.claims_bytes for pod in self._others.values()) + sum(self._beyond.values())

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
        listed, uids = node.others or {}, book.uids
        others = {uid: pod for uid, pod in listed.items() if uid not in uids}
        # A device stands already for the VM of its pod that is still to come, though not for all that the pod may claim.
        waiting = {uid: pod for uid, pod in others.items() if book.stands_for(pod.pod)}
        before, self._others = self._others, {uid: others[uid] for uid in others.keys() - waiting.keys()}
        for uid in before.keys() & listed.keys() - self._others.keys():
            self._shift(before[uid])
        self._beyond = {
            uid: max(0, pod.claims_bytes - book.standing_for(pod.pod).get(ALLOCATABLE, 0))
            for uid, pod in waiting.items()
        }
        seen = budgets(
            replace(node, others=self._others), book.touched, share=share, margin_bytes=margin_bytes
        )
        self._windows = {term: self._windows.get(term) or Window() for term in seen}
        self.by_term = {
            term: self._windows[term].take(value, now, rise_seconds) for term, value in seen.items()
        }
        self._add(-sum(self._beyond.values()))

    def hand_over(self, uid: str) -> None:
        """The pod has a VM from now on: it was counted as another, and is none."""
        if (pod := self._others.pop(uid, None)) is not None:
            self._shift(pod)
        self._add(self._beyond.pop(uid, 0))

    def for_pod(self, uid: str, *, holds_device: bool) -> Mapping[str, int]:
        """As this pod finds them.

        Its own memory, counted among the others', is what its VM is asked for; and what others claim beyond their devices is
        not in the way of one that holds a device itself.
        """
        pod = self._others.get(uid)
        own = pod.claims_bytes if pod is not None else 0
        beyond = sum(self._beyond.values()) if holds_device else self._beyond.get(uid, 0)
        if ALLOCATABLE not in self.by_term:
            return self.by_term
        return self.by_term | {ALLOCATABLE: self.by_term[ALLOCATABLE] + own + beyond}

    def _shift(self, pod: OtherPod) -> None:
        if ALLOCATABLE in self.by_term:
            self._windows[ALLOCATABLE].shift(pod.claims_bytes)
        self._add(pod.claims_bytes)

    def _add(self, amount: int) -> None:
        if ALLOCATABLE in self.by_term:
            self.by_term[ALLOCATABLE] += amount
