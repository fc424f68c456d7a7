"""Following sandboxes, beside psutil reading the same from all of their processes each time; hotplug; scale; memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.model import Row, Samples, median, number, ratio_of, spread
from bench.processes import PROGRAMS
from kata_node_agent.host.root import HostRoot
from kata_node_agent.sandboxes.follow import GLANCE_SECONDS, SWEEP_SECONDS, follow
from kata_node_agent.sandboxes.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from bench.model import Scale
    from kata_node_agent.sandboxes.model import Sandbox

_SANDBOXES = 500
_GUEST_MIB = 512
_TOUCHED_MIB = 4
# Resident in every VM as that of a real one is, but shared by all: a real guest has touched several hundred MiB.
_TEMPLATE_MIB = 64
_CHANGING = 20  # one of so many changes between two sweeps
_SCALES = (10, 100, 1000)
_SWEEP_FIGURE_MS = 50.0
_PSUTIL_RATIO = 3.0
_HOTPLUG_FIGURE_SECONDS = 1.0
_CORE_FIGURE_PERCENT = 5.0  # 1 % for each 100
_LINEAR_RATIO = 1.5
CANNOT = "no processes of this kind can be made here"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Stand-ins for sandboxes: the ids of their processes, VMM first."""

    pids: list[tuple[int, int, int]]

    @property
    def count(self) -> int:
        """How many sandboxes."""
        return len(self.pids)

    def move(self, share: int) -> None:
        """One of so many touches some MiB, or gives them back."""
        for vmm, _, _ in self.pids[::share]:
            os.kill(vmm, signal.SIGUSR1)

    def plug(self, place: int) -> None:
        """One gets 128 MiB more, which no folder shows."""
        os.kill(self.pids[place % self.count][0], signal.SIGUSR2)


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Rows for a sweep, a minute, hotplug, scale and memory."""
    program = folder / "stand_in"
    if os.geteuid() != 0 or not compile_stand_in(program):
        return [_cannot(name) for name in ("sweep", "minute", "core", "hotplug", "linear", "memory")]
    rows: list[Row] = []
    with standing_in(program, scale.count(_SANDBOXES, 100)) as fleet:
        watcher, memory = _weigh(fleet)
        rows.append(_sweep(scale, fleet, watcher))
        rows += _minute(scale, fleet, watcher)
        rows.append(await _hotplug(scale, fleet))
    return [*rows, _linear(scale, program), memory]


def compile_stand_in(program: Path) -> bool:
    """Makes the program that stands in for sandboxes' processes; whether it could be made."""
    compiler = shutil.which("cc")
    source = PROGRAMS / "stand_in.c"
    if compiler is None:
        return False
    return not subprocess.run([compiler, "-O1", source, "-o", program], check=False).returncode


