"""Probes this machine again and again, and prints one JSON object.

python probe.py time N | python probe.py grow N

Nothing but the probes is loaded here: no gRPC, no event loop.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError
from kata_node_agent.host import native
from kata_node_agent.host.facts import collect
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = HostRoot(Path("/"))


def _timed(action: Callable[[], object], count: int) -> list[float]:
    """Nanoseconds of each; the first few are not counted."""
    taken: list[float] = []
    for index in range(-3, count):
        begin = time.perf_counter_ns()
        action()
        elapsed = time.perf_counter_ns() - begin
        if index >= 0:
            taken.append(elapsed)
    return taken


def _time(count: int) -> dict[str, object]:
    collected = _timed(lambda: collect(_ROOT), count)
    probes = [native.probe_kvm() for _ in range(count)]
    found: dict[str, object] = {
        "collect_ns": collected,
        "guest_us": [probe.microseconds for probe in probes if probe.ok],
        "guest_problem": "" if probes[-1].ok else f"{probes[-1].step}: {probes[-1].error}",
        "kvm_ns": _timed(native.probe_kvm, count),
    }
    try:
        leaves = len(native.read_cpuid())
        # On the CPU where we are, so that pinning moves nobody and costs what it must.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        here = min(os.sched_getaffinity(0))
        found |= {
            "leaves": leaves,
            "cpuid_ns": _timed(native.read_cpuid, count),
            "pinned_ns": _timed(lambda: native.read_cpuid(here), count),
        }
    except HostError as error:
        found["cpuid_problem"] = error.message
    return found


def _sizes() -> tuple[int, int]:
    """Resident KiB that are ours alone, and open descriptors."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return anonymous, len(os.listdir("/proc/self/fd"))


def _grow(count: int) -> dict[str, object]:
    # The interpreter's table of interned strings grows once, by half a MiB, within the first thousand.
    for _ in range(count // 5):
        collect(_ROOT)
    before = _sizes()
    for _ in range(count):
        collect(_ROOT)
    after = _sizes()
    return {"probes": count, "kib": after[0] - before[0], "descriptors": after[1] - before[1]}


if __name__ == "__main__":
    print(json.dumps(_time(int(sys.argv[2])) if sys.argv[1] == "time" else _grow(int(sys.argv[2]))))
