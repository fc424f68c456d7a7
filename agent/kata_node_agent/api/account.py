"""The calls of NodeAgent that are about memory: Fit, Admit, Extend, Release, what is promised, Drain, SetMode.

A refusal is a gRPC status whose details hold the Decision; any other error's details hold a Problem.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from kata_node_agent.capacity.devices import device_id
from kata_node_agent.errors import AgentError, ConfigError
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from kata_node_agent.capacity.devices import Limit
    from kata_node_agent.capacity.free import Need
    from kata_node_agent.config.schema import Mode
    from kata_node_agent.ledger.account import Account
    from kata_node_agent.ledger.gate import Decision
    from kata_node_agent.ledger.recover import Body

DETAILS = "grpc-status-details-bin"
_MAX_AMOUNT = 1 << 62
_NODE_CLOSED = ("Draining", "MemoryPressure")
_UNDECIDED = ("LedgerUnavailable", "MemoryUnknown")
_DECISION = pb.Decision.DESCRIPTOR.fields_by_name.keys()


class Keeper(Protocol):
    """The account as the daemon keeps it."""

    @property
    def account(self) -> Account:
        """The account itself."""

    @property
    def mode(self) -> Mode:
        """In force."""

    @property
    def draining(self) -> bool:
        """Whether it is closed by command or configuration."""

    async def admit(self, claim: Claim) -> Decision:
        """See `ledger.gate.Gate`; also `extend` and `release`."""

    async def extend(self, claim: Claim) -> Decision: ...  # noqa: D102

    async def release(self, sandbox: str) -> None: ...  # noqa: D102

    def closed(self) -> Limit | None:
        """Why no new VM is taken."""

    def need_of(self, memory_bytes: int, handler: str) -> Need:
        """What a VM takes; raises ConfigError."""

    def set_drain(self, on: bool) -> None:
        """Raises LedgerError."""

    def set_mode(self, mode: str) -> None:
        """Raises ConfigError, LedgerError."""


class AccountCalls:
    """The calls, over the account of a running agent."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def Fit(self, request: pb.FitRequest, context: Any) -> pb.FitAnswer:
        """How many more fit."""
        try:
            need = self._keeper.need_of(min(request.memory_bytes, _MAX_AMOUNT), request.handler)
        except AgentError as error:
            await _fail(context, error)
        room, closed, taken = self._keeper.account.room, self._keeper.closed(), need.by_term
        term = room.least(taken)
        return pb.FitAnswer(
            count=room.count(taken),
            limited_by=term,
            limited_by_message=room.explain(term) if room.known else "the node's memory could not be read",
            free_bytes=max(0, room.left(term)) if room.known else 0,
            needs_bytes=need.total_bytes,
            vm_bytes=need.vm_bytes,
            closed_by=f"{closed.name}: {closed.message}" if closed is not None else "",
        )

    async def Admit(self, request: pb.Claim, context: Any) -> pb.Decision:
        """Memory for a sandbox."""
        return await _answer(context, await self._keeper.admit(_claim(request)))

    async def Extend(self, request: pb.Claim, context: Any) -> pb.Decision:
        """More memory for a sandbox."""
        return await _answer(context, await self._keeper.extend(_claim(request)))

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseAnswer:
        """The sandbox ends."""
        known = request.sandbox in self._keeper.account.book.admissions
        await self._keeper.release(request.sandbox)
        return pb.ReleaseAnswer(known=known)

    async def ListAdmissions(self, request: pb.ListAdmissionsRequest, context: Any) -> pb.Admissions:
        """Who is promised what."""
        return admissions_of(self._keeper.account, time.monotonic())

    async def ListDecisions(self, request: pb.ListDecisionsRequest, context: Any) -> pb.Decisions:
        """The history."""
        try:
            return decisions_of(self._keeper.account, request.limit if 0 < request.limit < 1000 else 1000)
        except AgentError as error:
            await _fail(context, error)

    async def VerifyLedger(self, request: pb.VerifyLedgerRequest, context: Any) -> pb.Verification:
        """Whether the file is what it should be."""
        return pb.Verification(problems=self._keeper.account.verify())

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainAnswer:
        """Closes or opens the node."""
        try:
            self._keeper.set_drain(request.on)
        except AgentError as error:
            await _fail(context, error)
        return pb.DrainAnswer(draining=self._keeper.draining)

    async def SetMode(self, request: pb.SetModeRequest, context: Any) -> pb.SetModeAnswer:
        """Another mode."""
        try:
            self._keeper.set_mode(printable(request.mode, 32))
        except AgentError as error:
            await _fail(context, error)
        return pb.SetModeAnswer(mode=self._keeper.mode)


