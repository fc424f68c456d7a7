"""Yes or no to a VM, a larger VM, or devices, with the numbers. Pure: nothing is written, and the book does not change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Need
from kata_node_agent.config.schema import Mode
from kata_node_agent.dataclass import dataclass
from kata_node_agent.ledger.book import Admission, Origin, commitment_of
from kata_node_agent.ledger.change import Change, Note
from kata_node_agent.ledger.gate import Decision
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from kata_node_agent.capacity.free import Backing, Room
    from kata_node_agent.errors import LedgerError
    from kata_node_agent.ledger.book import Book
    from kata_node_agent.ledger.gate import Claim

# CRI ids are 64 hexadecimal digits; names of our own tests and of other callers are shorter.
_MAX_NAME = 512
# No machine has so much; sums of these fit in every integer that we store or send.
MAX_BYTES = 1 << 48
NO_ROOM_REMEDY = (
    "end other pods, lower this one's limits, or place it elsewhere; `kata-node-agent fit` says what fits"
)


@dataclass(frozen=True, slots=True)
class Block:
    """Why no new VM may come at all: a stable reason, one line, and what to do."""

    reason: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides besides the room.

    Attributes:
        mode: what is done with a refusal.
        overhead_bytes: of a VM's processes, where a claim does not say.
        grace_seconds: for how long an admission without a VM counts.
        block: why no new VM may come; ``None`` when it may.
    """

    mode: Mode
    overhead_bytes: int
    grace_seconds: float
    block: Block | None = None


def admit(
    book: Book, claim: Claim, backing: Backing, room: Room, policy: Policy, now: float, *, extends: bool
) -> tuple[Decision, Change]:
    """A new sandbox, or one that becomes larger: as a whole or not at all.

    Args:
        book: as it is.
        claim: what is asked for.
        backing: where the VM's memory will live.
        room: what is left for this pod: it is not among the others, and its device stands for what it asks.
        policy: the mode, and whether the node is open.
        now: `time.monotonic`.
        extends: a VM that is there becomes larger; a VM that booted before its sandbox was judged is no such one.
    """
    problem = problem_of(claim)
    if problem:
        remedy = "give the sandbox's id, and amounts in bytes"
        return Decision(policy.mode is not Mode.ENFORCE, "InvalidClaim", problem, remedy), Change()
    known = book.admissions.get(claim.sandbox)
    new = admission_of(claim, known, backing, policy, now)
    if known is not None and known.asked and replace(new, since=known.since) == known:
        text = f"{_whose(claim)} has {format_bytes(known.need.total_bytes)} already"
        return Decision(True, "AlreadyAdmitted", text, committed_bytes=book.committed_bytes), Change()
    # What runs may grow, also where nobody asked for it, and what it has already is not asked for.
    there = known is not None and (known.asked or extends)
    decision = _decide(book, claim, new, room, policy, there=there)
    what = "extend" if known is not None and known.asked else "admit"
    note = Note(what, claim.sandbox, new.pod or new.pod_uid, decision)
    if not decision.allowed:
        return decision, Change(notes=(note,))
    let_through = decision.would_refuse or (known is not None and known.origin is Origin.LET_THROUGH)
    origin = Origin.LET_THROUGH if let_through else Origin.ADMITTED
    if new.origin is not origin:
        new = replace(new, origin=origin)
    return decision, Change(put=(new,), notes=(note,))


def allocate(count: int, one: Need, committed_bytes: int, room: Room, policy: Policy) -> Decision:
    """So many devices that kubelet is about to give to a pod, and that nobody holds; reason ``Fits`` or why not.

    Args:
        count: of devices; 0 costs nothing.
        one: what each stands for.
        committed_bytes: all commitments, for the record.
        room: what is left.
        policy: the mode, and whether the node is open.
    """
    taken = {term: amount * count for term, amount in one.by_term.items()}
    limited_by = room.least(taken)
    answer = Decision(
        True, "Fits", "",
        needs_bytes=one.total_bytes * count,
        free_bytes=max(0, room.left(limited_by)) if room.known else 0,
        limited_by=limited_by,
        committed_bytes=committed_bytes,
    )  # fmt: skip
    if not count:
        return answer
    if policy.mode is Mode.OFF or (policy.block is None and room.fits(taken)):
        text = (
            f"{format_bytes(answer.needs_bytes)} until the VM of its pod is known; {_left(room, limited_by)}"
        )
        return replace(answer, message=text)
    why = policy.block or Block("NotEnoughMemory", _left(room, limited_by), NO_ROOM_REMEDY)
    warned = policy.mode is Mode.WARN
    text = f"no room for another Kata VM on this node: {why.message}"
    return replace(
        answer, allowed=warned, would_refuse=warned, reason=why.reason, message=text, remedy=why.remedy
    )


