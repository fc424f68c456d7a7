"""Kubelet restarts: how long from its socket's appearance until it is called, on a quiet and on a busy machine."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.model import Row, Samples, ratio_of, spread
from bench.plugins import pair
from bench.processes import program, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.model import Scale
    from bench.plugins import StampedKubelet
    from bench.processes import Child

_DEVICES = 10
# The bare plugin looks as often as is any use, and pays for it with CPU time; the agent sleeps.
_POLL_SECONDS = 0.001
# Kubelet is away for up to this long, so that no restart is in step with anybody's timer.
_DOWN_SECONDS = 0.05
_FIGURES_MS = {"idle": 20.0, "under load": 100.0}


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Two rows: idle, and under load."""
    restarts = scale.count(200, 30)
    async with pair(folder) as plugins, plugins.running(_DEVICES, _POLL_SECONDS) as children:
        idle = _row("idle", restarts, await _restart(plugins.kubelets, children, restarts))
        with load([kubelet.directory for kubelet in plugins.kubelets], folder):
            return [idle, _row("under load", restarts, await _restart(plugins.kubelets, children, restarts))]


async def _restart(
    kubelets: tuple[StampedKubelet, StampedKubelet], children: tuple[Child, Child], restarts: int
) -> list[list[float]]:
    """Milliseconds from socket to Register, of the agent and of the bare plugin, in turn; a restart without is left out."""
    taken: list[list[float]] = [[], []]
    for _ in range(restarts):
        for kubelet, child, times in zip(kubelets, children, taken, strict=True):
            await kubelet.restart(random.uniform(0, _DOWN_SECONDS))
            if await kubelet.registered(_DEVICES):
                times.append(kubelet.register_ms)
            elif not child.alive:
                raise RuntimeError(f"ended by itself:\n{child.last_words()}")
            # Until the plugin's own calls after the registration are over.
            await asyncio.sleep(0.02)
    return taken


@contextmanager
def load(folders: list[Path], logs: Path) -> Iterator[None]:
    """A burner for each CPU, and a process that changes files where the plugins watch; no nicer than they are."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            stack.enter_context(running(program("noise", "cpu"), logs / "noise.log"))
        stack.enter_context(running(program("noise", "files", *folders), logs / "noise.log"))
        yield


def _row(state: str, restarts: int, taken: list[list[float]]) -> Row:
    ours, theirs = map(Samples.of, taken)
    lost = restarts - ours.count
    return Row(
        id="registration-" + state.replace(" ", "-"),
        what=f"kubelet.sock appears → Register called, {state}",
        measured=spread(ours, "ms") + (f", {lost} LOST" if lost else ""),
        beside=f"bare plugin, polls each ms: {spread(theirs, 'ms')}",
        ratio=ratio_of(ours.p50, theirs.p50),
        figure=f"p99 ≤ {_FIGURES_MS[state]:.0f} ms",
        reached=not lost and ours.p99 <= _FIGURES_MS[state],
        values={"ours_ms": ours.to_json(), "floor_ms": theirs.to_json(), "lost": lost},
    )
