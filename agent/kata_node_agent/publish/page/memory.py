"""The node's memory on the page: what pods may have, and who has it; what is promised of each term; how it comes about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.publish.page.markup import Markup, bar, code, complaint, section, table, tag, together
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kata_node_agent.pb import agent_pb2

ALLOCATABLE = "allocatable_memory"
_MAX_FINDINGS = 20


def memory(status: agent_pb2.Status | None, report: Mapping[str, Any] | None) -> Markup:
    """The section.

    Args:
        status: of the agent; ``None`` where it did not answer.
        report: the document of `report`, the same.
    """
    account = status.account if status is not None else None
    term = next((term for term in account.terms if term.name == ALLOCATABLE), None) if account else None
    parts: list[Markup] = []
    if status is None or account is None or term is None or not status.memory.allocatable_bytes:
        parts.append(tag("p", "How much memory pods may have is not known yet.", class_="quiet"))
    else:
        parts += _bar(status, term)
    if account is not None and account.terms:
        parts.append(_terms(account))
    if report is not None:
        parts += [_sum(report), *_findings(report)]
    return section("Memory", *parts)


def _bar(status: agent_pb2.Status, term: agent_pb2.Term) -> Iterator[Markup]:
    """Allocatable memory: promised to VMs, claimed by other pods, held back, free."""
    account, allocatable = status.account, status.memory.allocatable_bytes
    whole = int(allocatable * (account.share or 1.0))
    others, free = account.other_pods_bytes, max(0, term.free_bytes)
    held = max(0, whole - term.committed_bytes - others - free)
    amounts = [
        ("own", term.committed_bytes, "promised to VMs"),
        ("other", others, "claimed by other pods"),
        ("held", held, "held back: others left it a moment ago"),
        ("room", free, "free"),
    ]
    drawn = [(kind, amount, words) for kind, amount, words in amounts if amount or kind != "held"]
    width = max(whole, term.committed_bytes + others, 1)
    if whole == allocatable:
        caption = [tag("strong", format_bytes(whole)), " may be requested by pods (allocatable)"]
    else:
        caption = [
            *(
                tag("strong", format_bytes(whole)),
                f" may be promised: {format_bytes(allocatable)} allocatable ",
            ),
            f"× {account.share:g}",
        ]
    yield tag("p", *caption)
    yield bar([(kind, amount) for kind, amount, _ in drawn], width, mark=whole if width > whole else None)
    yield tag("ul", *(_key(*each, width) for each in drawn), class_="key")
    if account.limited_by != term.name and account.free_bytes < term.free_bytes:
        yield tag(
            "p",
            *("Of what is free, VMs may have ", tag("strong", format_bytes(account.free_bytes)), ": "),
            *(code(account.limited_by), " limits them."),
        )
    if term.free_bytes < 0:
        yield tag(
            "p",
            tag("strong", f"{format_bytes(-term.free_bytes)} more", class_="bad"),
            " is promised and claimed than there is; the line in the bar is where it ends.",
        )


def _key(kind: str, amount: int, words: str, whole: int) -> Markup:
    swatch = bar([(kind, 1)], 1)
    percent = f"{amount / whole * 100:.0f} %"
    return tag(
        "li",
        swatch,
        tag(
            "span", tag("strong", format_bytes(amount)), f" {words} ", tag("span", percent, class_="quiet w")
        ),
    )


def _terms(account: agent_pb2.Account) -> Markup:
    """What limits one more VM: the terms of `status`, the one that is the least marked."""
    rows: list[Sequence[str]] = []
    for term in sorted(account.terms, key=lambda term: term.name != account.limited_by):
        if not (term.budget_bytes or term.committed_bytes):
            continue
        limits = (
            together(" ", tag("span", "limits", class_="tag warn"))
            if term.name == account.limited_by
            else None
        )
        amounts = (term.budget_bytes, term.committed_bytes, term.free_bytes)
        rows.append([together(code(term.name), limits), *map(format_bytes, amounts)])
    head = ["limit", "for VMs", "promised", "free"]
    return table("What may be promised to VMs, by each limit", head, rows, numbers=3)


def _sum(report: Mapping[str, Any]) -> Markup:
    """How allocatable comes about, and what is used of what is kept from pods."""
    capacity, reserved, usage = report["capacity"], report["reserved"], report["usage"]
    huge = capacity.get("hugepages_bytes")
    system = usage["system"] or {}
    rows: list[Sequence[str | None]] = [
        ["capacity", size(capacity["memory_bytes"])],
        ["− system-reserved", size(reserved["system"]["memory_bytes"])],
        ["− kube-reserved", size(reserved["kube"]["memory_bytes"])],
        ["− eviction threshold", size(report["eviction_hard"]["memory_available_bytes"])],
        *([["− huge pages", size(huge)]] if huge else []),
        ["= allocatable", size(report["allocatable"]["memory_bytes"])],
        ["in use by the system", size(system.get("working_set_bytes"))],
        ["until kubelet evicts", size(report["available"]["until_eviction_bytes"])],
    ]
    return tag(
        "details",
        tag("summary", "How allocatable comes about"),
        table("Memory of the node", ["part", "amount"], rows, numbers=1),
    )


def _findings(report: Mapping[str, Any]) -> Iterator[Markup]:
    found = [finding for finding in report["findings"] if finding["problem"]]
    if not found:
        return
    items = (
        complaint(each["reason"], each["message"], each["remedy"], kind="warn")
        for each in found[:_MAX_FINDINGS]
    )
    yield tag("h3", "What the report finds", class_="unseen")
    yield tag("ul", *items, class_="list")


def size(amount: int | None) -> str | None:
    """An amount in a table; ``None`` where it is not known."""
    return None if amount is None else format_bytes(amount)
