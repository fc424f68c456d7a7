"""The CPUID instruction alone, without C and without Python around it: twenty bytes of machine code in a page of our own.

python instruction.py N prints N times as a JSON list.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import platform
import sys
import time

# int count in EDI: push rbx; mov r8d, edi; again: xor eax, eax; xor ecx, ecx; cpuid; dec r8d; jnz again; pop rbx; ret
_CODE = bytes.fromhex("53 41 89 f8 31 c0 31 c9 0f a2 41 ff c8 75 f5 5b c3")
_TIMES = 1000


def instruction_ns(repeats: int) -> list[float]:
    """Nanoseconds of one CPUID, each the mean of a thousand in a row; empty where it cannot be had.

    Under a hypervisor each leaves the guest, which takes microseconds. No C code can be faster than this.
    """
    if platform.machine() != "x86_64":
        return []
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a system that lets nobody write what it runs
        return []
    page.write(_CODE)
    # Holds the page for as long as the function may be called.
    anchor = ctypes.c_char.from_buffer(page)
    run = ctypes.CFUNCTYPE(None, ctypes.c_int)(ctypes.addressof(anchor))
    run(_TIMES)
    taken: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter_ns()
        run(_TIMES)
        taken.append((time.perf_counter_ns() - begin) / _TIMES)
    return taken


if __name__ == "__main__":
    print(json.dumps(instruction_ns(int(sys.argv[1]))))
