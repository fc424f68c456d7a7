"""The account as metrics, made from the status: what is promised, what is left, and how it was decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.publish.families import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.families import Metric

_MODES = ("enforce", "warn", "off")
# Why a node takes no new VM, and beside these what keeps the number of slots where it is.
_CLOSED = ("starting", "draining", "memory_pressure", "ledger", "vms_unseen")
_LIMITS = (
    *("allocatable_memory", "available_memory", "shared_memory", "hugepages", "max_slots"),
    *("eligibility", "memory_unreadable"),
    *_CLOSED,
)


def account_metrics(status: agent_pb2.Status) -> Iterator[Metric]:
    """One scrape of it."""
    account = status.account
    yield one_of("kata_node_agent_mode", "1 for the mode in force.", "mode", _MODES, status.mode)
    yield one_of(
        "kata_node_agent_limited_by",
        "1 for what keeps the number of slots from being higher.",
        "limit",
        _LIMITS,
        status.slots.limited_by,
    )
    yield one_of(
        "kata_node_agent_closed", "1 for why no new VM is taken.", "reason", _CLOSED, account.closed_by
    )
    yield GaugeMetricFamily(
        "kata_node_agent_draining", "1 while closed by command or configuration.", value=account.draining
    )
    for part, about in (
        ("budget", "What there would be if no VM was promised anything, by term."),
        ("committed", "What VMs take of it, by term."),
        ("free", "What is left, by term; below 0 more is promised than there is."),
    ):
        family = GaugeMetricFamily(f"kata_node_agent_account_{part}_bytes", about, labels=["term"])
        for term in account.terms:
            family.add_metric([term.name], getattr(term, f"{part}_bytes"))
        yield family
    for name, about, value in (
        ("account_sandboxes", "VMs that commit something.", account.sandboxes),
        ("account_devices", "Devices that pods hold.", account.devices),
        ("account_share_ratio", "Share of allocatable memory that may be promised.", account.share),
        (
            "account_other_pods_bytes",
            "Allocatable memory that pods without a VM claim.",
            account.other_pods_bytes,
        ),
    ):
        yield GaugeMetricFamily(f"kata_node_agent_{name}", about, value=value)
    decisions = CounterMetricFamily(
        "kata_node_agent_account_decisions",
        "Answers of the account, by what was asked and how it ended.",
        labels=["question", "outcome"],
    )
    for decision in account.decisions:
        decisions.add_metric([decision.question, decision.outcome], decision.count)
    yield decisions


def one_of(name: str, about: str, label: str, values: Iterable[str], value: str) -> GaugeMetricFamily:
    """A series for each value that is possible: 1 for the one in force, which may be none or one that is not among them."""
    family = GaugeMetricFamily(name, about, labels=[label])
    known = list(values)
    for each in known if value in known or not value else [*known, value]:
        family.add_metric([each], float(each == value))
    return family
