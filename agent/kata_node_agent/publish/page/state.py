"""What the agent says of itself on the page: verdict, problems, figures, slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.publish.page.markup import (
    Markup,
    bar,
    code,
    complaint,
    prose,
    section,
    tag,
    together,
    unknown,
)
from kata_node_agent.quantity import format_bytes
from kata_node_agent.text import ago

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kata_node_agent.pb import agent_pb2

WORDS = {"eligible": "eligible", "ineligible": "not eligible", "unknown": "could not tell"}
_SENTENCES = {
    "eligible": "Eligible: this node can run Kata VMs",
    "ineligible": "Not eligible: this node can not run Kata VMs",
    "unknown": "It could not be told whether this node can run Kata VMs",
}
SIGNS = {"eligible": "✓", "ineligible": "✗", "unknown": "?"}
_MAX_PROBLEMS = 50
# A slot is drawn by itself where a finger could still tell it from the next.
_MAX_CELLS = 64


def verdict(status: agent_pb2.Status | None, now: float) -> Markup:
    """The first thing that one wants to know."""
    word = status.verdict if status is not None and status.verdict in WORDS else "unknown"
    lines: list[Markup] = []
    if status is None:
        lines.append(
            tag(
                "p",
                "The agent does not answer itself: its loop is stuck. Its log says more; systemd starts it anew.",
            )
        )
    elif not status.profile:
        lines.append(tag("p", "The node has not been looked at yet.", class_="quiet"))
    else:
        since = ago(status.verdict_since_unix_seconds, now)
        lines.append(tag("p", "by profile ", code(status.profile), f", for {since}", class_="quiet"))
    if status is not None:
        lines.append(tag("p", *(together(badge, " ") for badge in _badges(status))))
    heading = tag("h2", tag("span", f"{SIGNS[word]} ", aria_hidden="true"), _SENTENCES[word], id="verdict")
    return tag("section", heading, *lines, class_=f"verdict {word}", aria_labelledby="verdict")


def _badges(status: agent_pb2.Status) -> Iterator[Markup]:
    kind = "quiet" if status.mode == "enforce" else "warn"
    yield tag("span", f"mode {status.mode}", class_=f"tag {kind}")
    if status.account.closed_by:
        yield tag("span", f"closed to new VMs: {status.account.closed_by}", class_="tag warn")
    kubelet = status.kubelet
    if kubelet.registered:
        words = "kubelet: registered" + ("" if kubelet.stream_open else ", no stream")
        yield tag("span", words, class_=f"tag {'quiet' if kubelet.stream_open else 'warn'}")
    else:
        yield tag("span", "kubelet: not registered", class_="tag warn")
    nri = status.nri
    if nri.state:
        words = f"runtime: {nri.runtime or 'asks'}" if nri.connected else f"runtime: {nri.state}"
        yield tag("span", words, class_="tag quiet")


def problems(status: agent_pb2.Status | None) -> Markup | None:
    """Each with its remedy; ``None`` where there is none."""
    if status is None:
        return None
    found = list(status.problems)
    if not found:
        none = tag("p", tag("span", "✓ ", aria_hidden="true"), "No problems", class_="good")
        return section("Problems", none, unseen=True)
    items = [complaint(each.reason, each.message, each.remedy, kind="bad") for each in found[:_MAX_PROBLEMS]]
    more = len(found) - len(items)
    left = tag("p", f"{more} more: ", code("kata-node-agent status")) if more else None
    return section("Problems", tag("ul", *items, class_="list"), left, class_="problems")


def figures(status: agent_pb2.Status, sandboxes: Mapping[str, Any] | None) -> Markup:
    """Four numbers that a wall shows from afar."""
    slots, account = status.slots, status.account
    known = bool(account.terms)
    running = sandboxes["sandboxes"] if sandboxes is not None else None
    threatened = sum(bool(one["risks"]) for one in running or ())
    tiles = [
        ("slots healthy", f"{slots.healthy} of {slots.total}", f"{slots.in_use} in use"),
        (
            "free for VMs",
            format_bytes(account.free_bytes) if known else None,
            together("limited by ", code(account.limited_by)) if known else "",
        ),
        (
            "promised to VMs",
            format_bytes(account.committed_bytes) if known else None,
            f"to {account.sandboxes} VMs and {account.devices} devices",
        ),
        (
            "Kata VMs run",
            str(len(running)) if running is not None else None,
            f"{threatened or 'none'} at risk" if running else "",
        ),
    ]
    shown = [
        tag("div", tag("dt", title), tag("dd", tag("strong", value or unknown()), " ", words))
        for title, value, words in tiles
    ]
    return section("At a glance", tag("dl", *shown, class_="figures"), unseen=True)


def slots(status: agent_pb2.Status) -> Markup:
    """Places for VMs, and what keeps them from being more."""
    total, healthy, used = status.slots.total, status.slots.healthy, status.slots.in_use
    parts = [("own", used, "in use"), ("room", max(0, healthy - used), "free")]
    parts.append(("shut", max(0, total - max(healthy, used)), "can not be used now"))
    keys = [tag("li", bar([(kind, 1)], 1), f"{count} {words}") for kind, count, words in parts]
    limit = status.slots.limited_by
    return section(
        "Slots",
        tag("p", code(status.resource)),
        _cells([(kind, count) for kind, count, _ in parts]) if total else None,
        tag("ul", *keys, class_="key"),
        tag("p", "Limited by ", code(limit), ": ", prose(status.slots.limited_by_message)) if limit else None,
    )


def _cells(parts: Sequence[tuple[str, int]]) -> Markup:
    """One cell a slot while they are few."""
    total = sum(count for _, count in parts)
    if total > _MAX_CELLS:
        return bar(parts, total)
    cells = [(kind, 1.0) for kind, count in parts for _ in range(count)]
    gap = 0.12
    drawn = [part for kind, wide in cells for part in ((kind, wide - gap), ("gap", gap))]
    return bar(drawn, total)


def about(status: agent_pb2.Status, now: float) -> Markup:
    """Which agent this is."""
    up = ago(status.started_unix_seconds, now)
    return together(f"kata-node-agent {status.version}, pid {status.pid}, up {up}.")
