"""The VMs on the page: those that need a look as bars, the others in a table, and what threatens them once a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.publish.page.markup import (
    Markup,
    bar,
    code,
    complaint,
    name,
    section,
    table,
    tag,
    together,
    unknown,
)
from kata_node_agent.publish.page.memory import size
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# As many bars as a glance takes, and as many lines as a browser shows at once.
BARS = 10
ROWS = 500
_RISKS_SHOWN = 20
_ID_SHOWN = 12


def vms(document: Mapping[str, Any] | None, *, followed: bool) -> Markup:
    """The section.

    Args:
        document: of `sandboxes`; ``None`` where it could not be made.
        followed: whether the agent follows VMs at all.
    """
    title = "Sandboxes"
    if not followed:
        return section(title, _quiet("VMs are not followed: sandbox.follow is false."))
    if document is None:
        return section(title, _quiet("Which VMs run could not be read."))
    ordered = sorted(document["sandboxes"], key=_rank)
    if not ordered:
        return section(title, _quiet("No Kata VM runs here."), *_odd(document))
    first, rest = ordered[:BARS], ordered[BARS:]
    whole = max(1, *(_extent(one) for one in first))
    return section(
        title,
        *_totals(ordered),
        _keys(first),
        tag("ul", *(_one(one, whole) for one in first), class_="list vms"),
        *_rest(rest),
        *_risks(ordered),
        *_odd(document),
    )


def _quiet(text: str) -> Markup:
    return tag("p", text, class_="quiet")


def _rank(sandbox: Mapping[str, Any]) -> tuple[int, int, str]:
    """Those at risk first, then the largest."""
    return -len(sandbox["risks"]), -sandbox["commitment_bytes"], sandbox["id"]


def _extent(sandbox: Mapping[str, Any]) -> int:
    nominal: int = sandbox["vm_memory_bytes"]
    return max(nominal, sandbox["resident_bytes"] or 0)


def _limit(sandbox: Mapping[str, Any]) -> int | None:
    """The lowest limit over its group: where the kernel kills."""
    charge = sandbox["charge"]
    limit: int | None = charge["limit_bytes"] if charge else None
    return limit


def _totals(sandboxes: Sequence[Mapping[str, Any]]) -> Iterator[Markup]:
    nominal = sum(one["vm_memory_bytes"] for one in sandboxes)
    resident = sum(one["resident_bytes"] or 0 for one in sandboxes)
    threatened = sum(bool(one["risks"]) for one in sandboxes)
    at_risk = tag("strong", f"{threatened} at risk", class_="bad") if threatened else "none at risk"
    number = f"{len(sandboxes)} VM{'s' if len(sandboxes) != 1 else ''}"
    yield tag(
        "p",
        tag("strong", number),
        f": {format_bytes(nominal)} nominal, {format_bytes(resident)} resident, ",
        at_risk,
        ".",
    )


def _keys(shown: Sequence[Mapping[str, Any]]) -> Markup:
    keys = [
        tag("li", bar([("used", 1)], 1), "resident: in the node's memory now"),
        tag("li", bar([("vm", 1)], 1), "nominal: the VM's size"),
    ]
    if any((limit := _limit(one)) is not None and limit <= _extent(one) for one in shown):
        keys.append(tag("li", bar([], 1, mark=0.5), "limit of its control group: there the kernel kills"))
    return tag("ul", *keys, class_="key")


def _one(sandbox: Mapping[str, Any], whole: int) -> Markup:
    resident, nominal, limit = sandbox["resident_bytes"], sandbox["vm_memory_bytes"], _limit(sandbox)
    used = resident or 0
    words = [
        tag("strong", format_bytes(resident)) if resident is not None else unknown(),
        f" resident of {format_bytes(nominal)} nominal",
        f" ({format_bytes(sandbox['hotplugged_bytes'])} hotplugged)" if sandbox["hotplugged_bytes"] else None,
        f", {format_bytes(sandbox['commitment_bytes'])} promised",
        f", limit {format_bytes(limit)}" if limit is not None else None,
        tag("span", " · ", together(name(sandbox["handler"]) if sandbox["handler"] else "handler not known"),
            " · ", name(sandbox["vmm"]), class_="quiet"),
    ]  # fmt: skip
    return tag(
        "li",
        tag("h3", who(sandbox)),
        tag("p", *words),
        bar([("used", used), ("vm", max(0, nominal - used))], whole, mark=limit),
        tag("p", *_tags(sandbox)) if sandbox["risks"] else None,
    )


def who(sandbox: Mapping[str, Any]) -> Markup:
    """Its pod; where nothing says it, the sandbox."""
    return name(sandbox["pod"] or sandbox["id"][:_ID_SHOWN])


def _tags(sandbox: Mapping[str, Any]) -> list[Markup]:
    reasons = dict.fromkeys(risk["reason"] for risk in sandbox["risks"])
    return [
        together(tag("span", f"⚠ {reason}", class_="tag bad"), " ") for reason in list(reasons)[:_RISKS_SHOWN]
    ]


def _rest(rest: Sequence[Mapping[str, Any]]) -> Iterator[Markup]:
    if not rest:
        return
    rows = [
        [
            who(one),
            name(one["handler"]) if one["handler"] else None,
            size(one["vm_memory_bytes"]),
            size(one["resident_bytes"]),
            size(one["commitment_bytes"]),
            str(len(one["risks"])) if one["risks"] else "–",
        ]
        for one in rest[:ROWS]
    ]
    left = len(rest) - len(rows)
    yield tag(
        "details",
        tag("summary", f"{len(rest)} more"),
        table(
            "The other VMs, those at risk first, then the largest",
            ["pod", "handler", "nominal", "resident", "promised", "risks"],
            rows,
            numbers=4,
        ),
        tag("p", f"{left} more are not shown; all of them: ", code("kata-node-agent sandboxes"))
        if left
        else None,
    )


def _risks(sandboxes: Sequence[Mapping[str, Any]]) -> Iterator[Markup]:
    """Each reason once, with the first VM that has it: a node has hundreds of the same kind."""
    found: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for one in sandboxes:
        for risk in one["risks"]:
            found.setdefault(risk["reason"], []).append((one, risk))
    if not found:
        return
    items = []
    for reason, places in list(found.items())[:_RISKS_SHOWN]:
        one, risk = places[0]
        owners = len({id(sandbox) for sandbox, _ in places})
        more = f", and {owners - 1} more: " if owners > 1 else ": "
        whose = together(who(one), more)
        items.append(complaint(reason, risk["message"], risk["remedy"], kind="bad", whose=whose))
    yield tag("h3", "What threatens them")
    yield tag("ul", *items, class_="list")


def _odd(document: Mapping[str, Any]) -> Iterator[Markup]:
    """What is not believed, and what could not be read."""
    if claims := document["unbelieved"]:
        first = claims[0]
        more = f", and {len(claims) - 1} more" if len(claims) > 1 else ""
        yield tag(
            "p",
            f"Not believed: process {first['pid']} claims to be ",
            name(first["claim"]),
            f" ({first['why']}){more}.",
            class_="quiet",
        )
    for problem in document.get("problems", ())[:_RISKS_SHOWN]:
        yield tag("p", "Could not be read: ", problem, class_="quiet")
