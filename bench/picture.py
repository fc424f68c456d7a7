"""Lines over a day as one SVG, readable on a light and on a dark page. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, PANEL, GAP, LEFT, TOP = 900, 220, 56, 52, 40
# Twenty samples an hour show all that lasts.
_POINTS = 480
_STYLE = (
    "text{fill:#57606a} .grid{stroke:#8c959f;stroke-opacity:.35} path{fill:none;stroke-width:1.4}"
    "@media(prefers-color-scheme:dark){text{fill:#9198a1}}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A name, points (hour, value) in order, and a colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str


def draw(title: str, panels: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """One panel below the other; each has its unit at the left and its names above."""
    height = TOP + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f"<style>{_STYLE}</style>",
        f'<text x="{LEFT}" y="18" font-size="15">{escape(title)}</text>',
    ]
    for number, (unit, lines) in enumerate(panels):
        parts += _panel(TOP + number * (PANEL + GAP) + 20, unit, lines)
    return "\n".join([*parts, "</svg>", ""])


def _panel(top: int, unit: str, lines: Sequence[Line]) -> list[str]:
    most = max(value for line in lines for _, value in line.points) * 1.05 or 1.0
    wide = WIDTH - LEFT - 16

    def place(hour: float, value: float) -> str:
        return f"{LEFT + hour / 24 * wide:.1f},{top + PANEL - max(0.0, value) / most * PANEL:.1f}"

    parts = [f'<text x="8" y="{top - 8}">{escape(unit)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + PANEL - share * PANEL
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{most * share:.0f}</text>')
    for hour in range(0, 25, 3):
        x = LEFT + hour / 24 * wide
        parts.append(f'<text x="{x:.1f}" y="{top + PANEL + 16}" text-anchor="middle">{hour}:00</text>')
    for number, line in enumerate(lines):
        each = max(1, len(line.points) // _POINTS)
        path = " L".join(place(*point) for point in line.points[::each])
        parts.append(f'<path stroke="{line.colour}" d="M{path}"/>')
        x = LEFT + number * 210
        parts.append(f'<rect x="{x}" y="{top - 16}" width="14" height="4" fill="{line.colour}"/>')
        parts.append(f'<text x="{x + 20}" y="{top - 8}">{escape(line.name)}</text>')
    return parts
