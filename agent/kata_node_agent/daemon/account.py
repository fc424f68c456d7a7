"""Keeps the account true: VMs and memory as they are, the node closed when it has to be, and the gate that others ask.

The account decides; here is only when it is told what, and what is said of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import Limit
from kata_node_agent.capacity.pressure_stop import PressureStop
from kata_node_agent.config.schema import Mode
from kata_node_agent.daemon.account_problems import (
    LIMITS,
    account_problems,
    closed_or_open,
    pod_fixed_problems,
)
from kata_node_agent.daemon.decisions import DecisionCounts
from kata_node_agent.daemon.memory import MemoryReader
from kata_node_agent.daemon.pulse import Pulses
from kata_node_agent.daemon.sandboxes import SandboxWatch
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.daemon.vms import NextVm, vm_of
from kata_node_agent.daemon.waiting import wait_for_hint
from kata_node_agent.errors import ConfigError, LedgerError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.decide import Block, Policy
from kata_node_agent.ledger.store import FILE_NAME, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from kata_node_agent.capacity.free import Need
    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.history import History
    from kata_node_agent.daemon.memory import Reading
    from kata_node_agent.daemon.node import Problem
    from kata_node_agent.ledger.gate import Claim, Decision
    from kata_node_agent.report.forecasts import Expected
    from kata_node_agent.sandboxes.model import Sandbox

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 2.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_NOT_LOOKED = "it is not known yet which VMs run"
_NOT_SEEN = "VMs run here that the agent may not look into: what they take is not known"


class AccountKeeper:
    """The account of a running agent; implements `ledger.gate.Gate`.

    Attributes:
        account: the account itself.
        sandboxes: what runs.
        next_vm: what one more takes.
        decisions: how often it was asked, and what it said.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        node: NodeWatch,
        history: History,
        on_change: Callable[[], None],
        pulses: Pulses | None = None,
    ) -> None:
        """Touches nothing.

        Args:
            config: gives the configuration in force.
            node: the node's view.
            history: takes when the node is closed and opened.
            on_change: called when what is left, or what is in use, may have changed.
            pulses: takes those of the account and of the sweeps.
        """
        pulses = pulses or Pulses()
        self._pulse = pulses.pulse("account")
        self._config = config
        self._node = node
        self._history = history
        self.next_vm = NextVm(config)
        self._expected: Mapping[str, Expected] = {}
        self._look_now = asyncio.Event()
        self._asked_for_devices = False
        self._said_of_pod_fixed: set[str] = set()
        self._on_change = on_change
        root = HostRoot(config().host_root)
        boot_id = (root.try_read_text(_BOOT_ID, 128) or "unknown").strip()
        self.account = Account(Store(config().run_dir / FILE_NAME, boot_id), self.policy, self.cost_of_one)
        self.sandboxes = SandboxWatch(
            config().host_root, self._swept, pulses.pulse("sweep").beat, follows=config().sandbox.follow
        )
        self._reader = MemoryReader(root)
        self._pressure = PressureStop()
        self._swept_once = False
        self.decisions = DecisionCounts()
        self._last_sweep: tuple[tuple[Sandbox, ...], float] = ((), 0.0)
        self._closed_said = ""

    @property
    def mode(self) -> Mode:
        """In force: what was set at run time, else what is configured."""
        told = self.account.setting("mode")
        return Mode(told) if told and told in set(Mode) else self._config().mode

    @property
    def draining(self) -> bool:
        """Whether the node is closed by command or configuration."""
        return self.account.setting("drain") == "on" or self._config().accounting.drain

    @property
    def cost_of_one(self) -> Need:
        """What one more VM of the usual size takes."""
        return self.next_vm.cost_of_one

    @property
    def handlers(self) -> Mapping[str, VmSettings]:
        """Kata's settings for each handler."""
        return self.next_vm.handlers

    def need_of(self, memory_bytes: int, handler: str) -> Need:
        """See `NextVm.need_of`."""
        return self.next_vm.need_of(memory_bytes, handler)

    def policy(self) -> Policy:
        """What decides besides the room, now."""
        config = self._config()
        return Policy(
            self.mode, self.next_vm.overhead_bytes, config.accounting.boot_grace_seconds, self._block()
        )

    def closed(self) -> Limit | None:
        """Why no free place may be shown; ``None`` when it may."""
        if not self._knows_vms:
            return Limit("starting", _NOT_LOOKED)
        if (block := self._block()) is not None:
            return Limit(LIMITS[block.reason], block.message)
        if self.account.problem is not None and self.mode is Mode.ENFORCE:
            return Limit("ledger", self.account.problem.message)
        return None

    @property
    def _knows_vms(self) -> bool:
        return self._swept_once or not self.sandboxes.follows

    def _block(self) -> Block | None:
        if self.draining:
            how = "end it with `kata-node-agent drain off`"
            if self._config().accounting.drain:
                how = "set accounting.drain to false and reload"
            return Block("Draining", "the node is being drained and takes no new VM", how)
        unseen = "" if self.sandboxes.sees_all else _NOT_SEEN
        if unknown := unseen if self._knows_vms else _NOT_LOOKED:
            return Block("MemoryUnknown", unknown, "try again; `kata-node-agent status` says why it lasts")
        if self._pressure.why:
            text = f"the node is under memory pressure and takes no new VM: {self._pressure.why}"
            remedy = "it opens by itself when that is over; `kata-node-agent report` shows who uses memory"
            return Block("MemoryPressure", text, remedy)
        return None

    # The life of it.

    def open(self) -> None:
        """Opens the ledger, before anything is promised. Without it the agent goes on, and says so."""
        try:
            self.account.open()
        except LedgerError as error:
            log.error("no ledger", extra={"why": error.message, "remedy": error.hint})

    def close(self) -> None:
        """Gives it back."""
        self.account.close()

    async def first_look(self) -> None:
        """Memory, after the first looks at the node and at the VMs: before anything is shown."""
        await self._look_at_memory()

    async def run(self) -> None:
        """Looks at the memory again and again, and mends the ledger, until cancelled."""
        while True:
            self._pulse.beat()
            await wait_for_hint(self._look_now, INTERVAL_SECONDS)
            await self._look_at_memory()

    async def _look_at_memory(self) -> None:
        self._look_now.clear()
        uids, sandboxes = self.account.book.uids, self.sandboxes.sandboxes
        reading = await in_thread(self._reader.read, self._node.view, self._config(), uids, sandboxes)
        self._take(reading)

    def _take(self, reading: Reading) -> None:
        accounting = self._config().accounting
        self.next_vm.take(reading, self.account.book.vms.values())
        self.account.reprice(self.cost_of_one)
        if not self.sandboxes.follows:
            self.account.pass_time()
        elif reading.expected != self._expected:
            self._expected = reading.expected
            self._observe(*self._last_sweep)
        self.account.take_memory(
            reading.node,
            share=accounting.share,
            margin_bytes=accounting.margin,
            rise_seconds=accounting.rise_seconds,
        )
        if accounting.pressure_stop:
            self._pressure.take(reading.pressure, time.monotonic(), accounting.rise_seconds)
        else:
            self._pressure.lift()
        self._mend()
        self._tell_of_pod_fixed()
        self.changed()

    def _tell_of_pod_fixed(self) -> None:
        found = pod_fixed_problems(self.account)
        for handler in sorted(found.keys() - self._said_of_pod_fixed):
            problem = found[handler]
            log.error("podFixed is too low", extra={"why": problem.message, "remedy": problem.remedy})
        self._said_of_pod_fixed = set(found)

    def _mend(self) -> None:
        if not self.account.is_open:
            self.open()
        self.account.flush()

    def changed(self) -> None:
        """Tells that something may have changed, and says when the node was closed or opened."""
        closed = self.closed()
        # The number in the sign of pressure changes all the time: its name does not.
        name = closed.name if closed is not None else ""
        if name != self._closed_said:
            was, self._closed_said = self._closed_said, name
            text = closed_or_open(closed, was)
            log.info(text)
            self._history.record("account", text)
        self._on_change()

    def _swept(self, sandboxes: Iterable[Sandbox], began: float) -> None:
        found = tuple(sandboxes)
        book = self.account.book
        before = set(book.running), dict(book.committed)
        first, self._swept_once = not self._swept_once, True
        self._last_sweep = found, began
        self._observe(found, began)
        if any(sandbox.id not in self._expected for sandbox in found):
            # What it becomes is to be known before it grows.
            self._look_now.set()
        if first or before != (set(book.running), book.committed):
            self.changed()

    def _observe(self, sandboxes: tuple[Sandbox, ...], began: float) -> None:
        self.account.observe({each.id: vm_of(each, self._expected.get(each.id)) for each in sandboxes}, began)

    # The gate.

    async def admit(self, claim: Claim) -> Decision:
        """See `ledger.gate.Gate`."""
        return self._decided("admit", self.account.admit(claim, self.next_vm.backing(claim.handler)))

    async def extend(self, claim: Claim) -> Decision:
        """See `ledger.gate.Gate`."""
        backing = self.next_vm.backing(claim.handler)
        return self._decided("extend", self.account.admit(claim, backing, extends=True))

    def _decided(self, question: str, decision: Decision) -> Decision:
        self.decisions.take(question, decision)
        if not decision.allowed or decision.would_refuse:
            word = "refused" if not decision.allowed else "would refuse"
            log.warning(f"{word} a VM", extra={"why": decision.message, "reason": decision.reason})  # noqa: G004
        elif decision.reason != "AlreadyAdmitted":
            log.info("admitted", extra={"what": decision.message})
        self._on_change()
        return decision

    async def confirm(self, sandbox: str) -> None:
        """See `ledger.gate.Gate`."""
        self.account.confirm(sandbox)

    async def release(self, sandbox: str) -> None:
        """See `ledger.gate.Gate`."""
        self.account.release(sandbox)

    async def synchronize(self, claims: Collection[Claim]) -> None:
        """See `ledger.gate.Gate`."""
        self.account.synchronize(claims)
        self._on_change()

    def allocate(self, indices: Collection[int]) -> Decision:
        """Devices that kubelet is about to give to a pod."""
        self._asked_for_devices = True
        return self.decisions.take("allocate", self.account.allocate(indices))

    # By command.

    def set_drain(self, on: bool) -> None:
        """Closes the node, or opens it.

        Raises:
            LedgerError: it could not be made to last.
        """
        self.account.set("drain", "on" if on else "")
        self.changed()

    def set_mode(self, mode: str) -> None:
        """Switches; empty for what is configured.

        Raises:
            ConfigError: there is no such mode.
            LedgerError: it could not be made to last.
        """
        if mode and mode not in set(Mode):
            raise ConfigError(f"no mode {mode}", hint="there are " + ", ".join(Mode))
        before = self.mode
        self.account.set("mode", mode)
        if self.mode is not before:
            log.warning("mode switched", extra={"from": str(before), "to": str(self.mode)})
            self._history.record("account", f"mode {self.mode}, was {before}")
        self.changed()

    # What is said of it.

    @property
    def free_bytes(self) -> int:
        """What is left for VMs of the usual size, of the term that limits them; never below 0."""
        room = self.account.room
        return max(0, room.left(room.least(self.account.cost_of_one.by_term))) if room.known else 0

    def problems(self) -> list[Problem]:
        """What a person should do something about."""
        asked = self._asked_for_devices or bool(self.account.book.devices)
        offered = asked and not self._config().device_plugin.containers_only
        return account_problems(self.account, self._pressure.why, offered=offered) + self.sandboxes.problems
