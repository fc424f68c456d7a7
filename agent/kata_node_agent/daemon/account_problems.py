"""What is wrong with the account, or with what it has to count: for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Backing, Room
from kata_node_agent.daemon.node import Problem
from kata_node_agent.ledger.recover import OF_ANOTHER_BOOT
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_node_agent.capacity.devices import Limit
    from kata_node_agent.ledger.account import Account


_NAMED = 3
# Why no new VM may come → what limits the slots then.
LIMITS = {"Draining": "draining", "MemoryPressure": "memory_pressure", "MemoryUnknown": "vms_unseen"}
# Why a closed node opens, by what it was closed for.
_OVER = {
    "draining": ": it is drained no longer",
    "memory_pressure": ": the pressure on memory is over",
    "vms_unseen": ": all VMs can be looked into",
    "ledger": ": the ledger can be written again",
    "starting": ": it is known which VMs run",
}


def closed_or_open(closed: Limit | None, was: str) -> str:
    """One line for log and history: why the node is closed, or what it was closed for and is over."""
    return f"closed to new VMs: {closed.message}" if closed else f"open to new VMs{_OVER.get(was, '')}"


def account_problems(account: Account, pressure: str, *, offered: bool) -> list[Problem]:
    """All of them.

    Args:
        account: as it is.
        pressure: why the node has closed itself; empty while it has not.
        offered: pods ask for devices here, and places that VMs without a device take are offered to them.
    """
    return [
        *pod_fixed_problems(account).values(),
        *_ledger(account),
        *_pressure(pressure),
        *_overcommitted(account),
        *(_taken_places(account) if offered else ()),
    ]


def _ledger(account: Account) -> Iterator[Problem]:
    if account.problem is not None:
        text = f"the ledger cannot be written, and no VM is admitted: {account.problem.message}"
        yield Problem(account.problem.reason, text, account.problem.hint)
    if account.set_aside and account.set_aside != OF_ANOTHER_BOOT:
        text = (
            f"the ledger that was there at the start was set aside ({account.set_aside}): what runs is counted as it is "
            "seen, and `drain` and `mode` of before are forgotten"
        )
        remedy = "see who wrote to it; set drain and mode again where they were set; the agent's next start ends this"
        yield Problem("LedgerSetAside", text, remedy)


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


def _taken_places(account: Account) -> Iterator[Problem]:
    book = account.book
    nobodys = [
        name for name in book.running if not (book.admissions[name].pod or book.admissions[name].pod_uid)
    ]
    of_pods = book.without_device - len(nobodys)
    who, remedies = [], []
    if of_pods > 0:
        who.append(f"{of_pods} by VMs of pods that hold no device")
        remedies.append(
            "have all Kata pods ask in a container and set device_plugin.containers_only = true; not where a RuntimeClass' "
            "overhead.podFixed has the resource, as kubelet then kills running pods"
        )
    if nobodys:
        named = ", ".join(name[:12] for name in nobodys[:_NAMED]) + (", …" if len(nobodys) > _NAMED else "")
        who.append(f"{len(nobodys)} by VMs without a known pod (sandbox {named})")
        remedies.append(
            "VMs without a known pod were started by hand, or the container runtime's record of them is gone: end those that "
            "nobody needs; `kata-node-agent sandboxes ID` has the pid of each"
        )
    if who:
        text = (
            f"places offered to kubelet are taken, {' and '.join(who)}: a pod that asks for the resource is placed there, "
            "and refused at Allocate"
        )
        yield Problem("PlacesTakenWithoutDevice", text, "; ".join(remedies))


def pod_fixed_problems(account: Account) -> dict[str, Problem]:
    """Per handler the VM whose podFixed falls short the most of what the scheduler has to reserve beside the limits."""
    worst: dict[str, tuple[int, int]] = {}
    book = account.book
    for sandbox in book.running:
        admission, commitment, vm = book.admissions[sandbox], book.commitment(sandbox), book.vms.get(sandbox)
        # What lies on the node knows requests, too, and a resize; the runtime's word is there before the VM is seen.
        counted = vm.counted_bytes if vm is not None else None
        counted = admission.limits_bytes if counted is None else counted
        fixed = admission.pod_fixed_bytes
        if fixed is None and vm is not None:
            fixed = vm.pod_fixed_bytes
        if commitment is None or fixed is None or counted is None:
            continue
        need = commitment.need
        vm_bytes = need.vm_bytes
        if vm is not None and vm.forecast_bytes:
            # What was admitted may be more than it comes to: an annotation is only trusted to ask for more.
            vm_bytes = max(vm.vm_bytes, vm.forecast_bytes)
        # Huge pages are a resource of their own: podFixed's memory is none of theirs.
        beyond = 0 if need.backing is Backing.HUGE else max(0, vm_bytes - counted)
        wanted = beyond + need.overhead_bytes
        short, _ = worst.get(admission.handler, (0, 0))
        if wanted - fixed > short:
            worst[admission.handler] = (wanted - fixed, wanted)
    found: dict[str, Problem] = {}
    for handler, (short, wanted) in sorted(worst.items()):
        text = (
            f"overhead.podFixed of handler {handler or 'unknown'} is {format_bytes(wanted - short)}: its VM takes "
            f"{format_bytes(wanted)} beside the containers' limits, and the scheduler gives {format_bytes(short)} of it away"
        )
        # To be written into a RuntimeClass: exact, in whole MiB.
        remedy = (
            f"set overhead.podFixed.memory to {-(-wanted >> 20)}Mi; `kata-node-agent advise` has the YAML"
        )
        found[handler] = Problem("PodFixedTooLow", text, remedy)
    return found
