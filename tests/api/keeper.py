"""The account behind an API server of a test or a measurement: the real one, on a file of its own, with a room that is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.config.schema import Mode
from kata_node_agent.errors import ConfigError
from kata_node_agent.ledger.decide import Block
from tests.ledger.support import ONE, OVERHEAD, World

if TYPE_CHECKING:
    from kata_node_agent.capacity.devices import Limit
    from kata_node_agent.capacity.free import Need
    from kata_node_agent.ledger.account import Account
    from kata_node_agent.ledger.gate import Claim, Decision


class TestKeeper:
    """What `daemon.account` is, without a node."""

    __test__ = False

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def account(self) -> Account:
        return self.world.account

    @property
    def mode(self) -> Mode:
        return self.world.mode

    @property
    def draining(self) -> bool:
        return self.world.block is not None

    async def admit(self, claim: Claim) -> Decision:
        return self.account.admit(claim)

    async def extend(self, claim: Claim) -> Decision:
        return self.account.admit(claim, extends=True)

    async def release(self, sandbox: str) -> None:
        self.account.release(sandbox)

    def closed(self) -> Limit | None:
        return None

    def need_of(self, memory_bytes: int, handler: str) -> Need:
        if handler:
            raise ConfigError(f"no Kata handler {handler}", hint="there is none")
        return type(ONE)(memory_bytes, OVERHEAD) if memory_bytes else ONE

    def set_drain(self, on: bool) -> None:
        self.account.set("drain", "on" if on else "")
        self.world.block = Block("Draining", "the node is being drained", "drain off") if on else None

    def set_mode(self, mode: str) -> None:
        if mode not in set(Mode):
            raise ConfigError(f"no mode {mode}")
        self.world.mode = Mode(mode)
