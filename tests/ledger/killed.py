"""Kills accounts at random moments, many times, while something else wants the processor; run as a program.

    python -m tests.ledger.killed FOLDER RUNS

Each run forks a child that does random admissions, extensions, confirmations and releases on one file and says through a pipe
when each was answered. It is killed with SIGKILL. Whatever it said must be in the file, nothing twice, and of what it had not
said at most the one step that was under way.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from kata_node_agent.capacity.free import NodeMemory
from kata_node_agent.config.schema import Mode
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.decide import Policy
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.ledger.store import Store
from tests.ledger.support import BOOT, MIB, ONE, OVERHEAD

STEPS = 400
SANDBOXES = 40
State = dict[str, tuple[int, bool, bool]]


def steps(seed: int) -> list[tuple[str, str, int]]:
    """What a child does: the same for the same seed."""
    chance = random.Random(seed)
    words = ("admit", "admit", "admit", "confirm", "release")
    return [
        (chance.choice(words), f"{seed}-{chance.randrange(SANDBOXES)}", chance.randrange(1, 64) * 64 * MIB)
        for _ in range(STEPS)
    ]


def account_of(folder: Path) -> Account:
    """An open account with room for all of it."""
    policy = Policy(Mode.ENFORCE, OVERHEAD, 1e6)
    account = Account(Store(folder / "ledger.db", BOOT), lambda: policy, ONE)
    account.open()
    account.take_memory(NodeMemory(1 << 44), share=1.0, margin_bytes=0, rise_seconds=0)
    return account


def state_of(account: Account) -> State:
    """What is promised, in short."""
    return {
        name: (one.vm_bytes, one.confirmed, one.released is not None)
        for name, one in account.book.admissions.items()
    }


def take(account: Account, step: tuple[str, str, int]) -> None:
    """One step."""
    word, name, size = step
    if word == "admit":
        assert account.admit(Claim(name, size, pod=f"default/{name}")).allowed
    elif word == "confirm":
        account.confirm(name)
    else:
        account.release(name)


def expected(before: State, done: list[tuple[str, str, int]]) -> State:
    """The model: what must be there after these steps."""
    state = dict(before)
    for word, name, size in done:
        known = state.get(name)
        if word == "admit":
            vm_bytes, confirmed, released = known or (0, False, False)
            state[name] = (max(vm_bytes, size), confirmed, released)
        elif known is not None:
            state[name] = (known[0], known[1] or word == "confirm", known[2] or word == "release")
    return state


def child(folder: Path, seed: int, pipe: int) -> None:
    """Works until it is killed."""
    account = account_of(folder)
    os.write(pipe, b"r")
    for step in steps(seed):
        take(account, step)
        os.write(pipe, b".")
    while True:
        signal.pause()


def run(folder: Path, seed: int, before: State) -> State:
    """One child and its death; returns what the file holds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        child(folder, seed, writer)
    os.close(writer)
    assert os.read(reader, 1) == b"r", "the child did not start"
    time.sleep(random.Random(seed).random() * 0.03)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    answered = 0
    while chunk := os.read(reader, 65536):
        answered += len(chunk)
    os.close(reader)
    account = account_of(folder)
    try:
        assert not account.set_aside, account.set_aside
        assert account.verify() == []
        found = state_of(account)
        todo = steps(seed)
        allowed = (expected(before, todo[:answered]), expected(before, todo[: answered + 1]))
        assert found in allowed, f"seed {seed}: {answered} answered, and the file says otherwise"
        wanted = sum(vm_bytes + OVERHEAD for vm_bytes, _, _ in found.values())
        assert account.book.committed_bytes == wanted, "something counts twice"
    finally:
        account.close()
    return found


def burn() -> int:
    """A process that wants the processor."""
    pid = os.fork()
    if not pid:
        while True:
            sum(range(10_000))
    return pid


def main() -> None:
    """All runs; the file grows old with them, and is begun anew now and then."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    burners = [burn() for _ in range(os.cpu_count() or 1)]
    try:
        state: State = {}
        for number in range(runs):
            if number % 25 == 0:
                for path in folder.glob("ledger.db*"):
                    path.unlink()
                state = {}
            state = run(folder, number, state)
    finally:
        for pid in burners:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print(f"{runs} runs, all as answered")


if __name__ == "__main__":
    main()
