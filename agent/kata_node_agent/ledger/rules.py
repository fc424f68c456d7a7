"""What becomes of the book when the runtime tells, a VM is seen, or time goes by. Pure: nothing is written here.

A rule gives what is to change; the caller makes it durable first, then puts it in force. Repeated, a rule changes nothing.
A release is final: no later word takes it back, so that words that overtake each other leave the same book.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.ledger.book import Admission, Book, Origin, Vm, named
from kata_node_agent.ledger.change import Change, Note
from kata_node_agent.ledger.decide import Policy, admission_of, problem_of
from kata_node_agent.ledger.gate import Claim, Decision
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kata_node_agent.capacity.free import Backing


def confirm(book: Book, sandbox: str) -> Change:
    """The runtime says that the sandbox exists: it does not lapse for want of a sign."""
    known = book.admissions.get(sandbox)
    if known is None or known.confirmed:
        return Change()
    return Change(put=(replace(known, confirmed=True),))


def release(book: Book, sandbox: str, now: float) -> Change:
    """The runtime says that it ends. It counts until a look that began later finds no VM of it."""
    known = book.admissions.get(sandbox)
    if known is None or known.released is not None:
        return Change()
    return Change(put=(replace(known, released=now),))


def synchronize(book: Book, claims: Iterable[Claim], backing: Backing, policy: Policy, now: float) -> Change:
    """All sandboxes that the runtime has. Those of ours that it does not have end."""
    put: list[Admission] = []
    named_by_runtime: set[str] = set()
    for claim in claims:
        if problem_of(claim):
            continue
        named_by_runtime.add(claim.sandbox)
        known = book.admissions.get(claim.sandbox)
        if known is None:
            new = admission_of(replace(claim, vm_bytes=0), None, backing, policy, now)
            # A stopped sandbox is named, too: it commits nothing unless a VM of it is seen.
            put.append(replace(new, origin=Origin.NOTED, confirmed=True, lapsed=True))
        else:
            new = named(known, pod_uid=claim.pod_uid, pod=claim.pod, handler=claim.handler)
            new = replace(new, confirmed=True)
            if new != known:
                put.append(new)
    # One that nobody has confirmed may be about to be made: it expires by itself.
    put += [
        replace(known, released=now)
        for sandbox, known in book.admissions.items()
        if sandbox not in named_by_runtime and known.released is None and known.confirmed
    ]
    return Change(put=tuple(put))


def observe(
    book: Book, vms: Mapping[str, Vm], began: float, now: float, policy: Policy, absent: Mapping[str, float]
) -> Change:
    """One look at all VMs that run: who is adopted, who has ended, whose admission expires.

    Args:
        book: as it is, with what the look before found.
        vms: all that run, by sandbox.
        began: when the look began: what was admitted or released later is not judged by it.
        now: when it ended.
        policy: the overhead and the grace.
        absent: since when no VM was seen, for sandboxes of which one was.
    """
    put: list[Admission] = []
    drop: list[str] = []
    notes: list[Note] = []
    for sandbox, vm in vms.items():
        known = book.admissions.get(sandbox)
        if known is None:
            new = _adopted(vm, policy, now)
            notes.append(_adoption(new, vm))
        elif known.seen and not known.lapsed and not _names_more(known, vm):
            # As at nearly every look, for hundreds of them.
            continue
        else:
            new = named(known, pod_uid=vm.pod_uid, pod=vm.pod, handler=vm.handler)
            new = replace(new, seen=True, lapsed=False)
        if new != known:
            put.append(new)
    for sandbox, admission in book.admissions.items():
        if sandbox in vms or admission.since > began:
            continue
        left, why = _without_vm(admission, began, now, policy, absent.get(sandbox))
        if left is None:
            drop.append(sandbox)
            notes.append(_ending(book, admission, why))
        elif left != admission:
            put.append(left)
    return Change(tuple(put), tuple(drop), tuple(notes))


def pass_time(book: Book, now: float, policy: Policy) -> Change:
    """Without looks at VMs the runtime's word is all there is: what it released has ended, what nobody confirmed expires."""
    drop: list[str] = []
    notes: list[Note] = []
    for sandbox, known in book.admissions.items():
        expired = not (known.confirmed or known.seen) and now - known.since >= policy.grace_seconds
        if known.released is not None or expired:
            drop.append(sandbox)
            notes.append(_ending(book, known, "ended" if known.released is not None else "expired"))
    return Change((), tuple(drop), tuple(notes))


