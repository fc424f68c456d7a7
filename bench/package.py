"""The packaged agent, with a Python of its own, beside the one of this environment: start, and memory with everything on.

Needs root and the tree that `make rpm` leaves, named by PACKAGE_TREE; without it nothing is measured.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.model import Row, Samples, median, ratio_of
from bench.plugins import SETTLE_SECONDS, agent, kubelet_in
from bench.processes import agent_command, memory_kib

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from bench.model import Scale
    from bench.processes import Child

_DEVICES = 250
_START_MS = 300.0
_MIB = {"rss": ("resident", 56.0), "anonymous": ("anonymous", 28.0)}
# The tree as a root, with what the kernel gives and the folder of the bench. Nothing is written into the tree.
_ROOT = """
set -e
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir usr etc proc sys dev run var tmp
for part in usr etc; do mount --bind "$2/$part" $part; done
for part in proc sys dev; do mount --rbind /$part $part; done
mkdir -p "$1$3"
mount --bind "$3" "$1$3"
echo ready
exec sleep infinity
"""


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for the start, one for each way to count memory."""
    tree = os.environ.get("PACKAGE_TREE")
    if not tree:
        return []
    starts: tuple[list[float], list[float]] = ([], [])
    memory: tuple[list[dict[str, int]], list[dict[str, int]]] = ([], [])
    with _root(Path(tree).resolve(), folder) as packaged:
        # Both are started through the same two programs, which become the agent.
        ways = (packaged, ["nsenter", "--mount=/proc/self/ns/mnt", "chroot", "/", *agent_command()])
        for index in range(scale.count(15, 5)):
            for way, times, sizes in zip(ways, starts, memory, strict=True):
                async with _running(folder, way) as (child, milliseconds):
                    times.append(milliseconds)
                    if index < scale.count(3, 1):
                        await asyncio.sleep(SETTLE_SECONDS)
                        sizes.append(memory_kib(child.pid))
    return [_start_row(*map(Samples.of, starts)), *(_memory_row(kind, *memory) for kind in _MIB)]


@contextmanager
def _root(tree: Path, folder: Path) -> Iterator[list[str]]:
    """How a program of the tree is started with the tree as its root; ``folder`` is where it is outside."""
    place = folder / "root"
    place.mkdir()
    command = ["unshare", "--mount", "sh", "-c", _ROOT, "sh", *map(str, (place, tree, folder))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "ready\n":
                raise RuntimeError(f"{tree} cannot be made a root; that needs root")
            namespace = f"--mount=/proc/{holder.pid}/ns/mnt"
            yield ["nsenter", namespace, "chroot", str(place), "/usr/bin/kata-node-agent"]
        finally:
            holder.kill()


@asynccontextmanager
async def _running(folder: Path, start: Sequence[str]) -> AsyncIterator[tuple[Child, float]]:
    """An agent that is registered, and how many milliseconds after its start it was."""
    async with kubelet_in(folder / "a") as kubelet:
        child = agent(folder / "a", _DEVICES, everything=True, start=start)
        try:
            if not await kubelet.registered(_DEVICES):
                raise RuntimeError(f"not registered:\n{child.last_words()}")
            yield child, (kubelet.done_ns - child.started_ns) / 1e6
        finally:
            await child.stop()


def _start_row(packaged: Samples, installed: Samples) -> Row:
    return Row(
        id="package-start",
        what="process start → registered, everything, packaged",
        measured=median(packaged, "ms"),
        beside=f"in this environment: {median(installed, 'ms')}",
        ratio=ratio_of(packaged.p50, installed.p50),
        figure=f"≤ {_START_MS:.0f} ms",
        reached=packaged.p50 <= _START_MS,
        values={"packaged_ms": packaged.to_json(), "installed_ms": installed.to_json()},
    )


def _memory_row(kind: str, *sides: list[dict[str, int]]) -> Row:
    word, figure = _MIB[kind]
    packaged, installed = (Samples.of([read[kind] / 1024 for read in side]) for side in sides)
    return Row(
        id=f"package-{kind}",
        what=f"{word} memory, everything, packaged",
        measured=median(packaged, "MiB"),
        beside=f"in this environment: {median(installed, 'MiB')}",
        ratio=ratio_of(packaged.p50, installed.p50),
        figure=f"≤ {figure:.0f} MiB",
        reached=packaged.p50 <= figure,
        values={"packaged_mib": packaged.to_json(), "installed_mib": installed.to_json()},
    )
