"""What was asked, answered and missed, in numbers that only grow: for status and metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import field

from kata_node_agent.dataclass import dataclass

# Upper bounds in seconds; what is beyond the last one counts in the sum alone.
BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0)


@dataclass(slots=True)
class Tally:
    """Counts since the agent started.

    Attributes:
        decisions: by question (``admit``, ``extend``) and outcome: ``allowed``, ``refused``, ``would_refuse`` (mode warn),
            ``undecided_allowed``, ``undecided_refused`` (the account did not answer in time).
        requests: answered, by method; of other pods than ours too.
        latency: answers up to each of `BUCKETS_SECONDS`, and one count beyond; not cumulative.
        latency_sum_seconds: over all answers.
        late: decisions that came after the runtime had given up on them.
        unanswered: the runtime hung up while it waited for an answer about a pod of ours.
        unseen: pods of ours that the runtime has and that it did not ask about.
    """

    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    latency: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    latency_sum_seconds: float = 0.0
    late: int = 0
    unanswered: int = 0
    unseen: int = 0

    def answered(self, method: str, seconds: float) -> None:
        """An answer was given so long after the request arrived."""
        self.requests[method] += 1
        self.latency[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.latency_sum_seconds += seconds

    @property
    def undecided(self) -> int:
        """Let through, as the account did not answer in time."""
        return sum(count for (_, outcome), count in self.decisions.items() if outcome == "undecided_allowed")

    @property
    def let_through(self) -> int:
        """Pods and containers of ours that went on without a decision of the account."""
        return self.undecided + self.late + self.unanswered + self.unseen
