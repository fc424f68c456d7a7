"""The plugin: each call of the runtime becomes a question for the account, and its answer the runtime's.

The account gets a part of the time that the runtime waits. When it has not answered by then, the configuration says whether
the pod goes on; the runtime would let it go on anyway, and drop us. For a pod of another handler nobody is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError

from kata_node_agent.dataclass import dataclass
from kata_node_agent.nri import pods
from kata_node_agent.nri.asking import Asking
from kata_node_agent.nri.connection import INVALID_ARGUMENT, UNIMPLEMENTED, StatusError
from kata_node_agent.nri.events import Event, events_for
from kata_node_agent.nri.facts import container_of, limits_of, sandbox_of
from kata_node_agent.nri.frames import ProtocolError
from kata_node_agent.nri.pods import Known
from kata_node_agent.pb import nri_pb2
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from kata_node_agent.ledger.gate import Decision, Gate
    from kata_node_agent.nri.connection import Call
    from kata_node_agent.nri.facts import Container, Sandbox
    from kata_node_agent.nri.pods import Size, Step
    from kata_node_agent.nri.tally import Tally

log = logging.getLogger(__name__)

T = TypeVar("T")

SERVICE = "nri.pkg.api.v1alpha1.Plugin"
_RESOURCE_EXHAUSTED = 8
# The runtime's default, where it does not say.
_REQUEST_TIMEOUT_SECONDS = 2.0
_MAX_REQUEST_TIMEOUT_SECONDS = 60.0
# In one list of all pods. A node has hundreds.
_MAX_LISTED = 100_000


@dataclass(frozen=True, slots=True)
class Runtime:
    """Who asks, as it says itself."""

    name: str
    version: str
    nri_version: str
    request_timeout_seconds: float


class Plugin:
    """Lives as long as the agent; `connected` begins a conversation, `serve` answers its calls."""

    def __init__(
        self,
        gate: Gate,
        size_for: Callable[[str], Size | None],
        tally: Tally,
        *,
        allow_undecided: Callable[[], bool],
        is_admitted: Callable[[str], bool] | None = None,
    ) -> None:
        """A plugin that knows no pods yet.

        Args:
            gate: the account.
            size_for: how big a VM of a handler becomes; ``None`` for a handler that is not Kata's.
            tally: where to count.
            allow_undecided: whether a pod goes on when the account has not answered in time.
            is_admitted: whether a sandbox that the runtime lists, and that we have not heard of, is in the account: an agent
                before us was asked about it. Where that cannot be told, nothing in the first list counts as unseen.
        """
        self._gate = gate
        self._size_for = size_for
        self._tally = tally
        self._allow_undecided = allow_undecided
        self._is_admitted = is_admitted
        self._pods: dict[str, Known] = {}
        self._asking = Asking()
        self._first_list = True
        self._listed_pods: list[Sandbox] = []
        self._listed_containers: list[Container] = []
        self.runtime: Runtime | None = None
        # Called when the runtime has told all that it has.
        self.on_synchronized: Callable[[], None] = lambda: None
        self._methods: dict[str, Callable[[Call], Awaitable[bytes]]] = {
            "Configure": self._configure,
            "Synchronize": self._synchronize,
            "Shutdown": self._nothing,
            "StateChange": self._state_change,
            **{_METHODS[event]: self._by_method(event) for event in Event},
        }

    @property
    def pods(self) -> int:
        """How many sandboxes of ours the runtime has, as far as it told."""
        return len(self._pods)

    def connected(self) -> None:
        """A conversation begins; what another one left unfinished is forgotten."""
        self.runtime = None
        self._listed_pods, self._listed_containers = [], []

    async def close(self) -> None:
        """Waits for no answer of the account any more."""
        await self._asking.close()

    async def serve(self, call: Call) -> bytes:
        """Answers a call.

        Raises:
            StatusError: no, and why.
            ProtocolError: the message cannot be understood.
        """
        method = self._methods.get(call.method) if call.service == SERVICE else None
        if method is None:
            raise StatusError(UNIMPLEMENTED, f"no {printable(f'{call.service}/{call.method}', 200)}")
        try:
            return await method(call)
        except DecodeError:
            raise ProtocolError(f"{call.method}: a message that cannot be decoded") from None
        finally:
            self._tally.answered(call.method, time.monotonic() - call.arrived)

    async def _configure(self, call: Call) -> bytes:
        request = nri_pb2.ConfigureRequest.FromString(call.payload)
        milliseconds = request.request_timeout
        seconds = milliseconds / 1000 if milliseconds > 0 else _REQUEST_TIMEOUT_SECONDS
        self.runtime = Runtime(
            printable(request.runtime_name, 100),
            printable(request.runtime_version, 100),
            printable(request.NRI_version, 100),
            min(seconds, _MAX_REQUEST_TIMEOUT_SECONDS),
        )
        return nri_pb2.ConfigureResponse(events=events_for(request.NRI_version)).SerializeToString()

    async def _synchronize(self, call: Call) -> bytes:
        request = nri_pb2.SynchronizeRequest.FromString(call.payload)
        self._listed_pods += [sandbox_of(pod) for pod in request.pods if self._size_for(pod.runtime_handler)]
        self._listed_containers += [container_of(container) for container in request.containers]
        if len(self._listed_pods) + len(self._listed_containers) > _MAX_LISTED:
            raise ProtocolError(f"more than {_MAX_LISTED} pods and containers")
        if not request.more:
            await self._take_list(call)
        return nri_pb2.SynchronizeResponse(more=request.more).SerializeToString()

    async def _take_list(self, call: Call) -> None:
        """All that the runtime has, said to the end: what of ours is not in it has gone, what is new went past us."""
        before, self._pods = self._pods, {}
        listed = {sandbox.id: sandbox for sandbox in self._listed_pods if sandbox.id}
        members: dict[str, dict[str, Container]] = {}
        for container in self._listed_containers:
            if not container.stopped:
                members.setdefault(container.sandbox, {})[container.id] = container
        self._listed_pods, self._listed_containers = [], []
        claims = []
        for key, sandbox in listed.items():
            granted = before[key].granted_bytes if key in before else None
            known = self._pods[key] = Known(sandbox, granted, members.get(key, {}))
            if (size := self._size_for(sandbox.handler)) is not None:
                claims.append(pods.claim_of(known, size))
        unseen = [s for key, s in listed.items() if key not in before and not self._was_asked(key)]
        self._first_list = False
        if unseen:
            self._tally.unseen += len(unseen)
            extra = {"count": len(unseen), "first": unseen[0].pod}
            log.warning("pods were started while the runtime could not ask us", extra=extra)
        await self._ask(call, lambda: self._gate.synchronize(claims))
        self.on_synchronized()

    def _was_asked(self, sandbox: str) -> bool:
        return self._first_list if self._is_admitted is None else self._is_admitted(sandbox)

    async def _ask(self, call: Call, ask: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        seconds = self.runtime.request_timeout_seconds if self.runtime else _REQUEST_TIMEOUT_SECONDS
        return await self._asking.within(call, seconds, ask)

    async def _nothing(self, call: Call) -> bytes:
        return b""

    def _by_method(self, event: Event) -> Callable[[Call], Awaitable[bytes]]:
        async def answer(call: Call) -> bytes:
            return await self._event(event, call, _MESSAGES[event].FromString(call.payload))

        return answer

    async def _state_change(self, call: Call) -> bytes:
        """How older runtimes tell of some events; an error is an answer here as well."""
        message = nri_pb2.StateChangeEvent.FromString(call.payload)
        if message.event not in _TOLD:
            return b""
        return await self._event(Event(message.event), call, message)

    async def _event(self, event: Event, call: Call, message: Any) -> bytes:
        """One event with its message, which has at least `pod`, or `container`, or both."""
        # CRI-O tells of a container that has exited without its pod.
        key = message.pod.id or (message.container.pod_sandbox_id if _has_container(event) else "")
        known = self._pods.get(printable(key, 200))
        size = self._size_for(known.sandbox.handler if known else message.pod.runtime_handler)
        if size is None:
            return b""
        if event in _ENDS:
            await self._ended(event, call, printable(key, 200), message)
            return b""
        if not key:
            raise StatusError(INVALID_ARGUMENT, "a sandbox without an id")
        known = known or Known(sandbox_of(message.pod))
        step: Step | None
        if event is Event.RUN_POD_SANDBOX:
            step = pods.run_sandbox(sandbox_of(message.pod), size)
        elif event is Event.CREATE_CONTAINER:
            step = pods.create_container(known, container_of(message.container), size)
        elif event is Event.UPDATE_CONTAINER:
            wanted = limits_of(message.linux_resources)
            step = pods.update_container(known, container_of(message.container), wanted, size)
        else:
            step = pods.update_sandbox(known, limits_of(message.linux_resources), size)
        if step is not None:
            await self._decide(call, step)
        return b""

    async def _ended(self, event: Event, call: Call, sandbox: str, message: Any) -> None:
        """Never an error: the runtime would try again for ever, or leave things behind."""
        if _has_container(event):
            if (known := self._pods.get(sandbox)) is not None:
                self._pods[sandbox] = pods.without_container(known, printable(message.container.id, 200))
            return
        if event is Event.REMOVE_POD_SANDBOX:
            self._pods.pop(sandbox, None)
        # Also of one that was refused: the account may have said yes after all, too late for us.
        await self._ask(call, lambda: self._gate.release(sandbox))

    async def _decide(self, call: Call, step: Step) -> None:
        """Asks the account and remembers a yes.

        Raises:
            StatusError: it said no.
        """
        key = step.claim.sandbox
        if step.question == "confirm":
            self._pods[key] = step.then
            await self._ask(call, lambda: self._gate.confirm(key))
            return
        try:
            if step.question == "admit":
                decision = await self._ask(call, lambda: self._gate.admit(step.claim))
            else:
                decision = await self._ask(call, lambda: self._gate.extend(step.claim))
        except asyncio.CancelledError:
            self._tally.unanswered += 1
            raise
        if decision is None:
            self._undecided(step)
            return
        if call.deadline is not None and time.monotonic() > call.deadline:
            self._tally.late += 1
        outcome = "would_refuse" if decision.would_refuse else "allowed" if decision.allowed else "refused"
        self._tally.decisions[step.question, outcome] += 1
        if not decision.allowed:
            raise StatusError(_RESOURCE_EXHAUSTED, _refusal(decision))
        self._pods[key] = step.then

    def _undecided(self, step: Step) -> None:
        allow = self._allow_undecided()
        self._tally.decisions[step.question, "undecided_allowed" if allow else "undecided_refused"] += 1
        log.error(
            "the account did not answer in time",
            extra={"pod": step.claim.pod, "sandbox": step.claim.sandbox, "allowed": allow},
        )
        if not allow:
            raise StatusError(
                _RESOURCE_EXHAUSTED,
                f"kata-node-agent refuses: whether the VM of {step.claim.pod} fits was not decided in time; try again",
            )
        # What was granted is not known: the next event asks again.
        before = self._pods.get(step.claim.sandbox)
        granted = before.granted_bytes if before is not None else None
        self._pods[step.claim.sandbox] = Known(step.then.sandbox, granted, step.then.containers)


_ENDS = frozenset(
    {
        Event.STOP_POD_SANDBOX,
        Event.REMOVE_POD_SANDBOX,
        Event.STOP_CONTAINER,
        Event.REMOVE_CONTAINER,
    }
)
# What StateChange tells of: what needs no more than a pod or a container.
_TOLD = _ENDS | {Event.RUN_POD_SANDBOX}
_METHODS = {event: "".join(word.capitalize() for word in event.name.split("_")) for event in Event}
_MESSAGES: dict[Event, Any] = {
    Event.RUN_POD_SANDBOX: nri_pb2.PodRequest,
    Event.STOP_POD_SANDBOX: nri_pb2.PodRequest,
    Event.REMOVE_POD_SANDBOX: nri_pb2.PodRequest,
    Event.CREATE_CONTAINER: nri_pb2.ContainerRequest,
    Event.UPDATE_CONTAINER: nri_pb2.UpdateContainerRequest,
    Event.STOP_CONTAINER: nri_pb2.ContainerRequest,
    Event.REMOVE_CONTAINER: nri_pb2.ContainerRequest,
    Event.UPDATE_POD_SANDBOX: nri_pb2.UpdatePodSandboxRequest,
}


def _has_container(event: Event) -> bool:
    return "CONTAINER" in event.name


def _refusal(decision: Decision) -> str:
    """What the pod's owner reads in the pod's events."""
    text = f"kata-node-agent refuses: {decision.message}"
    return printable(f"{text}; {decision.remedy}" if decision.remedy else text, 1000)
