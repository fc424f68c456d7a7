"""Allocate over the plugin's socket, beside a handler of the same kind of server that does nothing, call by call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc

from bench.model import Row, Samples, ratio_of, spread
from bench.plugins import allocate_call, pair, request_for

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale
    from bench.plugins import Pair

# A large node, and what the default of max_slots allows.
_SIZES = (250, 1000)
# Of the devices of each fresh process. A device is allocated once, as a real kubelet does.
_WARM_UP_SHARE = 0.2
_FIGURE_RATIO = 1.2
_FIGURE_P99_MS = 1.5


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """One row for each size of node."""
    calls = scale.count(2000, 400)
    async with pair(folder) as plugins:
        return [_row(devices, *await _in_rounds(plugins, devices, calls)) for devices in _SIZES]


async def _in_rounds(plugins: Pair, devices: int, calls: int) -> tuple[Samples, Samples]:
    """Fresh processes, until so many calls are timed."""
    ours: list[float] = []
    theirs: list[float] = []
    warm_up = int(devices * _WARM_UP_SHARE)
    while len(ours) < calls:
        async with plugins.running(devices):
            sockets = [f"unix:{kubelet.plugin_socket()}" for kubelet in plugins.kubelets]
            async with grpc.aio.insecure_channel(sockets[0]) as a, grpc.aio.insecure_channel(sockets[1]) as b:
                sides = [(allocate_call(a), ours), (allocate_call(b), theirs)]
                for index in range(min(devices, warm_up + calls - len(ours))):
                    # Each goes first every other time.
                    for call, times in sides if index % 2 else reversed(sides):
                        milliseconds = await _timed(call, index)
                        if index >= warm_up:
                            times.append(milliseconds)
    return Samples.of(ours), Samples.of(theirs)


async def _timed(call: Any, index: int) -> float:
    request = request_for(index)
    begin = time.perf_counter_ns()
    await call(request)
    return (time.perf_counter_ns() - begin) / 1e6


def _row(devices: int, ours: Samples, theirs: Samples) -> Row:
    ratio = ratio_of(ours.p50, theirs.p50)
    return Row(
        id=f"allocate-{devices}",
        what=f"Allocate, {devices:,} devices",
        measured=spread(ours, "ms"),
        beside=f"empty handler: {spread(theirs, 'ms')}",
        ratio=ratio,
        figure=f"p50 ≤ {_FIGURE_RATIO} ×, p99 ≤ {_FIGURE_P99_MS} ms",
        reached=ratio is not None and ratio <= _FIGURE_RATIO and ours.p99 <= _FIGURE_P99_MS,
        values={"ours_ms": ours.to_json(), "floor_ms": theirs.to_json()},
    )
