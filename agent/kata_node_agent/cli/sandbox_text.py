"""The node's sandboxes for a person: tables of at most 80 columns, and what threatens them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from kata_node_agent.cli.sandbox_order import CLAIM_REMEDY, names_of, resident_text
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kata_node_agent.report.sandboxes import Overview, SandboxView
    from kata_node_agent.sandboxes.model import Charge, Cost, Sandbox

WIDTH = 80
_UNKNOWN = "?"
_MAX_UNBELIEVED = 5


def as_text(overview: Overview, *, details: bool = False, limit: int | None = None) -> str:
    """All of it as one text.

    Args:
        overview: of the sandboxes.
        details: also what each costs part by part, what its cgroups are charged, and all its risks.
        limit: so many of them at most; the sums are those of all.
    """
    parts: list[Sequence[str]] = [[*_problems(overview)]]
    if not overview.views:
        parts.append(["no Kata VM is seen from here" if overview.blind else "no Kata VM runs here"])
    elif details:
        parts += [[*_details(view)] for view in overview.views[:limit]]
    else:
        parts += [[*_table(overview.views[:limit])]]
    if limit is not None and len(overview.views) > limit:
        parts.append([f"and {len(overview.views) - limit} more; --limit {len(overview.views)} shows all"])
    if overview.views and not details:
        parts += [[*_sums(overview)], [*_risks(overview.views)]]
    parts.append([*_unbelieved(overview)])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def name_of(view: SandboxView) -> str:
    """The pod, and where nothing says it the sandbox."""
    return view.sandbox.pod or cut(view.sandbox.id, 24)


def vm_size(sandbox: Sandbox) -> str:
    """A VM's size in a table: with a virtio-mem device ``~`` what was requested of it, or ``≥`` the least that it has."""
    return {"exact": "", "requested": "~", "at_least": "≥"}[sandbox.size_certainty] + size(
        sandbox.vm_memory_bytes
    )


def size(amount: int | None) -> str:
    """An amount in a table."""
    return _UNKNOWN if amount is None else format_bytes(amount)


def cut(text: str, width: int) -> str:
    """As much of a text as fits."""
    return text if len(text) <= width else text[: width - 1] + "…"


def problem_lines(texts: Sequence[str]) -> Iterator[str]:
    """What could not be read."""
    for text in texts:
        yield from wrapped(click.style("could not be read: ", fg="yellow"), text)


def wrapped(head: str, text: str) -> list[str]:
    """The text after its head, in lines of at most 80 columns; the head's colours take no room."""
    plain = click.unstyle(head)
    lines = textwrap.wrap(
        text, WIDTH - 4, initial_indent=" " * len(plain), subsequent_indent="    ", break_on_hyphens=False
    )
    return [head + lines[0][len(plain) :], *lines[1:]] if lines else [head.rstrip()]


def _problems(overview: Overview) -> Iterator[str]:
    return problem_lines(overview.problems)


def _table(views: Sequence[SandboxView]) -> Iterator[str]:
    head = (
        f"{'pod':<24} {'handler':<8}{'VM':>8}{'plugged':>8}{'resident':>9}{'beside':>7}{'rss sum':>8}  risks"
    )
    yield click.style(head, bold=True)
    for view, name in zip(views, names_of(views, 24), strict=True):
        sandbox, cost = view.sandbox, view.sandbox.cost
        plugged = size(sandbox.hotplugged_bytes) if sandbox.hotplugged_bytes else "-"
        risks = click.style(f"{len(view.risks):>5}", fg="red") if view.risks else f"{'-':>5}"
        yield (
            f"{name:<24} {cut(sandbox.handler or _UNKNOWN, 7):<8}"
            f"{vm_size(sandbox):>8}{plugged:>8}"
            f"{size(cost.resident_bytes if cost else None):>9}{size(cost.host_overhead_bytes if cost else None):>7}"
            f"{size(cost.rss_sum_bytes if cost else None):>8}  {risks}"
        )


def _sums(overview: Overview) -> Iterator[str]:
    views, node = overview.views, overview.node
    costs = [view.sandbox.cost for view in views if view.sandbox.cost is not None]
    given = sum(view.sandbox.vm_memory_bytes for view in views)
    number = f"{len(views)} VM{'s' if len(views) != 1 else ''}"
    yield from wrapped(
        "",
        f"{number}: {format_bytes(given)} given"
        + (f" of {format_bytes(node.allocatable_bytes)} that pods may have" if node.allocatable_bytes else "")
        + f", {resident_text(views)}"
        + (
            f", of which {format_bytes(sum(c.host_overhead_bytes for c in costs))} beside the guests"
            if costs
            else ""
        )
        + "; to be kept for them "
        f"{format_bytes(sum(view.commitment_bytes for view in views))}",
    )
    if node.shm_bytes is not None and node.shm_vm_bytes:
        yield f"{format_bytes(node.shm_vm_bytes)} of it lives in /dev/shm, which holds {format_bytes(node.shm_bytes)}"


