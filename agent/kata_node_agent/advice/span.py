"""What a history may be used for, by how much of it there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.quantity import format_bytes
from kata_node_agent.series import WINDOW_SECONDS

if TYPE_CHECKING:
    from kata_node_agent.series import Observed

# Ours: six hours of ten-minute maxima. A start of the node, its images and its first pods are the minority of them then, and
# the 95th percentile is no longer the highest. Records count, not the span: an agent that was off saw nothing.
MIN_RECORDS = 36
_MIN_HOURS = MIN_RECORDS * WINDOW_SECONDS // 3600
# A percentile of fewer records than it has parts is the highest by another name.
_PERCENTILES = {"p50": MIN_RECORDS, "p95": MIN_RECORDS, "p99": 100}


def known_percentiles(records: int) -> list[str]:
    """The percentiles that so many records can tell."""
    return [name for name, needed in _PERCENTILES.items() if records >= needed]


def percentiles(seen: Observed) -> str:
    """Its figures in bytes, as far as there are enough records."""
    shown = [f"{name} {format_bytes(getattr(seen, name))}" for name in known_percentiles(seen.records)]
    return ", ".join([*shown, f"at most {format_bytes(seen.max)}"])


def until_enough(seen: Observed) -> str:
    """What there is, and from when a figure can be made of it."""
    left = (MIN_RECORDS - seen.records) * WINDOW_SECONDS
    return (
        f"{duration(seen.records * WINDOW_SECONDS)} of history at most, and a figure needs {_MIN_HOURS} hours: "
        f"look again in {duration(left)}"
    )


def duration(seconds: float) -> str:
    """A time for a person, in its largest unit: ``3 days``."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {word}{'s' if number != 1 else ''}"
    return f"less than {WINDOW_SECONDS // 60} minutes"
