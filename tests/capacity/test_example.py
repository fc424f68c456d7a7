"""The worked example of docs/accounting.md, worked by the code: each number of its table, and of the words below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kata_node_agent.capacity.allocatable import MemoryBudget
from kata_node_agent.capacity.free import Backing, Need, NodeMemory, OtherPod
from kata_node_agent.config.schema import AccountingConfig, Mode
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.book import Vm
from kata_node_agent.ledger.decide import Policy
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.ledger.store import Store
from kata_node_agent.quantity import format_bytes

DOCS = Path(__file__).parents[2] / "docs/accounting.md"
MIB, GIB = 1 << 20, 1 << 30
OVERHEAD = 60 * MIB
EVICTION = 100 * MIB


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """The node of the example."""
    one = Need(2 * GIB, OVERHEAD, Backing.SHARED)
    policy = Policy(Mode.ENFORCE, OVERHEAD, 60)
    account = Account(Store(tmp_path / "ledger.db", "boot"), lambda: policy, one, clock=lambda: 1000.0)
    account.open()
    budget = MemoryBudget(32 * GIB, GIB, 0, EVICTION, 0)
    others = {"idle": OtherPod(4 * GIB, 0), "busy": OtherPod(GIB, 2 * GIB)}
    node = NodeMemory(budget.allocatable_bytes, 25 * GIB, EVICTION, 13 * GIB, others=others)

    def look() -> None:
        margin = AccountingConfig().margin
        account.take_memory(node, share=1.0, margin_bytes=margin, rise_seconds=60)

    look()
    assert account.admit(Claim("asked", 4 * GIB), Backing.SHARED).allowed
    vms = (
        Vm("asked", 4 * GIB, OVERHEAD, GIB + OVERHEAD, GIB, Backing.SHARED),
        Vm("unasked", 2 * GIB, OVERHEAD, 2 * GIB + OVERHEAD, 2 * GIB, Backing.SHARED),
    )
    account.observe({vm.sandbox: vm for vm in vms}, 1000.0)
    # Read before the VMs had touched anything, the budgets would be held down by it for a minute.
    account._budgets._windows.clear()
    look()
    return account


def test_the_table_of_the_worked_example_is_what_the_code_says(account: Account) -> None:
    section = DOCS.read_text().partition("## A worked example")[2].partition("\n## ")[0]
    room = account.room
    rows = re.findall(
        r"^\| `(\w+)` \| .*= ([0-9.]+)Gi \| .*?([0-9.]+Gi) \| \*{0,2}([0-9.]+)Gi\*{0,2} \|$",
        section,
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == list(room.budget)
    for term, budget, promised, free in rows:
        amounts = room.budget[term], room.committed[term], room.left(term)
        assert [f"{amount / GIB:.1f}" for amount in amounts] == [
            f"{float(number.removesuffix('Gi')):.1f}" for number in (budget, promised, free)
        ], term


def test_the_words_below_the_table_are_what_fit_and_admit_say(account: Account) -> None:
    section = DOCS.read_text().partition("## A worked example")[2].partition("\n## ")[0]
    room = account.room
    counts = [room.count(Need(size * GIB, OVERHEAD, Backing.SHARED).by_term) for size in (2, 4)]
    assert f"`fit` answers {counts[0]} of 2Gi and {counts[1]} of 4Gi" in section
    assert room.least(account.cost_of_one.by_term) == "shared_memory"
    refused = account.admit(Claim("large", 11 * GIB), Backing.SHARED)
    assert not refused.allowed
    assert refused.limited_by == "shared_memory"
    assert "10Gi free of 16Gi /dev/shm" in refused.message
    assert f"though the node has {format_bytes(room.left('allocatable_memory'))}" in section
    account.close()
