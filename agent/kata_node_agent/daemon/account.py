"""Keeps the account true: VMs and memory as they are, the node closed when it has to be, and the gate that others ask.

The account decides; here is only when it is told what, and what is said of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import Limit
from kata_node_agent.capacity.free import Backing, Need
from kata_node_agent.capacity.pressure_stop import PressureStop
from kata_node_agent.config.schema import Mode
from kata_node_agent.daemon.account_problems import account_problems
from kata_node_agent.daemon.memory import MemoryReader, backing_of
from kata_node_agent.daemon.sandboxes import SandboxWatch
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.errors import ConfigError, LedgerError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.book import Vm
from kata_node_agent.ledger.decide import Block, Policy
from kata_node_agent.ledger.store import FILE_NAME, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.history import History
    from kata_node_agent.daemon.memory import Reading
    from kata_node_agent.daemon.node import Problem
    from kata_node_agent.ledger.gate import Claim, Decision
    from kata_node_agent.sandboxes.model import Sandbox

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 2.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# Handlers of this name are the usual ones.
_USUAL_HANDLER = "kata"


class AccountKeeper:
    """The account of a running agent; implements `ledger.gate.Gate`.

    Attributes:
        account: the account itself.
        sandboxes: what runs.
        handlers: Kata's settings for each handler.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        node: NodeWatch,
        history: History,
        on_change: Callable[[], None],
    ) -> None:
        """Touches nothing.

        Args:
            config: gives the configuration in force.
            node: the node's view.
            history: takes when the node is closed and opened.
            on_change: called when what is left, or what is in use, may have changed.
        """
        self._config = config
        self._node = node
        self._history = history
        self._backings: Mapping[str, Backing] = {}
        self.handlers: Mapping[str, VmSettings] = {}
        self._on_change = on_change
        root = HostRoot(config().host_root)
        boot_id = (root.try_read_text(_BOOT_ID, 128) or "unknown").strip()
        self.account = Account(Store(config().run_dir / FILE_NAME, boot_id), self.policy, self.cost_of_one)
        self.sandboxes = SandboxWatch(config().host_root, self._swept, follows=config().sandbox.follow)
        self._reader = MemoryReader(root)
        self._pressure = PressureStop()
        self._swept_once = False
        self._closed_said = ""

    @property
    def mode(self) -> Mode:
        """In force: what was set at run time, else what is configured."""
        told = self.account.setting("mode")
        return Mode(told) if told in set(Mode) else self._config().mode

    @property
    def draining(self) -> bool:
        """Whether the node is closed by command or configuration."""
        return self.account.setting("drain") == "on" or self._config().accounting.drain

    @property
    def cost_of_one(self) -> Need:
        """What one more VM of the usual size takes."""
        sandbox = self._config().sandbox
        return Need(sandbox.vm_memory, sandbox.host_overhead, self.backing(""))

    def backing(self, handler: str) -> Backing:
        """Where VMs of a handler have their memory: as those that run do, else as Kata's settings say."""
        backings = self._backings
        if handler in backings:
            return backings[handler]
        return backings.get(_USUAL_HANDLER) or next(iter(backings.values()), Backing.ANONYMOUS)

    def policy(self) -> Policy:
        """What decides besides the room, now."""
        config = self._config()
        return Policy(
            self.mode, config.sandbox.host_overhead, config.accounting.boot_grace_seconds, self._block()
        )

    def closed(self) -> Limit | None:
        """Why no free place may be shown; ``None`` when it may."""
        if not self._swept_once:
            return Limit("starting", "it is not known yet which VMs run")
        if (block := self._block()) is not None:
            return Limit("draining" if self.draining else "memory_pressure", block.message)
        if self.account.problem is not None and self.mode is Mode.ENFORCE:
            return Limit("ledger", self.account.problem.message)
        return None

    def _block(self) -> Block | None:
        if self.draining:
            how = "end it with `kata-node-agent drain off`"
            if self._config().accounting.drain:
                how = "set accounting.drain to false and reload"
            return Block("Draining", "the node is being drained and takes no new VM", how)
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
            await asyncio.sleep(INTERVAL_SECONDS)
            await self._look_at_memory()

    async def _look_at_memory(self) -> None:
        uids = self.account.book.uids
        reading = await in_thread(self._reader.read, self._node.view, self._config(), uids)
        self._take(reading)

    def _take(self, reading: Reading) -> None:
        accounting = self._config().accounting
        running = {vm.handler: vm.backing for vm in self.account.book.vms.values() if vm.handler}
        self.handlers = reading.handlers
        told = {
            name: backing_of(settings.memory_in)
            for name, settings in reading.handlers.items()
            if settings.runs_here
        }
        self._backings = {**told, **running}
        self.account.reprice(self.cost_of_one)
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
        if self.account.problem is not None:
            self._mend()
        self.changed()

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
            self._closed_said = name
            text = f"closed to new VMs: {closed.message}" if closed is not None else "open to new VMs"
            log.info(text)
            self._history.record("account", text)
        self._on_change()

    def _swept(self, sandboxes: Iterable[Sandbox], began: float) -> None:
        vms = {sandbox.id: vm_of(sandbox) for sandbox in sandboxes}
        before = set(self.account.book.running)
        self.account.observe(vms, began)
        first, self._swept_once = not self._swept_once, True
        if first or before != set(self.account.book.running):
            self.changed()

    # The gate.

    async def admit(self, claim: Claim) -> Decision:
        """See `ledger.gate.Gate`."""
        decision = self.account.admit(claim, self.backing(claim.handler))
        if not decision.allowed or decision.would_refuse:
            word = "refused" if not decision.allowed else "would refuse"
            log.warning(f"{word} a VM", extra={"why": decision.message, "reason": decision.reason})  # noqa: G004
        elif decision.reason != "AlreadyAdmitted":
            log.info("admitted", extra={"what": decision.message})
        self._on_change()
        return decision

    async def extend(self, claim: Claim) -> Decision:
        """See `ledger.gate.Gate`."""
        return await self.admit(claim)

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
        return self.account.allocate(indices)

    # By command.

    def need_of(self, memory_bytes: int, handler: str) -> Need:
        """What a VM takes: of the usual size for 0; of a pod with these limits for a handler; else of this size.

        Raises:
            ConfigError: no such handler.
        """
        overhead = self._config().sandbox.host_overhead
        if not handler:
            return replace(self.cost_of_one, vm_bytes=memory_bytes) if memory_bytes else self.cost_of_one
        if handler not in self.handlers:
            known = ", ".join(sorted(self.handlers)) or "none was found in the runtime's configuration"
            raise ConfigError(f"no Kata handler {handler}", hint=f"Kata's handlers: {known}")
        from kata_node_agent.capacity import pod
        from kata_node_agent.capacity.sizing import forecast

        container = pod.Container(name="", memory_limit_bytes=memory_bytes or None)
        becomes = forecast(self.handlers[handler], pod.Pod(containers=(container,)))
        return Need(becomes.final_bytes, overhead, self.backing(handler))

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
        found = account_problems(self.account, self._pressure.why)
        if self.sandboxes.problem is not None:
            found.append(self.sandboxes.problem)
        return found


def vm_of(sandbox: Sandbox) -> Vm:
    """A sandbox as the account has it."""
    backing = backing_of(sandbox.memory_location)
    vm = Vm(
        sandbox=sandbox.id,
        vm_bytes=sandbox.vm_memory_bytes,
        backing=backing,
        pod_uid=sandbox.pod_uid or "",
        pod=sandbox.pod or "",
        handler=sandbox.handler or "",
    )
    cost = sandbox.cost
    if cost is None:
        return vm
    # Huge pages are set aside in any case: they are not among the memory that is available.
    resident = cost.host_overhead_bytes if backing is Backing.HUGE else cost.resident_bytes
    return replace(
        vm,
        overhead_bytes=cost.host_overhead_bytes,
        resident_bytes=resident,
        guest_resident_bytes=cost.guest_bytes,
    )
