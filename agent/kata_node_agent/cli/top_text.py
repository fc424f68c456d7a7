"""One picture of `top`: pure, for a terminal of a given size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kata_node_agent.cli.sandbox_order import names_of, ordered, resident_text
from kata_node_agent.cli.sandbox_text import cut, size, vm_size
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kata_node_agent.report.sandboxes import Overview, SandboxView

_LEAST_WIDTH = 60
_MOST_WIDTH = 160
_HEAD_LINES = 6


# Key on the keyboard → by what it sorts.
KEYS = {"m": "resident", "v": "vm", "o": "beside", "r": "risks", "p": "pod"}


def picture(
    overview: Overview,
    *,
    order: str,
    width: int,
    height: int | None,
    clock: str,
    live: bool,
    limit: int | None = None,
) -> list[str]:
    """The lines, none wider than ``width``.

    Args:
        overview: of the sandboxes.
        order: by what, of `KEYS`.
        width: columns of the terminal.
        height: its lines; ``None`` for all sandboxes.
        clock: the time, for the first line.
        live: whether keys are listened to.
        limit: so many sandboxes at most, also where more fit; the sums are those of all.
    """
    width = max(_LEAST_WIDTH, min(width, _MOST_WIDTH))
    views = ordered(overview, order).views
    lines = [*_head(overview, views, width, clock)]
    room = (
        len(views)
        if height is None
        else max(1, height - _HEAD_LINES - len(overview.blind) - (1 if live else 0))
    )
    most = len(views) if limit is None else limit
    shown = views if len(views) <= min(room, most) else views[: min(room - 1, most)]
    lines += _rows(shown, width)
    if len(shown) < len(views):
        lines.append(f"and {len(views) - len(shown)} more")
    if live:
        keys = "  ".join(f"{key} {name}" for key, name in KEYS.items())
        lines.append(click.style(cut(f"sort: {keys}   q quit", width), dim=True))
    return lines


def _head(overview: Overview, views: Sequence[SandboxView], width: int, clock: str) -> Iterator[str]:
    node = overview.node
    given = sum(view.sandbox.vm_memory_bytes for view in views)
    resident = sum(view.sandbox.cost.resident_bytes for view in views if view.sandbox.cost is not None)
    threatened = sum(1 for view in views if view.risks)
    title = f"{len(views)} Kata VM{'s' if len(views) != 1 else ''}"
    risks = f", {threatened} with risks" if threatened else ""
    notes = f", {len(overview.unbelieved)} claims not believed" if overview.unbelieved else ""
    text = cut(f"{title}{risks}{notes}", width - len(clock) - 1)
    yield click.style(text, bold=True) + clock.rjust(width - len(text))
    yield _total("given", given, node.allocatable_bytes, "that pods may have", width)
    if all(view.sandbox.cost is not None for view in views):
        yield _total("resident", resident, given or None, "that was given", width)
    else:
        yield resident_text(views)
    yield _total("in shm", node.shm_vm_bytes, node.shm_bytes, "that it holds", width)
    for problem in overview.blind:
        yield click.style(cut(f"could not be read: {problem}", width), fg="yellow")
    yield ""


def _total(word: str, amount: int, of: int | None, what: str, width: int) -> str:
    text = f"{word:<10}{format_bytes(amount):>9}"
    if not of:
        return text
    tail = f" {100 * amount / of:4.0f} % of {format_bytes(of)} {what}"
    cells = width - len(text) - len(tail) - 1
    return f"{text} {bar(amount, of, cells)}{tail}" if cells >= 8 else cut(text + tail, width)


def _rows(views: Sequence[SandboxView], width: int) -> Iterator[str]:
    # What a line has beside the pod's name and the bar; a narrow terminal has no room for what was plugged.
    with_plugged = width >= 80
    fixed = 8 + 9 + 8 + 7 + 3 + (8 if with_plugged else 0)
    pod = min(48, (width - fixed) * 5 // 9)
    cells = max(4, width - fixed - pod - 6)
    plugged = f"{'plugged':>8}" if with_plugged else ""
    head = f"{'pod':<{pod}}{'VM':>8}{plugged}{'resident':>9}{'beside':>8}{'risks':>7}   {'of the VM'}"
    yield click.style(cut(head, width), bold=True)
    for view, name in zip(views, names_of(views, pod - 1), strict=True):
        sandbox, cost = view.sandbox, view.sandbox.cost
        number = f"{len(view.risks) or '-':>7}"
        risks = click.style(number, fg="red") if view.risks else number
        share = ""
        if cost is not None and sandbox.vm_memory_bytes:
            percent = 100 * cost.guest_bytes / sandbox.vm_memory_bytes
            share = f"   {bar(cost.guest_bytes, sandbox.vm_memory_bytes, cells)} {percent:3.0f} %"
        if with_plugged:
            plugged = f"{size(sandbox.hotplugged_bytes) if sandbox.hotplugged_bytes else '-':>8}"
        yield (
            f"{name:<{pod}}{vm_size(sandbox):>8}{plugged}"
            f"{size(cost.resident_bytes if cost else None):>9}{size(cost.host_overhead_bytes if cost else None):>8}"
            f"{risks}{share}"
        )


def bar(part: int, whole: int, cells: int) -> str:
    """A bar in proportion; a part of a cell is drawn as one, as something that is used must be seen."""
    full = min(cells, -(-part * cells // whole)) if whole > 0 else 0
    colour = "red" if part * 100 > whole * 95 else "yellow" if part * 100 > whole * 80 else "green"
    return click.style("█" * full, fg=colour) + "·" * (cells - full)
