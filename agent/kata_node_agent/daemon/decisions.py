"""How the account has decided since the agent started: counts, for whoever watches the node from afar."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kata_node_agent.pb import agent_pb2 as pb

if TYPE_CHECKING:
    from kata_node_agent.ledger.gate import Decision

QUESTIONS = ("admit", "extend", "allocate")
OUTCOMES = ("allowed", "refused", "would_refuse")


class DecisionCounts:
    """Counts answers, by what was asked and how it ended."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self, question: str, decision: Decision) -> Decision:
        """Counts one, and gives it back."""
        outcome = (
            "refused" if not decision.allowed else "would_refuse" if decision.would_refuse else "allowed"
        )
        self._counts[question, outcome] += 1
        return decision

    def messages(self) -> list[pb.DecisionCount]:
        """All of them, zeros included: a rate needs the zero before the first."""
        return [
            pb.DecisionCount(question=question, outcome=outcome, count=self._counts[question, outcome])
            for question in QUESTIONS
            for outcome in OUTCOMES
        ]
