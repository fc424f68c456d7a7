"""`check` as a process, in turn with the program that administrators use today and with an interpreter that does nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.model import Row, Samples, median, ratio_of
from bench.processes import ROOT, agent_command, environment

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale

_FIGURE_MS = 150.0
_PEER = "virt-host-validate"


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Two rows: beside the peer, and beside the floor."""
    del folder
    commands = {"ours": agent_command("check"), "floor": [sys.executable, "-c", "pass"]}
    if peer := shutil.which(_PEER):
        commands["peer"] = [peer, "qemu"]
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(-1, scale.count(20, 10)):
        for name, command in commands.items():
            milliseconds = _run(command)
            if round_ >= 0:
                taken[name].append(milliseconds)
    samples = {name: Samples.of(times) for name, times in taken.items()}
    if "peer" in samples:
        beside = f"{_PEER} qemu: {median(samples['peer'], 'ms')}"
    else:
        beside = f"{_PEER} is not installed (Debian: libvirt-clients)"
    return [
        _row("check", "`check` as a process", samples, "peer", beside),
        _row(
            "check-floor", "  the same", samples, "floor", f"python -c pass: {median(samples['floor'], 'ms')}"
        ),
    ]


def _row(name: str, what: str, samples: dict[str, Samples], other: str, beside: str) -> Row:
    ours, theirs = samples["ours"], samples.get(other, Samples(()))
    return Row(
        id=name,
        what=what,
        measured=median(ours, "ms"),
        beside=beside,
        ratio=ratio_of(ours.p50, theirs.p50),
        figure=f"≤ {_FIGURE_MS:.0f} ms",
        reached=ours.p50 <= _FIGURE_MS,
        values={"ours_ms": ours.to_json(), f"{other}_ms": theirs.to_json()},
    )


def _run(command: list[str]) -> float:
    """Milliseconds from start to end; the exit code is the node's matter."""
    begin = time.perf_counter_ns()
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    elapsed = time.perf_counter_ns() - begin
    if b"Traceback" in done.stderr:
        raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')}")
    return elapsed / 1e6
