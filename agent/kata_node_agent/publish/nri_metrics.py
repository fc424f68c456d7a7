"""The container runtime's questions as metrics, made from the status."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kata_node_agent.publish.families import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.families import Metric

_PAST_US = ("undecided", "late", "unanswered", "unseen")


def nri_metrics(nri: agent_pb2.Nri) -> Iterator[Metric]:
    """One scrape of it."""
    yield GaugeMetricFamily(
        "kata_node_agent_nri_connected",
        "1 while the container runtime asks before it creates VMs.",
        value=float(nri.connected),
    )
    yield CounterMetricFamily(
        "kata_node_agent_nri_synchronizations",
        "How often a runtime has told all that it has, since the agent started.",
        value=nri.synchronizations,
    )
    yield GaugeMetricFamily("kata_node_agent_nri_pods", "Kata pods that the runtime has.", value=nri.pods)
    decisions = CounterMetricFamily(
        "kata_node_agent_nri_decisions",
        "Answers about VMs, by what was asked and how it ended.",
        labels=["question", "outcome"],
    )
    for decision in nri.decisions:
        decisions.add_metric([decision.question, decision.outcome], decision.count)
    yield decisions
    past = CounterMetricFamily(
        "kata_node_agent_nri_let_through",
        "Pods and containers of Kata's that went on without a decision.",
        labels=["how"],
    )
    for how in _PAST_US:
        past.add_metric([how], getattr(nri, how))
    yield past
    answers = [(_bound(each.up_to_seconds), each.count) for each in nri.answers]
    yield HistogramMetricFamily(
        "kata_node_agent_nri_answer_seconds",
        "Time to answer the runtime, of all pods' questions.",
        buckets=answers or [(_bound(math.inf), 0)],
        sum_value=nri.answers_seconds_sum,
    )


def _bound(seconds: float) -> str:
    """As the text format has it."""
    return "+Inf" if math.isinf(seconds) else str(seconds)
