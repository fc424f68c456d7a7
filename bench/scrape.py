"""A scrape of a real agent with 200 sandboxes, beside the library's writer with the same samples; memory once scraped."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from typing import TYPE_CHECKING

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bench.model import Row, Samples, median, ratio_of, spread
from bench.processes import Child, agent_command, cpu_nanoseconds, memory_kib, running
from bench.sandboxes import compile_stand_in, standing_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from bench.model import Scale

_SANDBOXES = 200
_FIGURE_MS = 20.0
_FIGURE_MIB = 60.0
_WAIT_SECONDS = 60.0
_SERIES = b'kata_node_agent_sandbox_bytes{kind="vm_memory"'


class _Same:
    """What was scraped, as a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        """All of it."""
        return self._families


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A row for the time of a scrape, and one for memory."""
    program, count = folder / "stand_in", scale.count(_SANDBOXES, 20)
    if os.geteuid() != 0 or not compile_stand_in(program):
        why = "no processes of this kind can be made here"
        return [Row(f"scrape-{name}", name, "–", why, None, "–", None) for name in ("time", "memory")]
    with (
        standing_in(program, count, 1) as fleet,
        _by_name(folder, "kubelet"),
        _by_name(folder, "containerd"),
    ):
        agent = _start(folder)
        try:
            path = folder / "run" / "metrics.sock"
            before = await _wait_for(path, fleet.count)
            weight = memory_kib(agent.pid)
            began = cpu_nanoseconds(agent.pid)
            ours = [await asyncio.to_thread(_scrape, path) for _ in range(scale.count(50, 10))]
            cpu_ms = (cpu_nanoseconds(agent.pid) - began) / len(ours) / 1e6
            after = memory_kib(agent.pid)
        finally:
            await agent.stop()
    text = before.partition(b"\r\n\r\n")[2].decode()
    families = _Same(text_string_to_metric_families(text))
    theirs = [_ms(lambda: generate_latest(families)) for _ in range(scale.count(20, 5))]
    mine, library = Samples.of([milliseconds for milliseconds, _ in ours]), Samples.of(theirs)
    return [
        Row(
            id="scrape-time",
            what=f"a scrape of {count} sandboxes over the Unix socket, {len(text) // 1024} KiB",
            measured=f"{spread(mine, 'ms')}; {cpu_ms:.1f} ms of CPU",
            beside=f"prometheus_client only writes the same samples: {median(library, 'ms')}",
            ratio=ratio_of(mine.p50, library.p50),
            figure=f"≤ {_FIGURE_MS:.0f} ms",
            reached=mine.p50 <= _FIGURE_MS,
            values={"ours_ms": mine.to_json(), "cpu_ms": cpu_ms, "library_ms": library.to_json()},
        ),
        Row(
            id="scrape-memory",
            what=f"resident memory of an agent with {count} sandboxes, scraped {len(ours)} times",
            measured=f"{after['rss'] / 1024:.1f} MiB",
            beside=f"after the first scrape: {weight['rss'] / 1024:.1f} MiB",
            ratio=ratio_of(after["rss"], weight["rss"]),
            figure=f"≤ {_FIGURE_MIB:.0f} MiB",
            reached=after["rss"] / 1024 <= _FIGURE_MIB,
            values={"first_kib": weight, "after_kib": after},
        ),
    ]


def _by_name(folder: Path, name: str) -> AbstractContextManager[Child]:
    """A process of that name, as each node has one: it is known from look to look; one that is missing is searched for."""
    place = folder / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", place)
    return running([str(place), "infinity"], folder / f"{name}.log")


def _start(folder: Path) -> Child:
    (folder / "config.toml").write_text("[nri]\nenabled = false\n[nfd]\npublish = false\n")
    (folder / "plugins").mkdir()
    command = agent_command(
        *("run", "--config", folder / "config.toml", "--run-dir", folder / "run"),
        *("--state-dir", folder / "state", "--device-plugin-dir", folder / "plugins"),
    )
    return Child(command, folder / "log")


async def _wait_for(path: Path, count: int) -> bytes:
    """The first scrape that has all of them."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        if path.exists():
            _, answer = await asyncio.to_thread(_scrape, path)
            if answer.count(_SERIES) >= count:
                return answer
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{count} sandboxes were not scraped in {_WAIT_SECONDS:.0f} s")


def _scrape(path: Path) -> tuple[float, bytes]:
    """Milliseconds from connecting to the last byte, and all bytes."""
    begin, found = time.perf_counter(), []
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(_WAIT_SECONDS)
        peer.connect(str(path))
        peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")
        while more := peer.recv(1 << 20):
            found.append(more)
    return (time.perf_counter() - begin) * 1000, b"".join(found)


def _ms(work: object) -> float:
    begin = time.perf_counter()
    assert callable(work)
    work()
    return (time.perf_counter() - begin) * 1000
