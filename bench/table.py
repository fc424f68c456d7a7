"""The one table at the end, and its JSON."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.model import Row

SCHEMA = "kata-node-agent/bench/v1"
_HEAD = (
    "what",
    "measured (p50 / p99, or median)",
    "peer or floor of the same run",
    "ratio",
    "figure",
    "reached",
)
_REACHED = {True: "yes", False: "NO", None: "–"}


def render(rows: Sequence[Row]) -> str:
    """A table that is also Markdown."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    shown = [_line(line, widths) for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([shown[0], rule, *shown[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
    return row.what, row.measured, row.beside, ratio, row.figure, _REACHED[row.reached]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def to_json(rows: Sequence[Row]) -> dict[str, object]:
    """The run, with what of the machine it depends on."""
    return {
        "schema": SCHEMA,
        "machine": {
            "arch": platform.machine(),
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "grpcio": version("grpcio"),
            "protobuf": version("protobuf"),
            "load_average": os.getloadavg()[0],
        },
        "rows": [row.to_json() for row in rows],
    }
