"""The node's report for a person: tables of at most 80 columns, bars in proportion on a terminal."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.advice.span import known_percentiles
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH = 80
_BAR = 14
_UNKNOWN = "?"
# Of a group: its word, how deep it lies, and what it is measured against.
_GROUPS = (
    ("system", "system", 0),
    ("kubelet", "kubelet", 1),
    ("runtime", "runtime", 1),
    ("pods", "pods", 0),
    ("kata_overhead", "kata_overhead", 0),
    ("root", "node", 0),
)


def as_text(report: Mapping[str, Any], *, bars: bool, settings: bool = False) -> str:
    """The report as one text.

    Args:
        report: the document of `report --format json`.
        bars: draw bars; only for a terminal.
        settings: also list every setting of kubelet and of Kata with its origin.
    """
    parts = [
        _problems(report),
        _allocatable(report),
        _usage(report, bars=bars),
        _available(report),
        _consumers(report),
        _findings(report),
        _kata(report),
        _advice(report),
        _settings(report) if settings else [],
    ]
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    for problem in report["problems"]:
        yield from _wrapped(click.style("could not be read: ", fg="yellow"), problem)


def _allocatable(report: Mapping[str, Any]) -> Iterator[str]:
    yield _bold(f"{'what the node has':<26}{'memory':>11}{'cpu':>9}{'storage':>11}{'pids':>10}")
    reserved, eviction = report["reserved"], report["eviction_hard"]
    hugepages = report["capacity"]["hugepages_bytes"]
    yield _amounts("capacity", report["capacity"])
    yield _amounts("− system-reserved", reserved["system"])
    yield _amounts("− kube-reserved", reserved["kube"])
    yield _amounts(
        "− eviction threshold",
        {
            "memory_bytes": eviction["memory_available_bytes"],
            "cpu_millicores": None,
            "ephemeral_storage_bytes": eviction["nodefs_available_bytes"],
            "pids": None,
        },
        unknown="",
    )
    if hugepages:
        yield _amounts("− hugepages", {"memory_bytes": hugepages}, unknown="")
    yield _amounts("= allocatable to pods", report["allocatable"])


def _amounts(title: str, amounts: Mapping[str, Any], unknown: str = _UNKNOWN) -> str:
    cpu, pids = amounts.get("cpu_millicores"), amounts.get("pids")
    shown = (
        _bytes(amounts.get("memory_bytes"), unknown),
        _cores(cpu, unknown),
        _bytes(amounts.get("ephemeral_storage_bytes"), unknown),
        unknown if pids is None else str(pids),
    )
    return f"{title:<26}{shown[0]:>11}{shown[1]:>9}{shown[2]:>11}{shown[3]:>10}".rstrip()


def _cores(millicores: int | None, unknown: str) -> str:
    if millicores is None:
        return unknown
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def _bytes(amount: int | None, unknown: str = _UNKNOWN) -> str:
    return unknown if amount is None else format_bytes(amount)


def _usage(report: Mapping[str, Any], *, bars: bool) -> Iterator[str]:
    usage = report["usage"]
    if usage["hierarchy"] == "none":
        yield "no memory cgroup is mounted: usage is not known by part"
        return
    last = "" if bars else "of"
    yield _bold(f"{'in use':<17}{'working set':>12}{'rss':>10}{'swap':>9}{'stalled':>9}  {last}".rstrip())
    limits = _limits(report)
    for key, word, depth in _GROUPS:
        group = usage[key]
        if group is None:
            continue
        pressure = group["memory_pressure_percent"]
        line = (
            f"{'  ' * depth + word:<17}{_bytes(group['working_set_bytes']):>12}{_bytes(group['rss_bytes']):>10}"
            f"{_bytes(group['swap_bytes']):>9}{'?' if pressure is None else f'{pressure:.1f} %':>9}"
        )
        limit = limits.get(key)
        if limit and group["working_set_bytes"] is not None:
            line += f"  {_share(group['working_set_bytes'], limit, bars=bars)}"
        yield line.rstrip()
    yield "system contains kubelet and runtime; stalled: waiting for memory, last 60 s"


def _limits(report: Mapping[str, Any]) -> dict[str, int | None]:
    """What each group's working set is measured against."""
    capacity = report["capacity"]["memory_bytes"]
    allocatable = report["allocatable"]["memory_bytes"]
    kept = (report["reserved"]["system"]["memory_bytes"] or 0) + (
        report["reserved"]["kube"]["memory_bytes"] or 0
    )
    return {"system": kept, "pods": allocatable, "root": capacity}


