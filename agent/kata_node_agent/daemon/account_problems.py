"""What is wrong with the account, or with what it has to count: for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Room
from kata_node_agent.daemon.node import Problem
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.ledger.account import Account


def account_problems(account: Account, pressure: str) -> list[Problem]:
    """All of them.

    Args:
        account: as it is.
        pressure: why the node has closed itself; empty while it has not.
    """
    return [*_ledger(account), *_pressure(pressure), *_overcommitted(account), *_pod_fixed(account)]


def _ledger(account: Account) -> Iterator[Problem]:
    if account.problem is not None:
        text = f"the ledger cannot be written, and no VM is admitted: {account.problem.message}"
        yield Problem(account.problem.reason, text, account.problem.hint)


def _pressure(why: str) -> Iterator[Problem]:
    if why:
        remedy = "see `kata-node-agent report` for who uses memory; the node opens by itself when it is over"
        yield Problem("MemoryPressure", f"no new VM is taken: {why}", remedy)


def _overcommitted(account: Account) -> Iterator[Problem]:
    # Devices that stand for VMs to come have touched nothing yet.
    room = Room(account.room.budget, account.book.committed_to_sandboxes)
    over = {
        term: -room.left(term) for term in room.budget if room.left(term) < 0 and room.committed.get(term)
    }
    if over:
        term = max(over, key=lambda name: over[name])
        text = f"{format_bytes(over[term])} more is promised to VMs than there is: {room.explain(term)}"
        remedy = "move VMs or other pods to another node; `kata-node-agent ledger list` names the VMs that nobody asked for"
        yield Problem("MemoryOvercommitted", text, remedy)


def _pod_fixed(account: Account) -> Iterator[Problem]:
    """Per handler the VM whose podFixed falls short the most of what the scheduler has to reserve beside the limits."""
    worst: dict[str, tuple[int, int]] = {}
    for sandbox in account.book.running:
        admission, commitment = account.book.admissions[sandbox], account.book.commitment(sandbox)
        if commitment is None or admission.pod_fixed_bytes is None or admission.limits_bytes is None:
            continue
        wanted = commitment.need.total_bytes - admission.limits_bytes
        short, _ = worst.get(admission.handler, (0, 0))
        if wanted - admission.pod_fixed_bytes > short:
            worst[admission.handler] = (wanted - admission.pod_fixed_bytes, wanted)
    for handler, (short, wanted) in sorted(worst.items()):
        text = (
            f"overhead.podFixed of handler {handler or 'unknown'} is {format_bytes(wanted - short)}: its VM takes "
            f"{format_bytes(wanted)} beside the containers' limits, and the scheduler gives {format_bytes(short)} of it away"
        )
        remedy = (
            f"set overhead.podFixed.memory to {format_bytes(wanted)}; `kata-node-agent advise` has the YAML"
        )
        yield Problem("PodFixedTooLow", text, remedy)