@contextmanager
def standing_in(program: Path, count: int, template_mib: int = _TEMPLATE_MIB) -> Iterator[Fleet]:
    """So many sandboxes for the length of a block."""
    child = subprocess.Popen(
        [program, str(count), *map(str, (_GUEST_MIB, _TOUCHED_MIB, template_mib))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A process group of its own, which it ends.
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        lines = [child.stdout.readline().split() for _ in range(count)]
        fleet = Fleet([(int(line[1]), int(line[2]), int(line[3])) for line in lines])
        _wait_until_touched(fleet, template_mib)
        yield fleet
    finally:
        child.communicate(timeout=60)


def _wait_until_touched(fleet: Fleet, template_mib: int) -> None:
    """All of them have made their mappings when the last one sleeps and has its memory."""
    deadline = time.monotonic() + 60
    for vmm, virtiofsd, _ in fleet.pids:
        for pid, wanted in (
            (vmm, _TOUCHED_MIB + template_mib),
            (virtiofsd, _TOUCHED_MIB // 2 + template_mib),
        ):
            while psutil.Process(pid).memory_info().rss < wanted << 20 and time.monotonic() < deadline:
                time.sleep(0.005)


def _weigh(fleet: Fleet) -> tuple[Watcher, Row]:
    me = psutil.Process()
    with _nothing():
        before = me.memory_info().rss
        watcher = Watcher(HostRoot())
        for _ in range(3):
            watcher.sweep()
        grown = (me.memory_info().rss - before) / (1 << 20)
    if len(watcher.sandboxes) < fleet.count:
        raise RuntimeError(f"{len(watcher.sandboxes)} sandboxes were seen, not {fleet.count}")
    return watcher, Row(
        id="sandboxes-memory",
        what=f"resident memory of following {fleet.count} sandboxes",
        measured=f"{grown:.1f} MiB",
        beside="none",
        ratio=None,
        figure="≤ 4 MiB",
        reached=grown <= 4,
        values={"mib": grown},
    )


@contextmanager
def _nothing() -> Iterator[None]:
    """Loads what a first sweep loads, so that it is not counted as the sandboxes'."""
    Watcher(HostRoot(Path("/nonexistent"))).glance()
    yield


def _sweep(scale: Scale, fleet: Fleet, watcher: Watcher) -> Row:
    processes = [psutil.Process(pid) for pids in fleet.pids for pid in pids]
    ours, theirs = [], []
    for _ in range(scale.count(30, 5)):
        ours.append(_cpu_ms(watcher.sweep))
    for _ in range(scale.count(3, 2)):
        theirs.append(_cpu_ms(lambda: _by_psutil(processes)))
    mine, others = Samples.of(ours), Samples.of(theirs)
    return Row(
        id="sandboxes-sweep",
        what=f"CPU time of one sweep of {fleet.count} sandboxes at rest",
        measured=median(mine, "ms"),
        beside=f"psutil, memory_full_info of their {len(processes)} processes: {median(others, 'ms')}",
        ratio=ratio_of(mine.p50, others.p50),
        figure=f"≤ {_SWEEP_FIGURE_MS:.0f} ms",
        reached=mine.p50 <= _SWEEP_FIGURE_MS,
        values={"ours_ms": mine.to_json(), "psutil_ms": others.to_json()},
    )


def _by_psutil(processes: list[psutil.Process]) -> int:
    return sum(process.memory_full_info().pss for process in processes)


def _minute(scale: Scale, fleet: Fleet, watcher: Watcher) -> list[Row]:
    """A minute's glances and sweeps, one sandbox in twenty changing before each sweep; psutil reads all at each sweep."""
    rounds = round(60 / SWEEP_SECONDS)
    glances = round(SWEEP_SECONDS / GLANCE_SECONDS)
    done = scale.count(rounds, 2)
    ours = theirs = 0.0
    processes = [psutil.Process(pid) for pids in fleet.pids for pid in pids]
    differences: list[float] = []
    for _ in range(done):
        before = _resident(fleet)
        fleet.move(_CHANGING)
        _wait_for_change(fleet, before)
        # As `follow` does it: all processes are listed every other second.
        ours += sum(_cpu_ms(partial(watcher.glance, processes=n % 4 == 0)) for n in range(glances))
        ours += _cpu_ms(watcher.sweep)
        truth: list[int] = []
        theirs += _cpu_ms(lambda truth=truth: truth.append(_by_psutil(processes)))  # type: ignore[misc]
        members = {pid for pids in fleet.pids for pid in pids}
        mine = sum(_without_page_tables(sandbox) for sandbox in watcher.sandboxes if sandbox.pid in members)
        differences.append(abs(mine - truth[0]) / truth[0])
    ours, theirs = ours * rounds / done, theirs * rounds / done
    ratio = theirs / ours
    percent = ours / 60_000 * 100
    return [
        Row(
            id="sandboxes-minute",
            what=f"CPU time a minute, {fleet.count} sandboxes, 5 % change",
            measured=f"{ours:.0f} ms ({rounds * glances} glances, {rounds} sweeps)",
            beside=f"psutil reads all {rounds} times: {theirs:.0f} ms; sums differ by {max(differences):.2%}",
            ratio=ours / theirs,
            figure=f"≥ {_PSUTIL_RATIO:.0f} × less",
            reached=ratio >= _PSUTIL_RATIO,
            values={"ours_ms": ours, "psutil_ms": theirs, "largest_difference": max(differences)},
        ),
        Row(
            id="sandboxes-core",
            what=f"the same as a share of a core, changes of {fleet.count} sandboxes seen twice a second",
            measured=f"{percent:.2f} % of a core",
            beside=f"psutil twice a second: {theirs / rounds * 120 / 60_000:.0%}",
            ratio=None,
            figure=f"≤ {_CORE_FIGURE_PERCENT:.0f} % for 500",
            reached=percent <= _CORE_FIGURE_PERCENT,
            values={"percent": percent},
        ),
    ]


def _without_page_tables(sandbox: Sandbox) -> int:
    assert sandbox.cost is not None
    return sandbox.cost.resident_bytes - sandbox.cost.page_table_bytes


def _resident(fleet: Fleet) -> int:
    return sum(psutil.Process(vmm).memory_info().rss for vmm, _, _ in fleet.pids[::_CHANGING])


def _wait_for_change(fleet: Fleet, before: int) -> None:
    deadline = time.monotonic() + 10
    wanted = len(fleet.pids[::_CHANGING]) * (8 << 20)
    while abs(_resident(fleet) - before) < wanted * 0.99 and time.monotonic() < deadline:
        time.sleep(0.01)


async def _hotplug(scale: Scale, fleet: Fleet) -> Row:
    """From the VMM's signal to what `follow` says; the worst kind, a memfd, which no folder shows."""
    root = HostRoot()
    watcher = Watcher(root)
    news = follow(watcher, root)
    seconds: list[float] = []
    try:
        await anext(news)
        for place in range(scale.count(60, 10)):
            # Anywhere between two glances.
            await asyncio.sleep((place * 0.37) % GLANCE_SECONDS)
            pid = fleet.pids[place % fleet.count][0]
            before = _size(watcher.sandboxes, pid)
            begin = time.monotonic()
            fleet.plug(place)
            seconds.append(await _until(news, pid, before) - begin)
    finally:
        await news.aclose()  # type: ignore[attr-defined]
    found = Samples.of(seconds)
    return Row(
        id="sandboxes-hotplug",
        what=f"hotplug of a memfd → told, among {fleet.count} sandboxes",
        measured=spread(found, "s"),
        beside=f"a look every {GLANCE_SECONDS} s",
        ratio=None,
        figure=f"≤ {_HOTPLUG_FIGURE_SECONDS:.0f} s",
        reached=found.p99 <= _HOTPLUG_FIGURE_SECONDS,
        values={"seconds": found.to_json()},
    )


async def _until(news: AsyncIterator[tuple[Sandbox, ...]], pid: int, before: int) -> float:
    async with asyncio.timeout(10):
        async for sandboxes in news:
            if _size(sandboxes, pid) > before:
                return time.monotonic()
    raise RuntimeError("the watcher has ended")


def _size(sandboxes: tuple[Sandbox, ...], pid: int) -> int:
    return next((sandbox.vm_memory_bytes for sandbox in sandboxes if sandbox.pid == pid), 0)


def _linear(scale: Scale, program: Path) -> Row:
    scales = _SCALES if scale.samples is None else (2, 4, 8)
    found: dict[int, Samples] = {}
    for count in scales:
        # At rest nobody walks through their pages: they need not have many.
        with standing_in(program, count, 1):
            watcher = Watcher(HostRoot())
            watcher.sweep()
            found[count] = Samples.of([_cpu_ms(watcher.sweep) for _ in range(scale.count(20, 5))])
    near = (found[scales[1]].p50 - found[scales[0]].p50) / (scales[1] - scales[0])
    far = (found[scales[2]].p50 - found[scales[1]].p50) / (scales[2] - scales[1])
    return Row(
        id="sandboxes-linear",
        what=f"a sweep of {', '.join(f'{count:,}' for count in scales)} sandboxes",
        measured=", ".join(number(found[count].p50) for count in scales) + " ms",
        beside=f"a sandbox: {near * 1000:.0f} µs, then {far * 1000:.0f} µs",
        ratio=ratio_of(far, near),
        figure=f"a sandbox ≤ {_LINEAR_RATIO} ×",
        reached=far <= _LINEAR_RATIO * near,
        values={str(count): samples.to_json() for count, samples in found.items()},
    )


def _cpu_ms(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1000


def _cannot(name: str) -> Row:
    return Row(f"sandboxes-{name}", name, "–", CANNOT, None, "–", None)
