"""The bench runs to its table, with every row and nothing left behind. What it measures is not judged here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.__main__ import TOPICS
from bench.model import Row, Samples, number, ratio_of
from bench.table import render

ROOT = Path(__file__).parents[2]
# 2 of everything: whether it works, not how fast.
TINY = [sys.executable, "-m", "bench", "--quick", "--samples", "2"]
ROWS = [
    "registration-idle",
    "registration-under-load",
    "start-plugin-path",
    "start-everything",
    "allocate-250",
    "allocate-1000",
    "admission",
    "free",
    "free-all",
    "memory-plugin-path-rss",
    "memory-plugin-path-anonymous",
    "memory-plugin-path-pss",
    "memory-everything-rss",
    "memory-everything-anonymous",
    "memory-everything-pss",
    "idle-cpu",
    "check",
    "check-floor",
    "collection-250",
    "collection-linear",
    "collection-growth",
    "nri-answer-vms",
    "nri-answer-busy",
    "nri-restart",
    "nri-budget",
    "daemon-rss",
    "daemon-anonymous",
    "daemon-cpu",
    "daemon-admission",
    "hotplug-seen",
    "hotplug-devices",
    *(f"sandboxes-{name}" for name in ("sweep", "minute", "core", "hotplug", "linear", "memory")),
    "page",
    "page-memory",
    "scrape-time",
    "scrape-memory",
    "probes",
    "guest",
    "cpuid",
    "growth",
]


@pytest.mark.host
def test_every_topic_has_its_rows_in_table_and_json(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    done = subprocess.run([*TINY, "--json", numbers], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text())
    assert found["schema"] == "kata-node-agent/bench/v1"
    assert [row["id"] for row in found["rows"]] == ROWS
    table = done.stdout.splitlines()
    assert len(table) == 2 + len(ROWS)
    assert len({len(line) for line in table}) == 1
    for row, line in zip(found["rows"], table[2:], strict=True):
        assert row["what"] in line
        assert row["measured"] in line
    assert all(f"{name}: " in done.stderr for name in TOPICS)


@pytest.mark.host
def test_ended_in_the_middle_it_ends_what_it_started(short_dir: Path) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "bench", "idle"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process = psutil.Process(bench.pid)
        deadline = time.monotonic() + 20
        while len(children := process.children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(children) == 2
        os.kill(bench.pid, signal.SIGTERM)
        assert bench.wait(20) == 128 + signal.SIGTERM
        assert not [child for child in children if child.is_running()]
        assert not list(short_dir.iterdir())
    finally:
        bench.kill()
        bench.wait()


@pytest.mark.host
def test_help_explains_every_topic_and_an_unknown_one_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert all(name in done.stdout for name in TOPICS)
    done = subprocess.run([sys.executable, "-m", "bench", "speed"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "speed" in done.stderr


def test_percentiles_are_values_that_were_measured() -> None:
    samples = Samples.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (samples.p50, samples.p99, samples.count) == (3.0, 5.0, 5)
    assert Samples.of(list(range(1, 201))).p99 == 198
    assert number(Samples(()).p50) == "–"


def test_a_missing_peer_has_no_ratio() -> None:
    assert ratio_of(1.0, Samples(()).p50) is None
    row = Row("x", "what", "1 ms", "not installed", None, "≤ 2 ms", True)
    cells = [cell.strip() for cell in render([row]).splitlines()[2].split("|")]
    assert cells == ["", "what", "1 ms", "not installed", "–", "≤ 2 ms", "yes", ""]
