"""One full collection of what a node's groups use, beside what psutil alone can tell of it; its scale and its growth."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.model import Row, Samples, median, ratio_of
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.cgroups import CgroupNames, read_cgroups
from kata_node_agent.host.consumers import largest_consumers
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.model import Scale

_PODS = 250
_FIGURE_MS = 15.0
_SCALES = (10, 100, 1000)
_GROWTH = 10_000
# Linear: a pod costs the same among a thousand. No growth: less than the allocator's own pages come and go by.
_LINEAR_RATIO = 1.5
_GROWTH_KIB = 512
_UNITS = 20


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """The collection at 250 pods, at 10, 100 and 1,000, and ten thousand times."""
    with ExitStack() as stack:
        groups = stack.enter_context(_groups(_PODS, folder / "a"))
        processes = stack.enter_context(_processes(groups))
        ours, theirs = [], []
        for _ in range(scale.count(50, 5)):
            ours.append(_cpu_ms(groups.collect))
            theirs.append(_cpu_ms(lambda: _by_psutil(groups.name)))
        first = _row(Samples.of(ours), Samples.of(theirs), groups, processes)
        growth = _growth(groups.collect, scale.count(_GROWTH, 100))
    return [first, _linear(scale, folder), growth]


class Groups:
    """A node's groups: real ones where this machine lets us make them, else files of the same shape."""

    def __init__(self, root: Path, name: str, places: list[Path], *, real: bool) -> None:
        self.name = name
        self.places = places
        self.where = "real cgroups" if real else "files in the shape of cgroups"
        self.real = real
        self._root = HostRoot(root)
        self._names = CgroupNames(system=f"/{name}/system.slice", pods=(f"/{name}/kubepods",))

    def collect(self) -> None:
        """All that can be read of them: what `report` shows, and each pod."""
        read_meminfo(self._root)
        found = read_cgroups(self._root, self._names)
        largest_consumers(self._root, found, 5)
        if len(found.pod_groups) != len(self.places):
            raise RuntimeError(f"{len(found.pod_groups)} pods were read, not {len(self.places)}")


@contextmanager
def _groups(pods: int, folder: Path) -> Iterator[Groups]:
    name = f"kata-node-agent-bench-{os.getpid()}-{pods}"
    mounts = find_cgroup_mounts(HostRoot())
    tops = [Path(mount, name) for mount in {mounts.memory, mounts.cpu} if mount]
    made: list[Path] = []
    try:
        # On v2 the controllers must be handed down from the root, which is not ours to change.
        if mounts.hierarchy in {"v1", "hybrid"} and all(_make(top, pods, made) for top in tops):
            places = [
                path for path in made if path.name.startswith("pod") and str(path).startswith(mounts.memory)
            ]
            yield Groups(Path("/"), name, places, real=True)
        else:
            yield _files(folder / "tree", name, pods)
    finally:
        for path in reversed(made):
            _remove(path)


def _make(top: Path, pods: int, made: list[Path]) -> bool:
    try:
        for path in _paths(top, pods):
            path.mkdir()
            made.append(path)
    except OSError:
        return False
    return True


def _files(base: Path, name: str, pods: int) -> Groups:
    mount = base / "sys/fs/cgroup"
    for path in _paths(mount / name, pods):
        _copy(path)
    _copy(mount)
    (mount / "cgroup.controllers").write_text("cpu memory\n")
    shutil.copy("/proc/meminfo", _made(base / "proc") / "meminfo")
    places = [path for path in (mount / name / "kubepods").rglob("pod*") if path.is_dir()]
    return Groups(base, name, places, real=False)


def _paths(top: Path, pods: int) -> list[Path]:
    parents = [
        top,
        top / "system.slice",
        top / "kubepods",
        top / "kubepods/burstable",
        top / "kubepods/besteffort",
    ]
    units = [top / f"system.slice/unit{n}.service" for n in range(_UNITS)]
    classes = ("burstable/", "besteffort/", "")
    places = [top / f"kubepods/{classes[n % 3]}pod{n:08x}-0000-0000-0000-000000000000" for n in range(pods)]
    return [*parents, *units, *places]


