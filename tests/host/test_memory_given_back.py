"""Memory that was freed is given back to the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: what else runs in the tests' would decide what the C library keeps.
_PROGRAM = """
from kata_node_agent.host import native
def resident():
    return int(open("/proc/self/statm").read().split()[1])
many = [bytes(3000) for _ in range(20000)]
# The last one keeps the end of the heap in use.
last = bytes(3000)
del many
before = resident()
native.give_back_memory()
print(before - resident())
"""


@pytest.mark.host
def test_holes_in_the_heap_go_back_to_the_kernel() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # Of 60 MB, in pages of at most 64 KiB; most of it.
    assert int(done.stdout) > 500