def unavailable(decision: Decision, error: LedgerError) -> Decision:
    """Refused, as it could not be made durable."""
    text = f"nothing is promised while the agent's ledger cannot be written: {error.message}"
    return replace(decision, allowed=False, reason=error.reason, message=text, remedy=error.hint)


def problem_of(claim: Claim) -> str:
    """Why a claim is none; empty for a good one."""
    if not claim.sandbox or any(
        len(text) > _MAX_NAME or not text.isprintable()
        for text in (claim.sandbox, claim.pod_uid, claim.pod, claim.handler)
    ):
        return "the claim has no sandbox id, or a name in it is too long or not printable"
    amounts = (claim.vm_bytes, claim.overhead_bytes, claim.pod_fixed_bytes, claim.limits_bytes)
    if any(amount is not None and not 0 <= amount <= MAX_BYTES for amount in amounts):
        return f"an amount in the claim is negative or beyond {format_bytes(MAX_BYTES)}"
    return ""


def admission_of(
    claim: Claim, known: Admission | None, backing: Backing, policy: Policy, now: float
) -> Admission:
    """What the book would have: never less than before, but for one that has lapsed, which begins anew."""
    overhead = policy.overhead_bytes if claim.overhead_bytes is None else claim.overhead_bytes
    goes_on = known is not None and known.asked and not known.lapsed
    before = known if known is not None and not known.lapsed else None
    new = Admission(
        sandbox=claim.sandbox,
        origin=known.origin if known is not None and goes_on else Origin.ADMITTED,
        vm_bytes=max(claim.vm_bytes, before.vm_bytes if before is not None else 0),
        overhead_bytes=max(overhead, known.overhead_bytes) if known is not None and goes_on else overhead,
        since=known.since if known is not None and goes_on else now,
        confirmed=known is not None and known.confirmed,
        seen=before is not None and before.seen,
        released=before.released if before is not None else None,
        pod_uid=claim.pod_uid,
        pod=claim.pod,
        handler=claim.handler,
        backing=known.backing if known is not None and goes_on else backing,
        pod_fixed_bytes=claim.pod_fixed_bytes,
        limits_bytes=claim.limits_bytes,
    )
    if known is None:
        return new
    return replace(
        new,
        pod_uid=known.pod_uid or new.pod_uid,
        pod=known.pod or new.pod,
        handler=known.handler or new.handler,
        pod_fixed_bytes=known.pod_fixed_bytes if new.pod_fixed_bytes is None else new.pod_fixed_bytes,
        limits_bytes=known.limits_bytes if new.limits_bytes is None else new.limits_bytes,
    )


def _decide(book: Book, claim: Claim, new: Admission, room: Room, policy: Policy, *, there: bool) -> Decision:
    after = commitment_of(new, book.vms.get(claim.sandbox))
    need = after.need if after is not None else Need(0, 0)
    before = book.commitment(claim.sandbox)
    counted = before.need.by_term if before is not None else {}
    extra = {term: max(0, taken - counted.get(term, 0)) for term, taken in need.by_term.items()}
    # What was promised before stays promised, however little is left now.
    covered = there and not any(extra.values())
    limited_by = room.least(need.by_term)
    answer = Decision(
        True, "Fits", "",
        needs_bytes=max(extra.values(), default=0),
        free_bytes=max(0, room.left(limited_by)) if room.known else 0,
        limited_by=limited_by,
        committed_bytes=book.committed_bytes,
    )  # fmt: skip
    asked_for = f"{_whose(claim)} needs {format_bytes(need.total_bytes)}"
    if policy.mode is Mode.OFF:
        return replace(answer, reason="ModeOff", message=f"{asked_for}; nothing is refused in mode off")
    if not (there or book.stands_for(new.pod)) and policy.block is not None:
        block = policy.block
        refusal = replace(
            answer, reason=block.reason, message=f"{asked_for}; {block.message}", remedy=block.remedy
        )
    elif covered or room.fits(extra):
        return replace(answer, message=f"{asked_for}; {_left(room, limited_by)}")
    elif not room.known:
        text = f"{asked_for}; {_left(room, limited_by)}"
        refusal = replace(
            answer, reason="MemoryUnknown", message=text, remedy="see `kata-node-agent status` for why"
        )
    else:
        more = f" ({format_bytes(answer.needs_bytes)} more than it has)" if counted else ""
        text = f"{asked_for}{more}; {_left(room, limited_by)}"
        refusal = replace(answer, reason="NotEnoughMemory", message=text, remedy=NO_ROOM_REMEDY)
    warned = policy.mode is Mode.WARN
    return replace(refusal, allowed=warned, would_refuse=warned)


def _left(room: Room, term: str) -> str:
    return room.explain(term) if room.known else "the node's memory could not be read"


def _whose(claim: Claim) -> str:
    return f"the VM of {claim.pod or claim.pod_uid or claim.sandbox}"