def merged(stored: Admission, known: Admission) -> Admission:
    """What the file holds of a sandbox, and what came to be known of it before the file could be read: the larger of both."""
    base, other = (stored, known) if stored.asked and not known.asked else (known, stored)
    return replace(
        named(base, pod_uid=other.pod_uid, pod=other.pod, handler=other.handler),
        vm_bytes=max(stored.vm_bytes, known.vm_bytes),
        overhead_bytes=max(stored.overhead_bytes, known.overhead_bytes),
        since=min(stored.since, known.since),
        confirmed=stored.confirmed or known.confirmed,
        seen=stored.seen or known.seen,
        released=known.released if stored.released is None else stored.released,
        # Where a VM was seen and has gone, or none was waited for before.
        lapsed=known.lapsed and (known.seen or stored.lapsed),
        pod_fixed_bytes=other.pod_fixed_bytes if base.pod_fixed_bytes is None else base.pod_fixed_bytes,
        limits_bytes=other.limits_bytes if base.limits_bytes is None else base.limits_bytes,
    )


def _names_more(known: Admission, vm: Vm) -> bool:
    return (
        bool(vm.pod and not known.pod)
        or bool(vm.pod_uid and not known.pod_uid)
        or bool(vm.handler and not known.handler)
    )


def _without_vm(
    known: Admission, began: float, now: float, policy: Policy, absent: float | None
) -> tuple[Admission | None, str]:
    """What becomes of an admission whose VM is not there: nothing, lapsed, or gone and why."""
    if known.released is not None:
        return (None, "ended") if known.released <= began else (known, "")
    if known.seen:
        # A VM does not come back; the record stays for a while, for the runtime to tell of its end.
        gone = absent is not None and now - absent >= policy.grace_seconds
        return (None, "ended") if gone else (replace(known, lapsed=True), "")
    if now - known.since < policy.grace_seconds:
        return known, ""
    return (replace(known, lapsed=True), "") if known.confirmed else (None, "expired")


def _adopted(vm: Vm, policy: Policy, now: float) -> Admission:
    return Admission(
        sandbox=vm.sandbox, origin=Origin.ADOPTED, vm_bytes=0, overhead_bytes=policy.overhead_bytes, since=now,
        seen=True, pod_uid=vm.pod_uid, pod=vm.pod, handler=vm.handler, backing=vm.backing,
    )  # fmt: skip


def _adoption(new: Admission, vm: Vm) -> Note:
    text = f"a VM of {format_bytes(vm.vm_bytes)} runs that was not asked for before it was seen: counted, never ended"
    decision = Decision(True, "Adopted", text, needs_bytes=vm.vm_bytes + new.overhead_bytes)
    return Note("adopt", vm.sandbox, vm.pod or vm.pod_uid, decision)


def _ending(book: Book, known: Admission, why: str) -> Note:
    commitment = book.commitment(known.sandbox)
    freed = commitment.need.total_bytes if commitment is not None else 0
    if why == "expired":
        text = "nobody confirmed it, and no VM of it was seen"
        decision = Decision(True, "Expired", text, needs_bytes=-freed, committed_bytes=book.committed_bytes)
        return Note("expire", known.sandbox, known.pod or known.pod_uid, decision)
    decision = Decision(
        True, "Ended", "its VM has exited", needs_bytes=-freed, committed_bytes=book.committed_bytes
    )
    return Note("end", known.sandbox, known.pod or known.pod_uid, decision)
