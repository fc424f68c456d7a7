"""Our plugin alone as a program: `python -m tests.conformance.nri_plugin SOCKET STATE BUDGET SANDBOXES`.

The account is a budget in a file, which is written before an answer is given and read at the start. A sandbox's folder, which
the runtime makes and removes, stands for its VM: what was admitted is free when that has gone, not before, and whether we were told or not.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.ledger.gate import Claim, Decision
from kata_node_agent.nri.client import Client
from kata_node_agent.nri.plugin import Plugin
from kata_node_agent.nri.sizing import size_for
from kata_node_agent.nri.tally import Tally
from tests.nri.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Collection

MIB = 1 << 20
_LOOK_SECONDS = 0.1
VM = VmSettings(default_memory_bytes=256 * MIB)


class FileBudget(Budget):
    """A budget that survives its process."""

    def __init__(self, budget_bytes: int, state: Path, sandboxes: Path, tally: Tally) -> None:
        super().__init__(budget_bytes)
        self._state = state
        self._sandboxes = sandboxes
        self._tally = tally
        self.most_bytes = 0
        self.released: set[str] = set()
        self.client: Client | None = None
        if state.exists():
            saved = json.loads(state.read_text())
            self.claims = {claim["sandbox"]: Claim(**claim) for claim in saved["claims"]}
            self.most_bytes = saved["most_bytes"]

    def save(self) -> None:
        """Writes what is."""
        self.most_bytes = max(self.most_bytes, self.committed_bytes)
        state = {
            "claims": [dataclasses.asdict(claim) for claim in self.claims.values()],
            "listed": [claim.sandbox for claim in self.listed],
            "confirmed": sorted(self.confirmed),
            "released": sorted(self.released),
            "most_bytes": self.most_bytes,
            "decisions": {" ".join(key): count for key, count in self._tally.decisions.items()},
            "requests": dict(self._tally.requests),
            "unseen": self._tally.unseen,
            "let_through": self._tally.let_through,
            "synchronizations": self.client.status.synchronizations if self.client else 0,
        }
        making = self._state.with_suffix(".new")
        making.write_text(json.dumps(state))
        making.rename(self._state)

    async def admit(self, claim: Claim) -> Decision:
        """Durable before it is answered."""
        decision = await super().admit(claim)
        self.save()
        return decision

    async def extend(self, claim: Claim) -> Decision:
        """Durable before it is answered."""
        decision = await super().extend(claim)
        self.save()
        return decision

    async def confirm(self, sandbox: str) -> None:
        """Noted."""
        await super().confirm(sandbox)
        self.save()

    async def release(self, sandbox: str) -> None:
        """Noted; its memory is not free yet."""
        self.released.add(sandbox)
        self.save()

    def look(self) -> None:
        """Which VMs are there."""
        self.claims = {key: claim for key, claim in self.claims.items() if (self._sandboxes / key).exists()}
        self.save()

    async def synchronize(self, claims: Collection[Claim]) -> None:
        """What went past us is adopted, as far as it is known: here is no VM to be seen."""
        await super().synchronize(claims)
        for claim in claims:
            self.claims.setdefault(claim.sandbox, claim)


async def main(socket: Path, state: Path, budget_bytes: int, sandboxes: Path) -> None:
    """Runs until killed."""
    tally = Tally()
    gate = FileBudget(budget_bytes, state, sandboxes, tally)
    plugin = Plugin(
        gate,
        lambda handler: size_for(handler, {}, (), VM),
        tally,
        allow_undecided=lambda: True,
        is_admitted=lambda sandbox: sandbox in gate.claims,
    )
    gate.client = Client(socket, plugin, on_change=gate.save)
    async with asyncio.TaskGroup() as group:
        group.create_task(gate.client.run())
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            gate.look()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
