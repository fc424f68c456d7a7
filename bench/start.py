"""From the start of the process to kubelet's yes, and to all places shown: the real command beside a bare plugin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.model import Row, Samples, median, number, ratio_of
from bench.plugins import agent, bare, pair
from bench.processes import cpu_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.model import Scale
    from bench.plugins import StampedKubelet
    from bench.processes import Child

_DEVICES = 250
_FIGURES_MS = {"plugin path": 200.0, "everything": 300.0}


@dataclass(frozen=True, slots=True)
class _Start:
    """Milliseconds until kubelet has taken it in, until all its devices are healthy there, and of CPU time until then."""

    registered: float
    shown: float
    cpu: float


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for the plugin path alone, one for all that a node gets; the floor of both is the same."""
    taken: dict[str, list[_Start]] = {"plugin path": [], "everything": [], "bare": []}
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
    return [_row(extent, taken[extent], taken["bare"]) for extent in _FIGURES_MS]


def _row(extent: str, ours: list[_Start], theirs: list[_Start]) -> Row:
    registered, floor = (Samples.of([one.registered for one in side]) for side in (ours, theirs))
    cpu, floor_cpu = (Samples.of([one.cpu for one in side]) for side in (ours, theirs))
    shown = Samples.of([one.shown for one in ours])
    return Row(
        id="start-" + extent.replace(" ", "-"),
        what=f"process start → registered, {extent}",
        measured=f"{median(registered, 'ms')}, {number(cpu.p50)} of CPU; all places shown {number(shown.p50)} ms",
        beside=f"bare Python + grpcio: {median(floor, 'ms')}, {number(floor_cpu.p50)} of CPU",
        ratio=ratio_of(registered.p50, floor.p50),
        figure=f"≤ {_FIGURES_MS[extent]:.0f} ms",
        reached=registered.p50 <= _FIGURES_MS[extent],
        values={
            "ours_ms": registered.to_json(),
            "ours_shown_ms": shown.to_json(),
            "ours_cpu_ms": cpu.to_json(),
            "floor_ms": floor.to_json(),
            "floor_cpu_ms": floor_cpu.to_json(),
        },
    )


async def _start_once(kubelet: StampedKubelet, start: Callable[[], Child]) -> _Start:
    """One start; the process is gone afterwards."""
    kubelet.forget()
    child = start()
    try:
        if not await kubelet.registered(_DEVICES):
            raise RuntimeError(f"not registered:\n{child.last_words()}")
        now, cpu = time.monotonic_ns(), cpu_nanoseconds(child.pid)
        return _Start((kubelet.done_ns - child.started_ns) / 1e6, (now - child.started_ns) / 1e6, cpu / 1e6)
    finally:
        await child.stop()
