"""A plugin at a runtime's NRI socket, until it is ended.

python nri.py account SOCKET FOLDER SANDBOXES | python nri.py echo SOCKET

`account` is our plugin on an account whose file is in the folder, with so many VMs that are looked at each second. `echo` has
the same framing and answers with nothing, without reading what it is asked.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Need, NodeMemory
from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.config.schema import Mode
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.book import Vm
from kata_node_agent.ledger.decide import Policy
from kata_node_agent.ledger.store import Store
from kata_node_agent.nri.client import Client
from kata_node_agent.nri.connection import Call, Connection
from kata_node_agent.nri.dial import connect
from kata_node_agent.nri.plugin import Plugin
from kata_node_agent.nri.sizing import size_with
from kata_node_agent.nri.tally import Tally
from kata_node_agent.pb import nri_pb2

if TYPE_CHECKING:
    from collections.abc import Collection

    from kata_node_agent.ledger.gate import Claim, Decision

MIB = 1 << 20
_LOOK_SECONDS = 1.0
_ALL_EVENTS = 0xE8F


class AccountGate:
    """An account that is asked by NRI alone."""

    def __init__(self, account: Account) -> None:
        self.account = account

    async def admit(self, claim: Claim) -> Decision:
        """Durable."""
        return self.account.admit(claim)

    async def extend(self, claim: Claim) -> Decision:
        """Durable."""
        return self.account.admit(claim)

    async def confirm(self, sandbox: str) -> None:
        """Durable."""
        self.account.confirm(sandbox)

    async def release(self, sandbox: str) -> None:
        """Durable."""
        self.account.release(sandbox)

    async def synchronize(self, claims: Collection[Claim]) -> None:
        """Durable."""
        self.account.synchronize(claims)


def account_in(folder: Path, budget_bytes: int) -> Account:
    """An open account with so much to give."""
    policy = Policy(Mode.ENFORCE, overhead_bytes=60 * MIB, grace_seconds=60.0)
    account = Account(Store(folder / "ledger.db", "bench"), lambda: policy, Need(2048 * MIB, 60 * MIB))
    account.open()
    account.take_memory(NodeMemory(budget_bytes), share=1.0, margin_bytes=0, rise_seconds=0.0)
    return account


def plugin_on(account: Account) -> Plugin:
    """Our plugin for handler `kata`, of 2 GiB."""
    size = size_with(VmSettings())
    return Plugin(
        AccountGate(account),
        lambda handler: size if handler == "kata" else None,
        Tally(),
        allow_undecided=lambda: True,
    )


async def _account(socket: Path, folder: Path, sandboxes: int) -> None:
    account = account_in(folder, 1 << 46)
    vms = {f"vm{number}": Vm(f"vm{number}", 2048 * MIB, 60 * MIB, 900 * MIB) for number in range(sandboxes)}
    client = asyncio.create_task(Client(socket, plugin_on(account)).run())
    while not client.done():
        account.observe(vms, time.monotonic())
        await asyncio.sleep(_LOOK_SECONDS)
    await client


async def _echo(socket: Path) -> None:
    async def serve(call: Call) -> bytes:
        if call.method == "Configure":
            return nri_pb2.ConfigureResponse(events=_ALL_EVENTS).SerializeToString()
        return b""

    reader, writer = await connect(socket)
    connection = Connection(reader, writer, serve)
    running = asyncio.create_task(connection.run())
    request = nri_pb2.RegisterPluginRequest(plugin_name="echo", plugin_idx="99")
    await connection.call(
        "nri.pkg.api.v1alpha1.Runtime", "RegisterPlugin", request.SerializeToString(), timeout_seconds=10
    )
    await running


if __name__ == "__main__":
    if sys.argv[1] == "account":
        asyncio.run(_account(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
    else:
        asyncio.run(_echo(Path(sys.argv[2])))
