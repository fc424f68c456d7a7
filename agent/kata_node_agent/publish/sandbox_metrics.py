"""The sandboxes as metrics: sums for the node, and where it is wanted series of each. What is not known is not there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kata_node_agent.publish.families import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kata_node_agent.publish.families import Metric

_KINDS = ("vm_memory", "hotplugged", "resident", "host_overhead", "commitment")
_COSTS = ("guest", "rss_sum")


def sandbox_metrics(document: Mapping[str, Any], *, each: bool) -> Iterator[Metric]:
    """Metrics of the document of `sandboxes --format json`.

    Args:
        document: all sandboxes.
        each: also series for each sandbox; a sandbox's id is a label of them.
    """
    sandboxes = document["sandboxes"]
    count = GaugeMetricFamily("kata_node_agent_sandboxes", "Kata VMs that run.", labels=["vmm"])
    for vmm, number in sorted(Counter(sandbox["vmm"] for sandbox in sandboxes).items()):
        count.add_metric([vmm], number)
    yield count
    sums = GaugeMetricFamily(
        "kata_node_agent_sandboxes_bytes", "Memory of all Kata VMs, each page counted once.", labels=["kind"]
    )
    totals: Counter[str] = Counter(dict.fromkeys((*_KINDS, *_COSTS), 0))
    for sandbox in sandboxes:
        totals.update(_amounts(sandbox))
    for kind in (*_KINDS, *_COSTS):
        sums.add_metric([kind], totals[kind])
    yield sums
    risks = GaugeMetricFamily(
        "kata_node_agent_sandboxes_at_risk", "Kata VMs that a risk threatens.", labels=["reason"]
    )
    reasons = Counter(reason for sandbox in sandboxes for reason in _reasons(sandbox))
    for reason, number in sorted(reasons.items()):
        risks.add_metric([reason], number)
    yield risks
    yield GaugeMetricFamily(
        "kata_node_agent_sandboxes_unbelieved",
        "Processes that claim to belong to a sandbox, without evidence.",
        value=float(len(document["unbelieved"])),
    )
    if each:
        yield from _each(sandboxes)


def _each(sandboxes: list[Mapping[str, Any]]) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "kata_node_agent_sandbox_bytes", "Memory of one Kata VM.", labels=["sandbox", "pod", "kind"]
    )
    risks = GaugeMetricFamily(
        "kata_node_agent_sandbox_risk", "1 for each risk of one Kata VM.", labels=["sandbox", "pod", "reason"]
    )
    for sandbox in sandboxes:
        who = [sandbox["id"], sandbox["pod"] or ""]
        charge = sandbox["charge"] or {"bytes": None, "limit_bytes": None}
        amounts = _amounts(sandbox) | {"charge": charge["bytes"], "limit": charge["limit_bytes"]}
        for kind, amount in amounts.items():
            if amount is not None:
                memory.add_metric([*who, kind], amount)
        for reason in _reasons(sandbox):
            risks.add_metric([*who, reason], 1)
    yield memory
    yield risks


def _amounts(sandbox: Mapping[str, Any]) -> dict[str, int]:
    cost = sandbox["cost"] or {}
    found = {kind: sandbox[f"{kind}_bytes"] for kind in _KINDS}
    found |= {kind: cost.get(f"{kind}_bytes") for kind in _COSTS}
    return {kind: amount for kind, amount in found.items() if amount is not None}


def _reasons(sandbox: Mapping[str, Any]) -> list[str]:
    return sorted({risk["reason"] for risk in sandbox["risks"]})
