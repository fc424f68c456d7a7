"""From the start of the process to kubelet's yes: the real command beside a bare plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.model import Row, Samples, median, ratio_of
from bench.plugins import agent, bare, pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.model import Scale
    from bench.plugins import StampedKubelet
    from bench.processes import Child

_DEVICES = 250
_FIGURE_MS = 200.0


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """One row."""
    taken: list[list[float]] = [[], []]
    async with pair(folder) as plugins:
        ways = [
            (plugins.kubelets[0], lambda: agent(folder / "a", _DEVICES)),
            (plugins.kubelets[1], lambda: bare(folder / "b", _DEVICES)),
        ]
        # The first start of each only warms the caches of files.
        for round_ in range(-1, scale.count(15, 7)):
            for (kubelet, start), times in zip(ways, taken, strict=True):
                milliseconds = await _start_once(kubelet, start)
                if round_ >= 0:
                    times.append(milliseconds)
    ours, theirs = map(Samples.of, taken)
    return [
        Row(
            id="start",
            what="process start → registered, plugin path",
            measured=median(ours, "ms"),
            beside=f"bare Python + grpcio: {median(theirs, 'ms')}",
            ratio=ratio_of(ours.p50, theirs.p50),
            figure=f"≤ {_FIGURE_MS:.0f} ms",
            reached=ours.p50 <= _FIGURE_MS,
            values={"ours_ms": ours.to_json(), "floor_ms": theirs.to_json()},
        )
    ]


async def _start_once(kubelet: StampedKubelet, start: Callable[[], Child]) -> float:
    """Milliseconds; the process is gone afterwards."""
    kubelet.forget()
    child = start()
    try:
        if not await kubelet.registered(_DEVICES):
            raise RuntimeError(f"not registered:\n{child.last_words()}")
        return (kubelet.done_ns - child.started_ns) / 1e6
    finally:
        await child.stop()
