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
    from bench.plugins import StampedKubelet

_DEVICES = 250
_FIGURES_MIB = {"rss": 44.0, "anonymous": 20.0, "pss": None}
_WORDS = {"rss": "resident (RSS)", "anonymous": "anonymous", "pss": "proportional (PSS)"}


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for each way to count; medians over fresh processes."""
    calls = scale.count(1000, 1000)
    found: list[list[dict[str, int]]] = [[], []]
    async with pair(folder) as plugins:
        for _ in range(scale.count(3, 1)):
            async with plugins.running(_DEVICES) as children:
                for kubelet, child, memory in zip(plugins.kubelets, children, found, strict=True):
                    await _allocate(kubelet, calls)
                    memory.append(memory_kib(child.pid))
    return [
        _row(kind, calls, *([read[kind] for read in side if kind in read] for side in found))
        for kind in _WORDS
    ]


async def _allocate(kubelet: StampedKubelet, calls: int) -> None:
    """More calls than devices: the later ones are for devices that kubelet got back from pods long gone."""
    async with grpc.aio.insecure_channel(f"unix:{kubelet.plugin_socket()}") as channel:
        call = allocate_call(channel)
        for index in range(calls):
            await call(request_for(index % _DEVICES))


def _row(kind: str, calls: int, ours_kib: list[int], theirs_kib: list[int]) -> Row:
    ours, theirs = (Samples.of([value / 1024 for value in side]) for side in (ours_kib, theirs_kib))
    figure = _FIGURES_MIB[kind]
    return Row(
        id=f"memory-{kind}",
        what=f"{_WORDS[kind]} memory, {_DEVICES} devices, after {calls:,} Allocate",
        measured=median(ours, "MiB") if ours.count else "cannot be read here",
        beside=f"bare Python + grpcio: {median(theirs, 'MiB')}" if theirs.count else "cannot be read here",
        ratio=ratio_of(ours.p50, theirs.p50),
        figure="–" if figure is None else f"≤ {figure:.0f} MiB",
        reached=None if figure is None or not ours.count else ours.p50 <= figure,
        values={"ours_mib": ours.to_json(), "floor_mib": theirs.to_json()},
    )
