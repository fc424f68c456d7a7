"""Free memory worked out anew with 500 sandboxes and 250 other pods; all facts are other ones each time."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.account_of import PODS, SANDBOXES, Fleet
from bench.model import Row, Samples, Scale, ratio_of, spread

_FIGURE_MS = 5.0


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """A twentieth of the VMs has changed, as from one look to the next; and all of them, as at the start."""
    del folder
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="kna-") as ledger:
        fleet = Fleet(Path(ledger))
        for id_, changed in (("free", SANDBOXES // 20), ("free-all", SANDBOXES)):
            rows.append(_row(id_, changed, *_time(fleet, changed, scale.count(500, 50))))
        fleet.account.close()
    return rows


def _time(fleet: Fleet, changed: int, count: int) -> tuple[Samples, Samples]:
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(count):
        fleet.change(changed)
        account = fleet.account
        begin = time.perf_counter_ns()
        fleet.look()
        fits = account.room.count(account.cost_of_one.by_term)
        ours.append((time.perf_counter_ns() - begin) / 1e6)
        assert fits > 0
        begin = time.perf_counter_ns()
        sum(vm.vm_bytes for vm in fleet.running.values())
        sum(pod.claims_bytes for pod in fleet.others.values())
        floor.append((time.perf_counter_ns() - begin) / 1e6)
    return Samples.of(ours), Samples.of(floor)


def _row(id_: str, changed: int, ours: Samples, floor: Samples) -> Row:
    return Row(
        id=id_,
        what=f"free and slots anew, {changed} of {SANDBOXES} sandboxes changed, {PODS} other pods",
        measured=spread(ours, "ms"),
        beside=f"bare sums: {spread(floor, 'ms')}",
        ratio=ratio_of(ours.p50, floor.p50),
        figure=f"≤ {_FIGURE_MS:g} ms",
        reached=ours.p99 <= _FIGURE_MS,
        values={"ours_ms": ours.to_json(), "floor_ms": floor.to_json()},
    )