def _risks(views: Sequence[SandboxView]) -> Iterator[str]:
    """Each reason once, with the first sandbox that has it: a node has hundreds of the same kind."""
    found: dict[str, list[tuple[SandboxView, int]]] = {}
    for view in views:
        for index, risk in enumerate(view.risks):
            found.setdefault(risk.reason, []).append((view, index))
    for reason, places in found.items():
        view, index = places[0]
        more = f", and {len(places) - 1} more" if len(places) > 1 else ""
        head = f"{click.style(reason, fg='red')}: {name_of(view)}{more}: "
        yield from wrapped(head, view.risks[index].message)
        yield from wrapped("  remedy: ", view.risks[index].remedy)


def _details(view: SandboxView) -> Iterator[str]:
    sandbox, known = view.sandbox, view.known
    yield click.style(f"{name_of(view)}", bold=True) + f"  sandbox {cut(sandbox.id, 64)}"
    yield (
        f"  {'VM':<12}{vm_size(sandbox)}: {size(sandbox.base_bytes)} at boot, "
        f"{size(sandbox.hotplugged_bytes)} plugged"
        + (f", at most {size(sandbox.max_bytes)}" if sandbox.max_bytes else "")
        + f"; in {sandbox.memory_location}"
    )
    if view.final_bytes is not None and view.final_bytes > sandbox.vm_memory_bytes:
        yield f"  {'will have':<12}{size(view.final_bytes)}"
    yield (
        f"  {'runs':<12}{sandbox.vmm}, pid {sandbox.pid}, handler {sandbox.handler or 'not known'}"
        f"; {len(sandbox.processes)} process{'es' if len(sandbox.processes) != 1 else ''}"
    )
    yield (
        f"  {'pod':<12}limits {size(known.limits_bytes)}, requests {size(known.requests_bytes)}, "
        f"podFixed {size(known.overhead_bytes)}"
    )
    yield from _cost(sandbox.cost)
    yield from _charge(sandbox.charge)
    for note in sandbox.notes:
        yield from wrapped("  note: ", note)
    for risk in view.risks:
        yield from wrapped("  " + click.style(risk.reason, fg="red") + ": ", risk.message)
        yield from wrapped("    remedy: ", risk.remedy)


def _cost(cost: Cost | None) -> Iterator[str]:
    if cost is None:
        yield f"  {'costs':<12}not readable: run as root"
        return
    yield (
        f"  {'costs':<12}{size(cost.resident_bytes)}: guest {size(cost.guest_bytes)}, VMM {size(cost.vmm_bytes)}, "
        f"virtiofsd {size(cost.virtiofsd_bytes)},"
    )
    yield (
        f"  {'':<12}shim {size(cost.shim_bytes)}, page tables {size(cost.page_table_bytes)}; "
        f"the sum of RSS would say {size(cost.rss_sum_bytes)}"
    )


def _charge(charge: Charge | None) -> Iterator[str]:
    if charge is None:
        return
    limit = f" of {size(charge.limit_bytes)}" if charge.limit_bytes is not None else ", no limit"
    yield f"  {'charged':<12}{size(charge.bytes)}{limit}"
    yield from wrapped(f"  {'to':<12}", charge.cgroup)
    if charge.elsewhere:
        yield from wrapped(
            f"  {'and':<12}", f"{size(charge.elsewhere_bytes)} to {', '.join(charge.elsewhere)}"
        )
    if charge.difference:
        yield from wrapped(f"  {'':<12}", charge.difference)


def _unbelieved(overview: Overview) -> Iterator[str]:
    for claim in overview.unbelieved[:_MAX_UNBELIEVED]:
        head = click.style("not believed: ", fg="yellow")
        yield from wrapped(head, f"pid {claim.pid} claims to be {claim.claim}: {claim.why}")
    if len(overview.unbelieved) > _MAX_UNBELIEVED:
        yield f"not believed: {len(overview.unbelieved) - _MAX_UNBELIEVED} more"
    if overview.unbelieved:
        yield from wrapped("  remedy: ", CLAIM_REMEDY)
