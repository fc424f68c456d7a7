"""An account with many sandboxes and other pods, for measuring."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Need, NodeMemory, OtherPod
from kata_node_agent.config.schema import Mode
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.book import Vm
from kata_node_agent.ledger.decide import Policy
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.ledger.store import FILE_NAME, Store

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.capacity.devices import Limit
    from kata_node_agent.ledger.gate import Decision

MIB = 1 << 20
GIB = 1 << 30
ONE = Need(2 * GIB, 60 * MIB)
SANDBOXES, PODS = 500, 250


class Keeper:
    """An account and the facts of its node, which the measurement changes; also what an API server wants."""

    mode = Mode.ENFORCE
    draining = False

    def __init__(self, account: Account) -> None:
        self.account = account
        self._chance = random.Random(1)
        self._names = list(account.book.admissions)
        self._vms: dict[str, Vm] = {}
        self.take(*self.facts(len(self._names)))

    def facts(self, changed: int) -> tuple[dict[str, Vm], NodeMemory]:
        """So many VMs have touched another amount, and the pods all hold another one."""
        for name in self._chance.sample(self._names, changed):
            touched = self._chance.randrange(GIB)
            self._vms[name] = Vm(name, 2 * GIB, 60 * MIB, touched, pod=f"bench/{name}", pod_uid=name)
        others = {f"other-{n}": OtherPod(GIB, self._chance.randrange(2 * GIB)) for n in range(PODS)}
        return dict(self._vms), NodeMemory(
            1 << 44, 1 << 44, 100 * MIB, shared_free_bytes=1 << 43, others=others
        )

    def take(self, vms: dict[str, Vm], node: NodeMemory) -> None:
        """Both looks."""
        self.account.observe(vms, time.monotonic())
        self.account.take_memory(node, share=1.0, margin_bytes=256 * MIB, rise_seconds=60)

    def look(self) -> None:
        """One look with new facts."""
        self.take(*self.facts(len(self._names) // 20))

    async def admit(self, claim: Claim) -> Decision:
        """As the daemon does."""
        return self.account.admit(claim)

    async def extend(self, claim: Claim) -> Decision:
        """The same."""
        return self.account.admit(claim)

    async def release(self, sandbox: str) -> None:
        """The same."""
        self.account.release(sandbox)

    def closed(self) -> Limit | None:
        """Never."""
        return None

    def need_of(self, memory_bytes: int, handler: str) -> Need:
        """The usual VM."""
        del memory_bytes, handler
        return ONE

    def set_drain(self, on: bool) -> None:
        """Not here."""

    def set_mode(self, mode: str) -> None:
        """Not here."""


def filled(folder: Path, sandboxes: int) -> Account:
    """An open account with so many admissions."""
    policy = Policy(Mode.ENFORCE, ONE.overhead_bytes, 60)
    account = Account(Store(folder / FILE_NAME, "bench"), lambda: policy, ONE)
    account.open()
    account.take_memory(NodeMemory(1 << 44), share=1.0, margin_bytes=0, rise_seconds=0)
    for number in range(sandboxes):
        account.admit(Claim(f"sandbox-{number}", 2 * GIB, f"uid-{number}", f"bench/sandbox-{number}", "kata"))
    return account
