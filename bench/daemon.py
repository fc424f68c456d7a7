"""The whole agent beside 500 sandboxes: memory, CPU time at rest, and a durable admission while it sweeps."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import grpc

from bench.model import Row, Samples, number, ratio_of, spread
from bench.plugins import agent, kubelet_in
from bench.processes import cpu_nanoseconds, memory_kib
from bench.sandboxes import CANNOT, compile_stand_in, standing_in
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from kata_node_agent.sockets import unix_target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale

_SANDBOXES = 500
_SEEN_SECONDS = 60.0
# All of them are swept, their costs are read in turn, and the memory is looked at some times.
_SETTLE_SECONDS = 20.0
_FIGURE_MS = 1.0
_FIGURES_MIB = {"rss": 60.0, "anonymous": 32.0}
# What 500 stand-ins are promised is more than this machine has: nothing is refused, and all is written.
_SETTINGS = """
[accounting]
pressure_stop = false
"""


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for each kind of memory, one for CPU time at rest, and one for admissions."""
    program = folder / "stand_in"
    if os.geteuid() != 0 or not compile_stand_in(program):
        names = [f"daemon-{name}" for name in (*_FIGURES_MIB, "cpu", "admission")]
        return [Row(name, name, "–", CANNOT, None, "–", None) for name in names]
    count = scale.count(_SANDBOXES, 100)
    with standing_in(program, count, 1):
        async with kubelet_in(folder):
            child = agent(folder, 1000, everything=True, more=_SETTINGS, mode="off")
            try:
                async with grpc.aio.insecure_channel(unix_target(folder / "run" / "agent.sock")) as channel:
                    stub: Any = agent_pb2_grpc.NodeAgentStub(channel)
                    await _until_seen(stub, count)
                    await asyncio.sleep(scale.seconds(_SETTLE_SECONDS, _SETTLE_SECONDS / 2))
                    weighed = memory_kib(child.pid)
                    rows = [_memory(kind, weighed[kind] / 1024, count) for kind in _FIGURES_MIB]
                    rows.append(await _at_rest(child.pid, scale.seconds(30, 10), count))
                    # Longer than from one sweep to the next.
                    return [*rows, await _admissions(stub, scale.seconds(30, 12), count)]
            except (TimeoutError, grpc.RpcError) as error:
                raise RuntimeError(f"{error}:\n{child.last_words()}") from error
            finally:
                await child.stop()


async def _until_seen(stub: Any, count: int) -> None:
    async with asyncio.timeout(_SEEN_SECONDS):
        while True:
            listed = await stub.ListAdmissions(pb.ListAdmissionsRequest(), wait_for_ready=True)
            if len(listed.admissions) >= count:
                return
            await asyncio.sleep(0.2)


async def _admissions(stub: Any, seconds: float, count: int) -> Row:
    ours: list[float] = []
    floor: list[float] = []
    number, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        number += 1
        begin = time.perf_counter_ns()
        # The cheapest call that there is: it looks nothing up.
        await stub.Release(pb.ReleaseRequest(sandbox="nobody"))
        between = time.perf_counter_ns()
        await stub.Admit(
            pb.Claim(sandbox=f"{number:064x}", vm_bytes=1 << 20, pod=f"bench/{number}", handler="kata")
        )
        ours.append((time.perf_counter_ns() - between) / 1e6)
        floor.append((between - begin) / 1e6)
        await stub.Release(pb.ReleaseRequest(sandbox=f"{number:064x}"))
    mine, theirs = Samples.of(ours), Samples.of(floor)
    return Row(
        id="daemon-admission",
        what=f"Admit at the whole agent, durable, beside {count} VMs that it sweeps",
        measured=spread(mine, "ms"),
        beside=f"a call that does nothing: {spread(theirs, 'ms')}",
        ratio=ratio_of(mine.p50, theirs.p50),
        figure=f"p99 ≤ {_FIGURE_MS:g} ms",
        reached=mine.p99 <= _FIGURE_MS,
        values={"ours_ms": mine.to_json(), "floor_ms": theirs.to_json()},
    )


async def _at_rest(pid: int, seconds: float, count: int) -> Row:
    begin, before = time.monotonic_ns(), cpu_nanoseconds(pid)
    await asyncio.sleep(seconds)
    percent = (cpu_nanoseconds(pid) - before) / (time.monotonic_ns() - begin) * 100
    figure = count / 100
    return Row(
        id="daemon-cpu",
        what=f"CPU time of the whole agent, {count} sandboxes at rest, over {seconds:.0f} s",
        measured=f"{number(percent)} % of a core",
        beside="none",
        ratio=None,
        figure=f"≤ {figure:g} %",
        reached=percent <= figure,
        values={"percent": percent, "seconds": seconds},
    )


def _memory(kind: str, mib: float, count: int) -> Row:
    words = {"rss": "resident", "anonymous": "anonymous"}
    return Row(
        id=f"daemon-{kind}",
        what=f"{words[kind]} memory of the whole agent, {count} sandboxes",
        measured=f"{mib:.1f} MiB",
        beside="none",
        ratio=None,
        figure=f"≤ {_FIGURES_MIB[kind]:.0f} MiB",
        reached=mib <= _FIGURES_MIB[kind],
        values={"mib": mib},
    )
