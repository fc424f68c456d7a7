"""The probes in process: all of them, the guest, CPUID beside the instruction itself; and that nothing is left behind."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from bench.model import Row, Samples, number, ratio_of, spread
from bench.processes import ROOT, environment, program

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale

_ALL_MS = 15.0
_GUEST_MS = 2.0
_LEAF_US = 2.0
# What an allocator may move without anything being lost: less than three bytes a probe.
_STEADY_KIB = 256
_NO_FLOOR = "none"


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Rows for all probes, the guest, CPUID and growth."""
    del folder
    times = _run("probe", "time", scale.count(500, 100))
    instruction = _run("instruction", scale.count(50, 20))
    return [
        _all_row(times),
        *_guest_rows(times),
        _cpuid_row(times, instruction),
        _growth_row(_run("probe", "grow", scale.count(10_000, 500))),
    ]


def _run(name: str, *arguments: object) -> Any:
    """What a program prints, from JSON."""
    done = subprocess.run(
        program(name, *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def _scaled(values: list[float], divisor: float) -> Samples:
    return Samples.of([value / divisor for value in values])


def _all_row(times: dict[str, Any]) -> Row:
    ours, kvm = _scaled(times["collect_ns"], 1e6), _scaled(times["kvm_ns"], 1e6)
    return Row(
        id="probes",
        what="all probes in process",
        measured=spread(ours, "ms"),
        beside=f"of which making and running a VM: {spread(kvm, 'ms')}",
        ratio=ratio_of(ours.p50, kvm.p50),
        figure=f"≤ {_ALL_MS:.0f} ms",
        reached=ours.p50 <= _ALL_MS,
        values={"ours_ms": ours.to_json(), "kvm_ms": kvm.to_json()},
    )


def _guest_rows(times: dict[str, Any]) -> list[Row]:
    guest = Samples.of(times["guest_us"])
    return [
        Row(
            id="guest",
            what="guest run, from entry to halt",
            measured=spread(guest, "µs") if guest.count else f"no guest: {times['guest_problem']}",
            beside=_NO_FLOOR,
            ratio=None,
            figure=f"≤ {_GUEST_MS:.0f} ms",
            reached=guest.p50 <= _GUEST_MS * 1000 if guest.count else None,
            values={"ours_us": guest.to_json()},
        )
    ]


def _cpuid_row(times: dict[str, Any], instruction: list[float]) -> Row:
    what, figure = "CPUID of one CPU, a leaf, without pinning", f"≤ {_LEAF_US:.0f} µs beyond the instruction"
    if "leaves" not in times:
        return Row("cpuid", what, times["cpuid_problem"], _NO_FLOOR, None, figure, None)
    ours = _scaled(times["cpuid_ns"], 1000 * times["leaves"])
    pinned = _scaled(times["pinned_ns"], 1000 * times["leaves"])
    floor = _scaled(instruction, 1000)
    beyond = ours.p50 - floor.p50
    beside = (
        f"the instruction: {spread(floor, 'µs')}" if floor.count else "the instruction cannot be timed here"
    )
    return Row(
        id="cpuid",
        what=what,
        measured=f"{spread(ours, 'µs')}, {times['leaves']} leaves; pinned {number(pinned.p50)} µs",
        beside=beside,
        ratio=ratio_of(ours.p50, floor.p50),
        figure=figure,
        reached=beyond <= _LEAF_US if floor.count else ours.p50 <= _LEAF_US or None,
        values={
            "ours_us": ours.to_json(),
            "pinned_us": pinned.to_json(),
            "floor_us": floor.to_json(),
            "beyond_us": beyond,
        },
    )


def _growth_row(growth: dict[str, Any]) -> Row:
    return Row(
        id="growth",
        what=f"growth over {growth['probes']:,} × all probes",
        measured=f"{growth['kib']} KiB anonymous, {growth['descriptors']} descriptors",
        beside=_NO_FLOOR,
        ratio=None,
        figure="none",
        reached=growth["kib"] <= _STEADY_KIB and growth["descriptors"] <= 0,
        values={"kib": growth["kib"], "descriptors": growth["descriptors"], "probes": growth["probes"]},
    )