def _copy(path: Path) -> None:
    _made(path)
    (path / "memory.current").write_text("1048576\n")
    (path / "memory.max").write_text("max\n")
    (path / "memory.swap.current").write_text("0\n")
    names = ("anon", "file", "kernel", "shmem", "inactive_file", "unevictable", "slab", "slab_unreclaimable")
    (path / "memory.stat").write_text(
        "".join(f"{name} 4096\n" for name in (*names, *map("x{}".format, range(40))))
    )
    (path / "cpu.stat").write_text("usage_usec 1\n")
    (path / "cgroup.procs").write_text("")


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _remove(path: Path) -> None:
    # A process that was killed leaves its group a moment later.
    for _ in range(200):
        with suppress(OSError):
            path.rmdir()
        if not path.exists():
            return
        time.sleep(0.01)


@contextmanager
def _processes(groups: Groups) -> Iterator[int]:
    """A light process in every pod, so that psutil has something to find."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        if groups.real:
            for place in groups.places:
                child = subprocess.Popen(["sleep", "600"])
                children.append(child)
                (place / "cgroup.procs").write_text(f"{child.pid}\n")
        yield len(children)
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()


def _by_psutil(name: str) -> dict[str, int]:
    """Resident sets, summed by group: file cache, kernel memory and what is shared are out of psutil's sight."""
    psutil.virtual_memory()
    sums: dict[str, int] = {}
    for process in psutil.process_iter(["pid", "memory_info"]):
        try:
            with open(f"/proc/{process.pid}/cgroup", encoding="ascii", errors="replace") as file:
                group = next((line for line in file if name in line), "")
        except OSError:
            continue
        memory = process.info["memory_info"]
        if memory is not None:
            sums[group] = sums.get(group, 0) + memory.rss
    return sums


def _cpu_ms(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1000


def _row(ours: Samples, theirs: Samples, groups: Groups, processes: int) -> Row:
    return Row(
        id="collection-250",
        what=f"CPU time of one collection, {_PODS} pods, {groups.where}",
        measured=median(ours, "ms"),
        beside=f"psutil alone, {processes} processes: {median(theirs, 'ms')}",
        ratio=ratio_of(ours.p50, theirs.p50),
        figure=f"≤ {_FIGURE_MS:.0f} ms",
        reached=ours.p50 <= _FIGURE_MS,
        values={"ours_ms": ours.to_json(), "psutil_ms": theirs.to_json()},
    )


def _linear(scale: Scale, folder: Path) -> Row:
    found: dict[int, Samples] = {}
    for pods in _SCALES:
        with _groups(pods, folder / str(pods)) as groups:
            found[pods] = Samples.of([_cpu_ms(groups.collect) for _ in range(scale.count(20, 3))])
    # What a pod costs, between 100 and 1,000 and between 10 and 100: the same where it is linear.
    far = (found[1000].p50 - found[100].p50) / 900
    near = (found[100].p50 - found[10].p50) / 90
    return Row(
        id="collection-linear",
        what="the same with 10, 100, 1,000 pods",
        measured=", ".join(f"{found[pods].p50:.2f}" for pods in _SCALES) + " ms",
        beside=f"a pod: {near * 1000:.0f} µs up to 100, {far * 1000:.0f} µs up to 1,000",
        ratio=ratio_of(far, near),
        figure=f"a pod ≤ {_LINEAR_RATIO} ×",
        reached=far <= _LINEAR_RATIO * near,
        values={str(pods): samples.to_json() for pods, samples in found.items()},
    )


def _growth(work: Callable[[], object], times: int) -> Row:
    me = psutil.Process()
    for _ in range(max(1, times // 20)):
        work()
    before = me.memory_info().rss
    for _ in range(times):
        work()
    grown = (me.memory_info().rss - before) / 1024
    return Row(
        id="collection-growth",
        what=f"resident memory gained in {times:,} collections",
        measured=f"{grown:.0f} KiB",
        beside="none",
        ratio=None,
        figure=f"≤ {_GROWTH_KIB} KiB",
        reached=grown <= _GROWTH_KIB,
        values={"kib": grown, "times": times},
    )