def _share(used: int, limit: int, *, bars: bool) -> str:
    percent = 100 * used / limit
    text = f"{percent:.0f} % of {format_bytes(limit)}"
    if not bars:
        return text
    # A part of a cell is drawn as one: something that is used must be seen.
    cells = min(_BAR, -(-used * _BAR // limit))
    colour = "red" if percent > 95 else "yellow" if percent > 80 else "green"
    bar = click.style("█" * cells, fg=colour) + "·" * (_BAR - cells)
    return f"{bar} {percent:3.0f} %"


def _available(report: Mapping[str, Any]) -> Iterator[str]:
    available = report["available"]
    signals = (
        ("memory.available", "memory_bytes", "until_eviction_bytes", "of the node"),
        ("allocatableMemory.available", "pods_memory_bytes", "pods_until_eviction_bytes", "of the pods"),
    )
    yield _bold("until kubelet evicts")
    for name, amount, distance, what in signals:
        left = available[distance]
        if available[amount] is None:
            yield f"{name:<29}not known"
            continue
        say = "" if left is None else f", {format_bytes(left)} before eviction"
        if left is not None and left <= 0:
            say = click.style(f": past the threshold by {format_bytes(-left)}", fg="red")
        yield f"{name:<29}{format_bytes(available[amount])} {what}{say}"
    if available["mem_available_bytes"] is not None:
        yield f"{'MemAvailable':<29}{format_bytes(available['mem_available_bytes'])} by the kernel's estimate"
    if available["unseen_bytes"]:
        yield f"{'not seen by kubelet':<29}{format_bytes(available['unseen_bytes'])} of slab, page tables and huge pages"


def _consumers(report: Mapping[str, Any]) -> Iterator[str]:
    consumers = report["consumers"]
    if not consumers:
        return
    yield _bold("largest in system")
    for consumer in consumers:
        name = consumer["unit"]
        if consumer["process"]:
            name = f"  {consumer['process']} ({consumer['pid']})"
        kind = "rss" if consumer["process"] else "working set"
        yield f"{_cut(name, 50):<52}{_bytes(consumer['memory_bytes']):>11}  {kind}"


def _findings(report: Mapping[str, Any]) -> Iterator[str]:
    for finding in report["findings"]:
        head = click.style(finding["reason"], fg="red" if finding["problem"] else "cyan")
        yield from _wrapped(head + ": ", finding["message"])
        if finding["remedy"]:
            yield from _wrapped("  remedy: ", finding["remedy"])


def _kata(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["kata"]:
        return
    yield _bold(f"{'kata handler':<20}{'runtime':<12}{'kind':<12}{'VM memory':>10}  file")
    for handler in report["kata"]:
        by_name = {setting["name"]: setting["value"] for setting in handler["settings"]}
        memory = by_name.get("default_memory")
        memory = f"{memory}Mi" if memory else _UNKNOWN
        file = _cut(handler["file"] or "defaults", 36)
        yield f"{_cut(handler['name'], 19):<20}{handler['runtime']:<12}{handler['kind']:<12}{memory:>10}  {file}"
        if handler["problem"]:
            yield from _wrapped("  ", handler["problem"])


def _advice(report: Mapping[str, Any]) -> Iterator[str]:
    for advice in report["advice"]:
        yield from _wrapped(click.style("advice: ", bold=True), advice["message"])
        if advice["why"]:
            yield from _wrapped("  why: ", advice["why"])
        yield from (f"    {line}" for line in advice["setting"].splitlines())
    for seen in report["observed"]:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen["first_unix_seconds"]))
        names = [*known_percentiles(seen["records"]), "max"]
        figures = "  ".join(f"{name} {format_bytes(seen[name])}" for name in names)
        yield f"{_cut(seen['name'], 24):<25}{figures}  since {since}"


def _settings(report: Mapping[str, Any]) -> Iterator[str]:
    yield _bold("settings of kubelet, and where each comes from")
    yield from _setting_lines(report["settings"])
    for handler in report["kata"]:
        yield _bold(f"settings of Kata, handler {handler['name']}")
        yield from _setting_lines(handler["settings"])


def _setting_lines(settings: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for setting in settings:
        yield f"{setting['name']} = {setting['value']}  [{setting['origin']}]"


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(head: str, text: str) -> list[str]:
    """The text after its head, in lines of at most 80 columns; the head's colours take no room."""
    plain = click.unstyle(head)
    lines = textwrap.wrap(text, WIDTH - 4, initial_indent=" " * len(plain), subsequent_indent="    ")
    if not lines:
        return [head.rstrip()]
    return [head + lines[0][len(plain) :], *lines[1:]]
