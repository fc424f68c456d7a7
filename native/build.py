"""Builds ``kata_node_agent._native`` from the C files beside this one.

setup.py uses ``ffibuilder``. Run as a program, this compiles the module in place, beside the Python sources,
which is all that a working copy on the path needs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = (
    "capabilities.c",
    "cpuid.c",
    "folder.c",
    "kvm.c",
    "kvm_budget.c",
    "kvm_names.c",
    "kvm_run.c",
    "memory.c",
    "process_files.c",
    # Of these, one has something to say on each architecture.
    "guest_x86_64.c",
    "guest_aarch64.c",
    "guest_s390x.c",
    "guest_none.c",
)


def declarations() -> str:
    """The part of the header that cffi reads: one text for the C compiler and for Python."""
    header = (HERE / "node_agent.h").read_text(encoding="utf-8")
    return header.split("/* cffi: begin */")[1].split("/* cffi: end */")[0]


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "kata_node_agent._native",
    '#include "node_agent.h"',
    # setuptools wants sources relative to the project's root, which is where it runs.
    sources=[os.path.relpath(HERE / name) for name in SOURCES],
    depends=[os.path.relpath(path) for path in sorted(HERE.glob("*.h"))],
    include_dirs=[str(HERE)],
    extra_compile_args=[
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-fvisibility=hidden",
        # The same source gives the same module wherever it is built: the folder's name would be in the debug information, and
        # that is in the build id.
        f"-ffile-prefix-map={HERE.parent}=.",
    ],
    # POSIX timers, where the C library is older than 2.34; an empty archive since.
    libraries=["rt"],
    # One binary for every Python from 3.11 on, as the wheel's tag says.
    py_limited_api=True,
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
)


def compile_in_place() -> None:
    """Puts _native.abi3.so into agent/kata_node_agent."""
    from setuptools import setup

    root = HERE.parent
    os.chdir(root)
    sys.argv = [sys.argv[0], "-q", "build_ext", "--inplace"]
    # Not through setup.py: the protobuf code is not needed for this, nor pyproject.toml's metadata.
    setup(name="kata-node-agent", package_dir={"": "agent"}, cffi_modules=["native/build.py:ffibuilder"])


if __name__ == "__main__":
    compile_in_place()
