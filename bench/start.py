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
_FIGURES_MS = {"plugin path": 200.0, "everything": 300.0}


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for the plugin path alone, one for all that a node gets; the floor of both is the same."""
    taken: dict[str, list[float]] = {"plugin path": [], "everything": [], "bare": []}
    async with pair(folder) as plugins:
        ours, theirs = plugins.kubelets
        ways: dict[str, tuple[StampedKubelet, Callable[[], Child]]] = {
            "plugin path": (ours, lambda: agent(folder / "a", _DEVICES)),
            "everything": (ours, lambda: agent(folder / "a", _DEVICES, everything=True)),
            "bare": (theirs, lambda: bare(folder / "b", _DEVICES)),
        }
        for _ in range(scale.count(15, 7)):
            for name, (kubelet, start) in ways.items():
                taken[name].append(await _start_once(kubelet, start))
    floor = Samples.of(taken["bare"])
    return [_row(extent, Samples.of(taken[extent]), floor) for extent in _FIGURES_MS]


def _row(extent: str, ours: Samples, floor: Samples) -> Row:
    return Row(
        id="start-" + extent.replace(" ", "-"),
        what=f"process start → registered, {extent}",
        measured=median(ours, "ms"),
        beside=f"bare Python + grpcio: {median(floor, 'ms')}",
        ratio=ratio_of(ours.p50, floor.p50),
        figure=f"≤ {_FIGURES_MS[extent]:.0f} ms",
        reached=ours.p50 <= _FIGURES_MS[extent],
        values={"ours_ms": ours.to_json(), "floor_ms": floor.to_json()},
    )


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
