"""An account with many sandboxes and other pods, for measuring: the tests' own, with more facts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import NodeMemory, OtherPod
from kata_node_agent.ledger.book import Vm
from tests.ledger.support import GIB, MIB, World, claim

if TYPE_CHECKING:
    from pathlib import Path

SANDBOXES, PODS = 500, 250


class Fleet(World):
    """So many sandboxes that were admitted and run, and pods beside them."""

    def __init__(self, folder: Path, sandboxes: int = SANDBOXES) -> None:
        self._chance = random.Random(1)
        self._names = [f"sandbox-{number}" for number in range(sandboxes)]
        super().__init__(folder, allocatable_bytes=1 << 44)
        for name in self._names:
            self.account.admit(claim(name))
        self.change(sandboxes)
        self.look()

    def change(self, changed: int) -> None:
        """So many VMs have touched another amount, and the pods all hold another one."""
        for name in self._chance.sample(self._names, changed):
            touched = self._chance.randrange(GIB)
            self.running[name] = Vm(
                name, 2 * GIB, 60 * MIB, touched, pod=f"default/{name}", pod_uid=f"uid-{name}"
            )
        self.others = {f"other-{n}": OtherPod(GIB, self._chance.randrange(2 * GIB)) for n in range(PODS)}

    def memory(self) -> NodeMemory:
        """With every term that there may be."""
        return NodeMemory(1 << 44, 1 << 44, 100 * MIB, shared_free_bytes=1 << 43, others=self.others)
