"""SIGKILL at random moments under load; a real tmpfs that is full or read-only. 1,000 runs: LEDGER_KILLS=1000."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).parents[2]
# On a tmpfs, as the run directory is.
SHM = Path("/dev/shm")
RUNS = int(os.environ.get("LEDGER_KILLS", "60"))


def test_whatever_was_answered_is_there_after_sigkill_at_any_moment_and_once(tmp_path: Path) -> None:
    folder = SHM / f"kna-killed-{os.getpid()}"
    folder.mkdir()
    try:
        command = [sys.executable, "-m", "tests.ledger.killed", str(folder), str(RUNS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{RUNS} runs, all as answered\n"
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


FULL_AND_READ_ONLY = """
import os, subprocess, sys
from pathlib import Path
from kata_node_agent.capacity.free import NodeMemory
from tests.ledger.support import World, claim

def mount(*options):
    subprocess.run(["mount", *options, sys.argv[1]], check=True)

mount("-t", "tmpfs", "-o", "size=512k", "none")
folder = Path(sys.argv[1])
world = World(folder, allocatable_bytes=1 << 46)
assert world.account.admit(claim("a")).allowed

filler = folder / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
for number in range(2000):
    # The file has room within for a few.
    decision = world.account.admit(claim(f"full-{number}"))
    if not decision.allowed:
        break
assert decision.reason == "LedgerUnavailable" and "full" in decision.message, decision
assert world.account.problem is not None
promised = sorted(world.account.book.admissions)
world.account.flush()
assert world.account.problem is not None, "it is full all the same, though nothing waits to be written"
world.account.release("a")
# An agent that starts meanwhile knows what was promised, and promises nothing more.
world.account.close()
account = world.account = world.new_account()
account.open()
assert account.problem is not None and "full" in account.problem.message, account.problem
assert sorted(account.book.admissions) == promised
account.take_memory(NodeMemory(1 << 46), share=1.0, margin_bytes=0, rise_seconds=0)
decision = account.admit(claim("second"))
assert (decision.allowed, decision.reason) == (False, "LedgerUnavailable"), decision
world.account.release("a")
filler.unlink()
world.account.flush()
assert world.account.problem is None
assert world.account.admit(claim("after")).allowed
before = {name: one.released for name, one in world.account.book.admissions.items()}
world.account.close()
account = world.account = world.new_account()
account.open()
assert {name: one.released for name, one in account.book.admissions.items()} == before
assert before["a"] is not None and sorted(before) == sorted([*promised, "after"])
world.look()

# While it is open for writing the kernel makes no file system read-only.
account.close()
mount("-o", "remount,ro")
account = world.account = world.new_account()
account.open()
assert account.problem is not None and "readonly" in account.problem.message, account.problem
assert sorted(account.book.admissions) == sorted({*before} - {"a"})
world.look()
decision = account.admit(claim("read-only"))
assert (decision.allowed, decision.reason) == (False, "LedgerUnavailable"), decision
assert "readonly" in decision.message, decision
mount("-o", "remount,rw")
account.flush()
assert account.problem is None, account.problem
assert account.admit(claim("read-only")).allowed
assert sorted(account.book.admissions) == sorted({*before, "read-only"} - {"a"})
assert account.verify() == []
account.close()
print("ok")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which takes root")
def test_a_full_and_a_read_only_file_system_refuse_say_so_and_recover(tmp_path: Path) -> None:
    # A mount namespace of its own: nothing of the machine changes, and the mount ends with it.
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        FULL_AND_READ_ONLY,
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
