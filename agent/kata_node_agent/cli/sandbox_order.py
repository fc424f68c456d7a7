"""In which order sandboxes are shown, how many, and under which names. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kata_node_agent.report.sandboxes import Overview, SandboxView


# Whoever may start a process may call it a VM.
CLAIM_REMEDY = (
    "see who started it (ps -o pid,ppid,user,args -p PID); docs/sandboxes.md tells what is believed, and why"
)


def seen(overview: Overview) -> Overview:
    """The same, if anything could be looked into.

    Raises:
        AgentError: there are claims, and we lack the right to look into any.
    """
    for error in overview.blind:
        if error.reason == "SandboxesUnreadable" and not overview.views:
            raise error
    return overview


def resident_text(views: Sequence[SandboxView]) -> str:
    """``2Gi resident``, and of how many VMs that is not known."""
    costs = [view.sandbox.cost for view in views if view.sandbox.cost is not None]
    text = (
        f"{format_bytes(sum(cost.resident_bytes for cost in costs))} resident" if costs or not views else ""
    )
    missing = len(views) - len(costs)
    if not missing:
        return text
    return f"{text} without {missing} that cannot be read" if text else "resident not known"


def _full_name(view: SandboxView) -> str:
    return view.sandbox.pod or view.sandbox.id


def _resident(view: SandboxView) -> int:
    return view.sandbox.cost.resident_bytes if view.sandbox.cost is not None else 0


def _beside(view: SandboxView) -> int:
    return view.sandbox.cost.host_overhead_bytes if view.sandbox.cost is not None else 0


# By what → what counts; the largest is first.
ORDERS: dict[str, Callable[[SandboxView], tuple[int, str]]] = {
    "resident": lambda view: (-_resident(view), _full_name(view)),
    "vm": lambda view: (-view.sandbox.vm_memory_bytes, _full_name(view)),
    "beside": lambda view: (-_beside(view), _full_name(view)),
    "risks": lambda view: (-len(view.risks), _full_name(view)),
    "pod": lambda view: (0, _full_name(view)),
    "id": lambda view: (0, view.sandbox.id),
}


def ordered(overview: Overview, by: str, limit: int | None = None) -> Overview:
    """The same, sorted by a key of `ORDERS`, and no more than `limit` sandboxes of it."""
    return replace(overview, views=tuple(sorted(overview.views, key=ORDERS[by]))[:limit])


def names_of(views: Sequence[SandboxView], width: int) -> list[str]:
    """What each is called: its pod, and where nothing says it the sandbox's id, cut so that no two look alike."""
    return _distinct([_full_name(view) for view in views], width)


def matches(view: SandboxView, name: str) -> bool:
    """Whether a person means this one: by its pod, the beginning of its id, or a name as it was shown, with its ``…``."""
    pod, sandbox = view.sandbox.pod or "", view.sandbox.id
    if name in {pod, pod.rpartition("/")[2]} or sandbox.startswith(name):
        return True
    head, dots, rest = name.replace("...", "…").partition("…")
    if not dots:
        return False
    middle, more, tail = rest.partition("…")
    return any(
        text.startswith(head)
        and (middle in text[len(head) :] if more else text.endswith(middle))
        and text.endswith(tail)
        for text in (pod, sandbox)
    )


def _distinct(texts: Sequence[str], width: int) -> list[str]:
    """Each as much of itself as fits. Where that is the same for two, the part is shown in which they differ."""
    found = [_shorter(text, width) for text in texts]
    alike: dict[str, set[str]] = {}
    for text, short in zip(texts, found, strict=True):
        alike.setdefault(short, set()).add(text)
    return [
        short if len(alike[short]) == 1 else _where_they_differ(text, sorted(alike[short]), width)
        for text, short in zip(texts, found, strict=True)
    ]


def _shorter(text: str, width: int) -> str:
    # A pod's name ends in what tells it from its like.
    tail = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[-tail:]}"


def _where_they_differ(text: str, alike: list[str], width: int) -> str:
    while True:
        columns = zip(*alike, strict=False)
        begin = next(
            (place for place, column in enumerate(columns) if len(set(column)) > 1), min(map(len, alike))
        )
        head = min(4, begin)
        end = begin + width - head - 2
        shown = f"{text[:head]}…{text[begin:end]}{'…' if end < len(text) else ''}"
        left = [other for other in alike if other[begin:end] == text[begin:end]]
        if len(left) == 1 or len(left) == len(alike):
            return shown
        alike = left
