"""A durable admission over the API beside 500 sandboxes, and beside an empty call of the same server."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench.account_of import SANDBOXES, Fleet
from bench.model import Row, Samples, Scale, ratio_of, spread
from kata_node_agent.api.server import SOCKET_NAME, ApiServer
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from kata_node_agent.sockets import unix_target
from tests.api.keeper import TestKeeper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_FIGURE_MS = 1.0
_SWEEP_SECONDS = 0.5


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """One row: an admission is another one each time, and is written before it is answered."""
    count = scale.count(3000, 300)
    # As the run directory is: a tmpfs.
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kna-") as ledger:
        fleet = Fleet(Path(ledger))
        server = ApiServer(folder, pb.Status, dict, _nothing, TestKeeper(fleet))
        await server.start()
        sweeping = asyncio.create_task(_sweep(fleet))
        try:
            async with grpc.aio.insecure_channel(unix_target(folder / SOCKET_NAME)) as channel:
                stub: Any = agent_pb2_grpc.NodeAgentStub(channel)
                ours, floor = await _time_both(stub, count)
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await server.stop()
            fleet.account.close()
    return [_row(ours, floor)]


async def _nothing() -> pb.Node:
    return pb.Node()


async def _sweep(fleet: Fleet) -> None:
    """What the daemon does meanwhile: looks at all VMs and at the memory."""
    while True:
        fleet.change(SANDBOXES // 20)
        fleet.look()
        await asyncio.sleep(_SWEEP_SECONDS)


async def _time_both(stub: Any, count: int) -> tuple[Samples, Samples]:
    ours: list[float] = []
    floor: list[float] = []
    status = pb.GetStatusRequest()
    for number in range(count + count // 10):
        claim = pb.Claim(
            sandbox=f"{number:064x}", vm_bytes=1 << 20, pod=f"bench/pod-{number}", handler="kata"
        )
        empty = await _timed(lambda: stub.GetStatus(status))
        admitted = await _timed(lambda claim=claim: stub.Admit(claim))  # type: ignore[misc]
        # Untimed: the number of sandboxes stays.
        await stub.Release(pb.ReleaseRequest(sandbox=claim.sandbox))
        if number >= count // 10:
            ours.append(admitted)
            floor.append(empty)
    return Samples.of(ours), Samples.of(floor)


async def _timed(call: Callable[[], Awaitable[Any]]) -> float:
    begin = time.perf_counter_ns()
    await call()
    return (time.perf_counter_ns() - begin) / 1e6


def _row(ours: Samples, floor: Samples) -> Row:
    return Row(
        id="admission",
        what=f"Admit over the API, durable, {SANDBOXES} sandboxes, sweeping",
        measured=spread(ours, "ms"),
        beside=f"empty call: {spread(floor, 'ms')}",
        ratio=ratio_of(ours.p50, floor.p50),
        figure=f"p99 ≤ {_FIGURE_MS:g} ms",
        reached=ours.p99 <= _FIGURE_MS,
        values={"ours_ms": ours.to_json(), "floor_ms": floor.to_json()},
    )
