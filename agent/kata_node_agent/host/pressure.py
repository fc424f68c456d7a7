"""Pressure stall information (PSI). Facts only. Source: the kernel's Documentation/accounting/psi.rst."""

from __future__ import annotations

import re

from kata_node_agent.dataclass import dataclass

_LINE = re.compile(
    r"(some|full) avg10=([0-9]{1,3}\.[0-9]{2}) avg60=([0-9]{1,3}\.[0-9]{2}) avg300=([0-9]{1,3}\.[0-9]{2}) "
    r"total=([0-9]{1,19})"
)


@dataclass(frozen=True, slots=True)
class Pressure:
    """Share of time in which some, or all, tasks waited for a resource; ``full_*`` is ``None`` where the kernel has none.

    Averages are percentages over the last 10, 60 and 300 seconds; totals are microseconds.
    """

    some_avg10: float
    some_avg60: float
    some_avg300: float
    some_total_microseconds: int
    full_avg10: float | None = None
    full_avg60: float | None = None
    full_avg300: float | None = None
    full_total_microseconds: int | None = None


def parse_pressure(text: str) -> Pressure | None:
    """A pressure file; ``None`` for anything else, as PSI may be switched off."""
    lines = {match[1]: match for line in text.split("\n") if (match := _LINE.fullmatch(line))}
    some, full = lines.get("some"), lines.get("full")
    if some is None:
        return None
    values = (float(some[2]), float(some[3]), float(some[4]), int(some[5]))
    if full is None:
        return Pressure(*values)
    return Pressure(*values, float(full[2]), float(full[3]), float(full[4]), int(full[5]))
