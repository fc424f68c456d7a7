"""The C code's own tests, through its Makefile: warnings, self-test, sanitizers, other architectures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import missing, need

NATIVE = Path(__file__).parents[2] / "native"
CROSS = ("aarch64-linux-gnu-gcc", "s390x-linux-gnu-gcc", "powerpc64le-linux-gnu-gcc")
QEMU = ("qemu-aarch64", "qemu-s390x", "qemu-ppc64le")

pytestmark = pytest.mark.host


def make(*arguments: str) -> str:
    done = subprocess.run(
        ["make", "-C", str(NATIVE), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_compiler_warns() -> None:
    need("make", "cc")
    make("lint")


def test_selftest_holds(tmp_path: Path) -> None:
    need("make", "cc")
    assert "all that can be tested here holds" in make("selftest", f"BUILD={tmp_path}", "PROBES=100")


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    need("make", "cc")
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    linked = ["cc", "-fsanitize=address,undefined", str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty")]
    if subprocess.run(linked, capture_output=True).returncode:
        missing("this compiler has no sanitizers")
    assert "all that can be tested here holds" in make("sanitize", f"BUILD={tmp_path}", "PROBES=1000")


def test_other_architectures_say_that_they_have_no_cpuid(tmp_path: Path) -> None:
    need("make", *CROSS, *QEMU)
    said = make("cross", f"BUILD={tmp_path}")
    assert said.count("cpuid: not on this architecture") == len(CROSS)
    assert said.count("all that can be tested here holds") == len(CROSS)
