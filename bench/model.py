"""What a measurement is: how much of it, its samples, and one row of the table. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure.

    Attributes:
        quick: a first look: less of everything.
        samples: instead of each topic's own number; also the seconds that a window lasts at most.
    """

    quick: bool = False
    samples: int | None = None

    def count(self, full: int, quick: int) -> int:
        """How many samples to take."""
        return self.samples or (quick if self.quick else full)

    def seconds(self, full: float, quick: float) -> float:
        """How long to watch."""
        length = quick if self.quick else full
        return length if self.samples is None else min(length, float(self.samples))


@dataclass(frozen=True, slots=True)
class Samples:
    """Values of one unit, sorted."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Samples:
        """Sorts them."""
        return cls(tuple(sorted(values)))

    @property
    def count(self) -> int:
        """How many."""
        return len(self.values)

    def percentile(self, percent: float) -> float:
        """The smallest value that so many percent of all do not exceed (nearest rank); NaN of nothing."""
        if not self.values:
            return math.nan
        return self.values[max(0, math.ceil(len(self.values) * percent / 100) - 1)]

    @property
    def p50(self) -> float:
        """The median."""
        return self.percentile(50)

    @property
    def p99(self) -> float:
        """Of fewer than 100 samples this is the largest."""
        return self.percentile(99)

    def to_json(self) -> dict[str, float]:
        """The summary."""
        if not self.values:
            return {"n": 0}
        return {
            "n": self.count,
            "min": self.values[0],
            "p50": self.p50,
            "p99": self.p99,
            "max": self.values[-1],
        }


def spread(samples: Samples, unit: str) -> str:
    """``1.23 / 4.56 ms (n=200)``: p50 and p99."""
    return f"{number(samples.p50)} / {number(samples.p99)} {unit} (n={samples.count})"


def median(samples: Samples, unit: str) -> str:
    """``1.23 ms (n=15)``."""
    return f"{number(samples.p50)} {unit} (n={samples.count})"


def number(value: float) -> str:
    """Three digits that count, and no more."""
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio_of(ours: float, theirs: float) -> float | None:
    """How many times theirs ours is; ``None`` where that says nothing."""
    return None if math.isnan(ours) or math.isnan(theirs) or theirs <= 0 else ours / theirs


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        id: stable, for JSON and comparisons between runs.
        what: is measured, for people.
        measured: ours.
        beside: the peer or floor of the same run, or why there is none.
        ratio: ours / theirs.
        figure: what the design wants.
        reached: ``None`` where the run cannot tell.
        values: what JSON has; the keys name the unit.
    """

    id: str
    what: str
    measured: str
    beside: str
    ratio: float | None
    figure: str
    reached: bool | None
    values: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """One object of the JSON."""
        return {
            "id": self.id,
            "what": self.what,
            "measured": self.measured,
            "beside": self.beside,
            "ratio": self.ratio,
            "figure": self.figure,
            "reached": self.reached,
            **self.values,
        }
