"""Capabilities that are given up: in a process of the test's own, as they do not come back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host
_PROGRAM = """
import subprocess, sys, threading
from kata_node_agent.host import native
native.keep_capabilities([int(word) for word in sys.argv[1:]])
def show():
    print(open("/proc/thread-self/status").read())
thread = threading.Thread(target=show)
thread.start()
thread.join()
subprocess.run(["cat", "/proc/self/status"])
"""


def left(*keep: int) -> list[dict[str, int]]:
    """What a later thread has, and a program that is executed."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, keep)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    found: list[dict[str, int]] = []
    for line in done.stdout.splitlines():
        name, _, value = line.partition(":\t")
        if name == "Name":
            found.append({})
        elif name.startswith("Cap"):
            found[-1][name] = int(value, 16)
        elif name == "NoNewPrivs":
            found[-1][name] = int(value)
    return found


@pytest.mark.parametrize("keep", [(), (2, 19), (0,), (38, 40)])
def test_only_what_is_kept_is_left_to_later_threads_and_programs(keep: tuple[int, ...]) -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    had = int(next(line for line in lines if line.startswith("CapPrm")).split()[1], 16)
    mask = had & sum(1 << number for number in keep)
    thread, program = left(*keep)
    for each in (thread, program):
        assert each["CapPrm"] == each["CapEff"] == mask
        assert each["CapInh"] == each["CapAmb"] == 0
        assert each["CapBnd"] & ~mask == 0
        assert each["NoNewPrivs"] == 1


def test_who_has_none_can_give_them_up_too() -> None:
    program = "from kata_node_agent.host import native; native.keep_capabilities([]); native.keep_capabilities([2]); print('well')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "well\n", done.stderr
