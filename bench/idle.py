"""CPU time of the registered agent when nothing happens, for a whole minute: one of everything it does by itself."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.model import Row, number, ratio_of
from bench.plugins import pair
from bench.processes import cpu_nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale

_DEVICES = 250
_FIGURE_PERCENT = 0.2


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """One row; both are watched at the same time, as neither does much."""
    seconds = scale.seconds(60, 10)
    async with pair(folder) as plugins, plugins.running(_DEVICES, everything=True) as children:
        begin, before = time.monotonic_ns(), [cpu_nanoseconds(child.pid) for child in children]
        await asyncio.sleep(seconds)
        after = [cpu_nanoseconds(child.pid) for child in children]
        elapsed = time.monotonic_ns() - begin
    ours, theirs = ((end - start) / elapsed * 100 for start, end in zip(before, after, strict=True))
    return [
        Row(
            id="idle-cpu",
            what=f"idle CPU, everything on, over {seconds:.0f} s",
            measured=f"{number(ours)} % of a core",
            beside=f"bare plugin that never looks: {theirs:.3f} %",
            ratio=ratio_of(ours, theirs),
            figure=f"≤ {_FIGURE_PERCENT} % of a core",
            reached=ours <= _FIGURE_PERCENT,
            values={"ours_percent": ours, "floor_percent": theirs, "seconds": seconds},
        )
    ]
