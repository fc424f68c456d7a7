"""The gate at the container runtime: owns the plugin, knows which handlers are Kata's, and says how it stands."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.capacity.usual import usual_vm_bytes
from kata_node_agent.daemon.node import Problem
from kata_node_agent.nri.client import Client, State
from kata_node_agent.nri.plugin import Plugin
from kata_node_agent.nri.sizing import size_for
from kata_node_agent.nri.tally import BUCKETS_SECONDS, Tally
from kata_node_agent.pb import agent_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.history import History
    from kata_node_agent.ledger.gate import Gate
    from kata_node_agent.nri.pods import Size

_OFF = "off"


class NriGate:
    """The plugin of a running agent. Other pods than Kata's it answers by itself."""

    def __init__(
        self,
        config: Callable[[], Config],
        gate: Gate,
        handlers: Callable[[], Mapping[str, VmSettings]],
        is_admitted: Callable[[str], bool],
        history: History,
        default_handler: Callable[[], str] = lambda: "",
    ) -> None:
        """Connects to nothing yet.

        Args:
            config: gives the configuration in force.
            gate: the account.
            handlers: those that the runtime's configuration leads to Kata, with what decides the size of their VMs.
            is_admitted: whether the account was asked about a sandbox.
            history: takes when the runtime begins to ask, and when it ends.
            default_handler: Kata's handler that runs pods which name none; empty where there is none.
        """
        self._config = config
        self._handlers = handlers
        self._default_handler = default_handler
        self._history = history
        self._said = ""
        self.tally = Tally()
        self._plugin = Plugin(
            gate,
            self._size_for,
            self.tally,
            allow_undecided=lambda: config().nri.when_undecided == "allow",
            is_admitted=is_admitted,
        )
        self._client = Client(config().nri.socket, self._plugin, self._changed)

    @property
    def serving(self) -> bool:
        """Whether the runtime asks us."""
        return self._config().nri.enabled and self._client.status.state is State.SYNCHRONIZED

    @property
    def problem(self) -> Problem | None:
        """What a person should do something about. No socket is none: a node may have no NRI."""
        status = self._client.status
        if not self._config().nri.enabled or self.serving or not status.last_error:
            return None
        text = f"the container runtime does not ask before it creates VMs: {status.last_error}"
        return Problem("NriNotConnected", text, "see the runtime's log; docs/nri.md tells how it is enabled")

    async def run(self) -> None:
        """Runs until cancelled; does nothing where it is switched off."""
        if self._config().nri.enabled:
            await self._client.run()

    def _size_for(self, handler: str) -> Size | None:
        config = self._config()
        default = VmSettings(default_memory_bytes=usual_vm_bytes(config.sandbox.vm_memory, {}))
        return size_for(handler or self._default_handler(), self._handlers(), config.nri.handlers, default)

    def _changed(self) -> None:
        status = self._client.status
        said = str(status.state) if not status.last_error else f"not connected: {status.last_error}"
        settled = status.state in {State.SYNCHRONIZED, State.ABSENT} or status.last_error
        if settled and said != self._said:
            self._said = said
            self._history.record("nri", said)

    def message(self) -> pb.Nri:
        """What `status` and metrics tell. Times are seconds since 1970."""
        status, tally, runtime = self._client.status, self.tally, self._plugin.runtime
        counts = accumulate(tally.latency)
        return pb.Nri(
            state=status.state if self._config().nri.enabled else _OFF,
            connected=self.serving,
            since_unix_seconds=status.since,
            last_error=status.last_error,
            socket=str(self._client.path),
            runtime=f"{runtime.name} {runtime.version}" if runtime is not None else "",
            nri_version=runtime.nri_version if runtime is not None else "",
            request_timeout_seconds=runtime.request_timeout_seconds if runtime is not None else 0.0,
            pods=self._plugin.pods,
            synchronizations=status.synchronizations,
            decisions=[
                pb.NriDecisions(question=question, outcome=outcome, count=count)
                for (question, outcome), count in sorted(tally.decisions.items())
            ],
            undecided=tally.undecided,
            late=tally.late,
            unanswered=tally.unanswered,
            unseen=tally.unseen,
            answers=[
                pb.NriAnswers(up_to_seconds=bound, count=count)
                for bound, count in zip((*BUCKETS_SECONDS, math.inf), counts, strict=True)
            ],
            answers_seconds_sum=tally.latency_sum_seconds,
        )


def nri_gate(config: Callable[[], Config], keeper: AccountKeeper, history: History) -> NriGate:
    """The gate on the agent's own account."""

    def is_admitted(sandbox: str) -> bool:
        known = keeper.account.book.admissions.get(sandbox)
        return known is not None and known.asked

    return NriGate(
        config,
        keeper,
        lambda: keeper.handlers,
        is_admitted,
        history,
        lambda: keeper.next_vm.default_handler,
    )