def decisions_of(account: Account, limit: int) -> pb.Decisions:
    """The last decisions, newest last.

    Raises:
        LedgerError: they cannot be read.
    """
    return pb.Decisions(decisions=[_noted(note) for note in account.history(limit)])


def admissions_of(account: Account, now: float) -> pb.Admissions:
    """All that is promised, and to whom."""
    book = account.book
    found = pb.Admissions()
    for name, admission in sorted(book.admissions.items()):
        vm, commitment = book.vms.get(name), book.commitment(name)
        found.admissions.add(
            sandbox=name,
            origin=admission.origin,
            pod=admission.pod,
            pod_uid=admission.pod_uid,
            handler=admission.handler,
            backing=vm.backing if vm is not None else admission.backing,
            admitted_bytes=admission.vm_bytes,
            overhead_bytes=commitment.need.overhead_bytes if commitment is not None else 0,
            vm_bytes=vm.vm_bytes if vm is not None else 0,
            commitment_bytes=commitment.need.total_bytes if commitment is not None else 0,
            age_seconds=max(0.0, now - admission.since),
            confirmed=admission.confirmed,
            released=admission.released is not None,
        )
    for index, device in sorted(book.devices.items()):
        commitment = book.commitment(index)
        taken = commitment.need.total_bytes if commitment is not None else 0
        found.devices.add(id=device_id(index), pod=device.pod, commitment_bytes=taken)
    return found


def _claim(request: pb.Claim) -> Claim:
    return Claim(
        sandbox=request.sandbox,
        vm_bytes=request.vm_bytes,
        pod_uid=request.pod_uid,
        pod=request.pod,
        handler=request.handler,
        overhead_bytes=request.overhead_bytes if request.HasField("overhead_bytes") else None,
    )


def _decision(decision: Decision) -> pb.Decision:
    return pb.Decision(**{name: getattr(decision, name) for name in _DECISION})


def _noted(note: Body) -> pb.NotedDecision:
    values = {name: note[name] for name in _DECISION if name in note}
    # What became free is told as a need below 0.
    change = int(values.get("needs_bytes", 0))
    values["needs_bytes"] = max(0, change)
    return pb.NotedDecision(
        unix_seconds=note["unix_seconds"], what=note["what"], sandbox=note["sandbox"], pod=note["pod"],
        decision=pb.Decision(**values), change_bytes=change if values.get("allowed") else 0,
    )  # fmt: skip


async def _answer(context: Any, decision: Decision) -> pb.Decision:
    """The decision, or the status that a refusal is."""
    message = _decision(decision)
    if not decision.allowed:
        text = f"{decision.message} ({decision.remedy})" if decision.remedy else decision.message
        await _abort(context, _code_of(decision.reason), text, message)
    return message


def _code_of(reason: str) -> grpc.StatusCode:
    if reason in _NODE_CLOSED:
        return grpc.StatusCode.FAILED_PRECONDITION
    if reason in _UNDECIDED:
        return grpc.StatusCode.UNAVAILABLE
    if reason == "InvalidClaim":
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.RESOURCE_EXHAUSTED


async def _fail(context: Any, error: AgentError) -> NoReturn:
    code = grpc.StatusCode.INVALID_ARGUMENT if isinstance(error, ConfigError) else grpc.StatusCode.UNAVAILABLE
    problem = pb.Problem(reason=error.reason, message=error.message, remedy=error.hint)
    await _abort(context, code, str(error), problem)


async def _abort(context: Any, code: grpc.StatusCode, text: str, detail: Message) -> NoReturn:
    packed = AnyMessage()
    packed.Pack(detail)
    text = printable(text, 2000)
    status = pb.RpcStatus(code=code.value[0], message=text, details=[packed])
    await context.abort(code, text, ((DETAILS, status.SerializeToString()),))
    raise AssertionError("abort always raises")
