"""What the agent and a bare plugin weigh once they have worked: 250 devices, 1,000 allocations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from bench.model import Row, Samples, median, ratio_of
from bench.plugins import allocate_call, pair, request_for
from bench.processes import memory_kib

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale
    from bench.plugins import Pair, StampedKubelet

_DEVICES = 250
_KINDS = {"rss": "resident", "anonymous": "anonymous", "pss": "proportional"}
# MiB; the proportional size depends on what else runs.
_FIGURES_MIB: dict[str, dict[str, float]] = {
    "plugin path": {"rss": 44.0, "anonymous": 20.0},
    "everything": {"rss": 56.0, "anonymous": 28.0},
}


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for each way to count, for the plugin path alone and for all that a node gets."""
    calls = scale.count(1000, 1000)
    async with pair(folder) as plugins:
        return [
            row
            for extent in _FIGURES_MIB
            for row in _rows(extent, calls, *await _weigh(plugins, extent, calls, scale.count(3, 1)))
        ]


async def _weigh(plugins: Pair, extent: str, calls: int, times: int) -> list[list[dict[str, int]]]:
    """What fresh processes weigh, in KiB by kind: those of the agent, those of the bare plugin."""
    found: list[list[dict[str, int]]] = [[], []]
    for _ in range(times):
        async with plugins.running(_DEVICES, everything=extent == "everything") as children:
            for kubelet, child, memory in zip(plugins.kubelets, children, found, strict=True):
                await _allocate(kubelet, calls)
                memory.append(memory_kib(child.pid))
    return found


async def _allocate(kubelet: StampedKubelet, calls: int) -> None:
    """More calls than devices: the later ones are for devices that kubelet got back from pods long gone."""
    async with grpc.aio.insecure_channel(f"unix:{kubelet.plugin_socket()}") as channel:
        call = allocate_call(channel)
        for index in range(calls):
            await call(request_for(index % _DEVICES))


def _rows(extent: str, calls: int, ours: list[dict[str, int]], theirs: list[dict[str, int]]) -> list[Row]:
    return [
        _row(
            extent,
            kind,
            calls,
            *(Samples.of([read[kind] / 1024 for read in side if kind in read]) for side in (ours, theirs)),
        )
        for kind in _KINDS
    ]


def _row(extent: str, kind: str, calls: int, ours: Samples, theirs: Samples) -> Row:
    figure = _FIGURES_MIB[extent].get(kind)
    return Row(
        id=f"memory-{extent.replace(' ', '-')}-{kind}",
        what=f"{_KINDS[kind]} memory, {extent}, after {calls:,} Allocate",
        measured=median(ours, "MiB") if ours.count else "cannot be read here",
        beside=f"bare Python + grpcio: {median(theirs, 'MiB')}" if theirs.count else "cannot be read here",
        ratio=ratio_of(ours.p50, theirs.p50),
        figure="–" if figure is None else f"≤ {figure:.0f} MiB",
        reached=None if figure is None or not ours.count else ours.p50 <= figure,
        values={"ours_mib": ours.to_json(), "floor_mib": theirs.to_json()},
    )
