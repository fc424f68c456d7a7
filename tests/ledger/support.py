"""An account on a file of the test's own, with a clock, a room and a mode that the test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Need, NodeMemory, OtherPod
from kata_node_agent.config.schema import Mode
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.book import Vm
from kata_node_agent.ledger.decide import Block, Policy
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.ledger.store import FILE_NAME, Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
OVERHEAD = 64 * MIB
ONE = Need(2 * GIB, OVERHEAD)
GRACE = 60.0
BOOT = "11111111-2222-3333-4444-555555555555"


class World:
    """A node that a test changes, and the account of it."""

    def __init__(self, folder: Path, *, allocatable_bytes: int = 20 * GIB, mode: Mode = Mode.ENFORCE) -> None:
        self.now = 1000.0
        self.mode = mode
        self.block: Block | None = None
        self.allocatable_bytes = allocatable_bytes
        self.others: dict[str, OtherPod] = {}
        self.running: dict[str, Vm] = {}
        self.path = folder / FILE_NAME
        self.account = self.new_account()
        self.account.open()
        self.look()

    def new_account(self, boot: str = BOOT) -> Account:
        """An account on the same file, not open."""
        return Account(
            Store(self.path, boot), self.policy, ONE, clock=lambda: self.now, wall=lambda: self.now + 1e9
        )

    def policy(self) -> Policy:
        """In force now."""
        return Policy(self.mode, OVERHEAD, GRACE, self.block)

    def restart(self) -> None:
        """As after SIGKILL: nothing but the file is left."""
        self.account.close()
        self.account = self.new_account()
        self.account.open()
        self.look()

    def look(self) -> None:
        """One sweep and one reading of the memory."""
        began, self.now = self.now, self.now + 0.01
        self.account.observe(self.running, began)
        self.account.take_memory(self.memory(), share=1.0, margin_bytes=0, rise_seconds=60)

    def memory(self) -> NodeMemory:
        """The node's, as it is now."""
        return NodeMemory(self.allocatable_bytes, others=self.others)

    def run(self, sandbox: str, vm_bytes: int = 2 * GIB, **more: object) -> None:
        """A VM runs from now on."""
        self.running[sandbox] = Vm(sandbox, vm_bytes, **more)  # type: ignore[arg-type]

    @property
    def free(self) -> int:
        """Of the one term that there is; may be negative."""
        return self.account.room.left("allocatable_memory")


def claim(sandbox: str, vm_bytes: int = 2 * GIB, **more: object) -> Claim:
    """A claim of a pod named like its sandbox."""
    names: Mapping[str, object] = {
        "pod_uid": f"uid-{sandbox}",
        "pod": f"default/{sandbox}",
        "handler": "kata",
    }
    return Claim(sandbox=sandbox, vm_bytes=vm_bytes, **{**names, **more})  # type: ignore[arg-type]
