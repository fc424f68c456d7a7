"""Answers to the container runtime over NRI, beside an echo of the same framing; a restarted runtime; a budget that holds."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.model import Row, Samples, ratio_of, spread
from bench.processes import program, running
from bench.programs.nri import MIB, account_in, plugin_on
from kata_node_agent.capacity.free import ALLOCATABLE
from kata_node_agent.errors import NriError
from kata_node_agent.nri.client import Client
from tests.nri.runtime import Runtime, container, pod

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from bench.model import Scale
    from kata_node_agent.pb import nri_pb2

_VMS = 500
_LISTED = 200
_STEPS = 1000
_FIGURE_MS = 5.0
_FIGURE_RESTART_MS = 1000.0
_GIB = 1 << 30
# What a container's description takes beside what we read of it: mounts, environment, devices.
_DESCRIPTION_BYTES = 6000
_TAKEN_SECONDS = 20.0


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Answers with VMs, and on a busy machine; a restart; the budget."""
    # Refusals are what is measured here, no news.
    logging.getLogger("kata_node_agent").setLevel(logging.ERROR)
    pods = scale.count(500, 50)
    async with AsyncExitStack() as stack:
        sides = []
        for name in ("account", "echo"):
            own = folder / name
            own.mkdir()
            runtime = await stack.enter_async_context(Runtime(own / "nri.sock"))
            command = program("nri", name, runtime.path, *([own, _VMS] if name == "account" else []))
            stack.enter_context(running(command, own / "log"))
            await _taken(runtime)
            sides.append(runtime)
        words = f"with {_VMS} VMs that are looked at"
        quiet = _answers("vms", words, *await _in_turn(sides, pods), judged=True)
        with _busy(folder):
            # The machine's share is the larger one then: the echo tells.
            loud = _answers("busy", "the same on a busy machine", *await _in_turn(sides, pods))
    return [quiet, loud, await _restart(scale.count(50, 10), folder), await _budget(scale, folder)]


async def _taken(runtime: Runtime) -> None:
    async with asyncio.timeout(_TAKEN_SECONDS):
        await runtime.taken.wait()


@contextmanager
def _busy(folder: Path) -> Iterator[None]:
    """A burner for each CPU; no nicer than the plugin is."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            stack.enter_context(running(program("noise", "cpu"), folder / "noise.log"))
        yield


async def _in_turn(sides: list[Runtime], pods: int) -> list[list[float]]:
    """Milliseconds of each question, of ours and of the echo."""
    taken: list[list[float]] = [[], []]
    for number in range(pods):
        for runtime, times in zip(sides, taken, strict=True):
            one = pod(number, _GIB)
            await _timed(times, runtime.run, one)
            await _timed(times, runtime.create, one, container(one, "main", _GIB))
            await runtime.end(one)
    return taken


async def _timed(
    times: list[float],
    ask: Callable[..., Awaitable[None]],
    *arguments: nri_pb2.PodSandbox | nri_pb2.Container,
) -> None:
    begin = time.perf_counter_ns()
    await ask(*arguments)
    times.append((time.perf_counter_ns() - begin) / 1e6)


def _answers(name: str, words: str, ours: list[float], theirs: list[float], *, judged: bool = False) -> Row:
    mine, echo = Samples.of(ours), Samples.of(theirs)
    return Row(
        id=f"nri-answer-{name}",
        what=f"NRI: RunPodSandbox and CreateContainer answered, {words}",
        measured=spread(mine, "ms"),
        beside=f"echo of the same framing: {spread(echo, 'ms')}",
        ratio=ratio_of(mine.p50, echo.p50),
        figure=f"p99 ≤ {_FIGURE_MS:.0f} ms" if judged else "–",
        reached=mine.p99 <= _FIGURE_MS if judged else None,
        values={"ours_ms": mine.to_json(), "floor_ms": echo.to_json()},
    )


async def _restart(times: int, folder: Path) -> Row:
    """A runtime with pods begins to listen, anew each time: how long until it has taken our plugin in."""
    own = folder / "restart"
    own.mkdir()
    pods = [pod(number, _GIB) for number in range(_LISTED)]
    containers = [container(one, "main", _GIB) for one in pods]
    for one in containers:
        # A field that we do not read; its bytes are on the wire all the same.
        one.MergeFromString(b"\x42\xf0\x2e" + os.urandom(_DESCRIPTION_BYTES))
    account = account_in(own, 1 << 46)
    client = asyncio.create_task(Client(own / "nri.sock", plugin_on(account)).run())
    found: list[float] = []
    try:
        for _ in range(times):
            await asyncio.sleep(random.uniform(0, 0.05))
            begin = time.perf_counter_ns()
            async with Runtime(own / "nri.sock", pods=pods, containers=containers) as runtime:
                await _taken(runtime)
                found.append((time.perf_counter_ns() - begin) / 1e6)
    finally:
        client.cancel()
        await asyncio.wait([client])
        account.close()
    samples = Samples.of(found)
    return Row(
        id="nri-restart",
        what=f"NRI: a runtime listens → synchronized, {_LISTED} pods",
        measured=spread(samples, "ms"),
        beside="– (no other plugin in Python)",
        ratio=None,
        figure=f"≤ {_FIGURE_RESTART_MS / 1000:.0f} s",
        reached=samples.p99 <= _FIGURE_RESTART_MS,
        values={"ours_ms": samples.to_json()},
    )


async def _budget(scale: Scale, folder: Path) -> Row:
    """Pods that come and go at random: whether more than the budget was ever promised."""
    own = folder / "budget"
    own.mkdir()
    steps, over, refused = scale.count(_STEPS, _STEPS), 0, 0
    budget = 40 * _GIB
    chance = random.Random(8)
    account = account_in(own, budget)
    client = asyncio.create_task(Client(own / "nri.sock", plugin_on(account)).run())
    alive: list[nri_pb2.PodSandbox] = []
    try:
        async with Runtime(own / "nri.sock") as runtime:
            await _taken(runtime)
            for number in range(steps):
                if alive and chance.random() < 0.45:
                    await runtime.end(alive.pop(chance.randrange(len(alive))))
                else:
                    new = pod(number, chance.choice([0, 512 * MIB, 2 * _GIB]))
                    try:
                        await runtime.run(new)
                        alive.append(new)
                        await runtime.create(new, container(new, "main", chance.choice([0, 2 * _GIB])))
                    except NriError:
                        refused += 1
                account.observe({}, time.monotonic())
                over += account.book.committed.get(ALLOCATABLE, 0) > budget
    finally:
        client.cancel()
        await asyncio.wait([client])
        account.close()
    return Row(
        id="nri-budget",
        what=f"NRI: {steps:,} random steps of pods that come and go",
        measured=f"{over} over budget, {refused} refused",
        beside="–",
        ratio=None,
        figure="0 over budget",
        reached=over == 0,
        values={"steps": steps, "over": over, "refused": refused},
    )
