"""The account: book, store and room together. Every change is durable before it is answered. Owned by the event loop.

What others decide (a VM runs, the runtime ended a sandbox) is taken whether it can be written or not, and is written as soon
as that can be. What is asked of us is refused while it cannot.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import device_id
from kata_node_agent.capacity.free import Backing, Room
from kata_node_agent.config.schema import Mode
from kata_node_agent.errors import LedgerError
from kata_node_agent.ledger import codec, rules
from kata_node_agent.ledger.book import Book, Device
from kata_node_agent.ledger.budgets import Budgets
from kata_node_agent.ledger.change import Note
from kata_node_agent.ledger.decide import admit, allocate, unavailable
from kata_node_agent.ledger.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kata_node_agent.capacity.free import Need, NodeMemory
    from kata_node_agent.ledger.book import Admission, Vm
    from kata_node_agent.ledger.change import Change
    from kata_node_agent.ledger.decide import Policy
    from kata_node_agent.ledger.gate import Claim, Decision
    from kata_node_agent.ledger.recover import Body
    from kata_node_agent.ledger.store import Store

log = logging.getLogger(__name__)


class Account:
    """What is promised, and what may be.

    Attributes:
        book: the state; changed by this class only.
    """

    def __init__(
        self,
        store: Store,
        policy: Callable[[], Policy],
        cost_of_one: Need,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is read before `open`.

        Args:
            store: the file.
            policy: what decides besides the room, now.
            cost_of_one: what a device without a sandbox stands for; see `reprice`.
            clock: `time.monotonic`, which all processes of a boot share.
            wall: `time.time`, for the history only.
        """
        self.book = Book(cost_of_one)
        self._writer = Writer(store, wall)
        self._policy = policy
        self._cost_of_one = cost_of_one
        self._clock = clock
        self._settings: dict[str, Body] = {}
        self._absent: dict[str, float] = {}
        self._budgets = Budgets()

    @property
    def problem(self) -> LedgerError | None:
        """Why nothing can be written; ``None`` while it can."""
        return self._writer.problem

    @property
    def is_open(self) -> bool:
        """Whether the store was opened; if not, `open` is to be tried again."""
        return self._writer.was_open

    @property
    def set_aside(self) -> str:
        """Why an older file was set aside at the start; empty where none was."""
        return self._writer.set_aside

    @property
    def room(self) -> Room:
        """What is left."""
        return Room(self._budgets.by_term, self.book.committed)

    @property
    def other_pods_bytes(self) -> int:
        """What pods without a VM claim of allocatable memory."""
        return self._budgets.others_bytes

    @property
    def cost_of_one(self) -> Need:
        """What one more VM of the usual size takes."""
        return self._cost_of_one

    def open(self) -> None:
        """Opens the store and takes what it holds, beside what is known already. May be tried again.

        Raises:
            LedgerError: it cannot be had; the account goes on without, and refuses.
        """
        entries = self._writer.open()
        now = self._clock()
        for key, body in entries.items():
            if key.startswith(codec.SETTING):
                self._settings.setdefault(key, body)
            elif (device := codec.decode_device(key, body)) and device.since <= now:
                if device.index not in self.book.devices and not self._writer.waits(key):
                    self.book.put_device(device)
            elif (stored := codec.decode_admission(key, body)) and stored.since <= now:
                self._take_stored(key, stored)
            else:
                if key != codec.PROBE:
                    log.warning("passed over an entry of the ledger that makes no sense", extra={"key": key})
                self._writer.keep({key: None}, ())
        self._writer.flush()

    def _take_stored(self, key: str, stored: Admission) -> None:
        """What was answered counts, also where the VM was seen before the file could be read."""
        known = self.book.admissions.get(stored.sandbox)
        if known is not None:
            both = rules.merged(stored, known)
            self.book.put(both)
            self._writer.keep({key: codec.encode_admission(both)})
        elif not self._writer.waits(key):
            # The VM may have gone while no agent looked: the first look tells.
            self.book.put(stored)

    def close(self) -> None:
        """Gives the store back."""
        self._writer.close()

    def flush(self) -> None:
        """Writes what could not be written when it happened."""
        self._writer.flush()

    # What is asked of us.

    def admit(self, claim: Claim, backing: Backing = Backing.ANONYMOUS, *, extends: bool = False) -> Decision:
        """A new sandbox, or (`extends`) a VM that is there, asked for or not, and becomes larger; see `gate.Gate`."""
        policy = self._policy()
        room, now = self._room_for(claim), self._clock()
        decision, change = admit(self.book, claim, backing, room, policy, now, extends=extends)
        if decision.reason == "InvalidClaim":
            return decision
        if decision.reason == "AlreadyAdmitted":
            return self._again(claim, decision, policy)
        try:
            self._writer.write(codec.entries_of(change), change.notes)
        except LedgerError as error:
            if not change.put:
                self._writer.keep({}, change.notes)
                return decision
            if policy.mode is Mode.ENFORCE:
                return unavailable(decision, error)
            decision = replace(decision, would_refuse=policy.mode is Mode.WARN)
            self._writer.keep(codec.entries_of(change), change.notes)
        self._apply(change)
        return decision

    def _again(self, claim: Claim, decision: Decision, policy: Policy) -> Decision:
        """The same answer; but what was let through while nothing could be written is not promised before it is."""
        if self._writer.waits(codec.admission_key(claim.sandbox)):
            self._writer.flush()
            if self._writer.problem is not None and policy.mode is Mode.ENFORCE:
                return unavailable(decision, self._writer.problem)
        return decision

    def allocate(self, indices: Iterable[int]) -> Decision:
        """Devices that kubelet is about to give to a pod.

        One that stands for a VM already costs nothing more. One whose pod still has its VM is another pod's from now on.
        """
        new = sorted(index for index in set(indices) if self.book.commitment(index) is None)
        policy, now = self._policy(), self._clock()
        decision = allocate(len(new), self._cost_of_one, self.book.committed_bytes, self.room, policy)
        notes = [Note("allocate", ", ".join(map(device_id, new[:8])), "", decision)] if new else []
        if not decision.allowed:
            self._writer.take({}, notes)
            return decision
        devices = [Device(index, now) for index in new]
        entries = codec.entries_of_devices(devices)
        if entries:
            try:
                self._writer.write(entries)
            except LedgerError as error:
                if policy.mode is Mode.ENFORCE:
                    return unavailable(decision, error)
                self._writer.keep(entries)
            # The next pod need not wait for a line of the history: it is written with what comes next, or at the next look.
            self._writer.keep({}, notes)
        for device in devices:
            self.book.put_device(device)
        return decision

    # What others tell us.

    def confirm(self, sandbox: str) -> None:
        """See `gate.Gate`."""
        self._take(rules.confirm(self.book, sandbox))

    def release(self, sandbox: str) -> None:
        """See `gate.Gate`."""
        self._take(rules.release(self.book, sandbox, self._clock()))

    def synchronize(self, claims: Iterable[Claim], backing: Backing = Backing.ANONYMOUS) -> None:
        """See `gate.Gate`."""
        self._take(rules.synchronize(self.book, claims, backing, self._policy(), self._clock()))

    def observe(self, vms: Mapping[str, Vm], began: float) -> None:
        """One look at all VMs that run.

        Args:
            vms: by sandbox.
            began: when the look began, by the account's clock.
        """
        now = self._clock()
        for sandbox, admission in self.book.admissions.items():
            if sandbox in vms:
                self._absent.pop(sandbox, None)
            elif admission.seen:
                self._absent.setdefault(sandbox, now)
        change = rules.observe(self.book, vms, began, now, self._policy(), self._absent)
        for sandbox, admission in list(self.book.admissions.items()):
            if sandbox not in vms and sandbox in self.book.vms and admission.since <= began:
                self.book.see(None, sandbox)
        self._take(change)
        for sandbox, vm in vms.items():
            if self.book.vms.get(sandbox) != vm:
                self.book.see(vm, sandbox)

    def pass_time(self) -> None:
        """Where nobody looks at VMs: what was released has ended, and what nobody confirmed expires."""
        self._take(rules.pass_time(self.book, self._clock(), self._policy()))

    def hold_devices(self, held: Mapping[int, str]) -> None:
        """Which devices pods hold now, by kubelet's word; index → ``namespace/name``, empty where it is not known."""
        gone, changed = set(self.book.devices) - set(held), list[Device]()
        for index in gone:
            self.book.drop_device(index)
        for index, pod in held.items():
            known = self.book.devices.get(index) or Device(index, self._clock())
            device = replace(known, pod=pod or known.pod)
            if device != self.book.devices.get(index):
                self.book.put_device(device)
                changed.append(device)
        if entries := codec.entries_of_devices(changed, gone):
            self._writer.take(entries)

    def take_memory(self, node: NodeMemory, *, share: float, margin_bytes: int, rise_seconds: float) -> None:
        """The node's memory as it is now. Must be read after the look at the VMs, or what has just ended counts twice."""
        self._budgets.take(
            node,
            self.book,
            self._clock(),
            share=share,
            margin_bytes=margin_bytes,
            rise_seconds=rise_seconds,
        )

    def reprice(self, cost_of_one: Need) -> None:
        """Another cost of one is in force."""
        self._cost_of_one = cost_of_one
        self.book.reprice(cost_of_one)

    # Settings that outlive the agent, but not the boot.

    def setting(self, name: str) -> str:
        """A setting made at run time; empty where none was."""
        value = self._settings.get(codec.SETTING + name, {}).get("value", "")
        return value if isinstance(value, str) else ""

    def set(self, name: str, value: str) -> None:
        """Makes a setting; an empty value takes it back.

        Raises:
            LedgerError: it cannot be written, and is not in force.
        """
        key = codec.SETTING + name
        body: Body | None = {"value": value} if value else None
        self._writer.write({key: body})
        if body is None:
            self._settings.pop(key, None)
        else:
            self._settings[key] = body

    def history(self, limit: int) -> list[Body]:
        """The last decisions, newest last.

        Raises:
            LedgerError: they cannot be read.
        """
        return self._writer.notes(limit)

    def verify(self) -> list[str]:
        """What is wrong with the store, or between it and the book; empty when all is well."""
        return self._writer.verify()

    def _room_for(self, claim: Claim) -> Room:
        """The room as this pod finds it: its own memory, counted among the others', is what the VM is asked for.

        A pod that holds a device came in by the same door as the others that do: only VMs are in its way.
        """
        book = self.book
        known = book.admissions.get(claim.sandbox)
        pod = known.pod if known is not None and known.pod else claim.pod
        holds_device = book.stands_for(pod)
        budget = self._budgets.for_pod(claim.pod_uid, holds_device=holds_device)
        return Room(budget, book.committed_to_sandboxes if holds_device else book.committed)

    def _take(self, change: Change) -> None:
        """What is so, whether it can be written or not."""
        if change.put or change.drop or change.notes:
            self._writer.take(codec.entries_of(change), change.notes)
            self._apply(change)

    def _apply(self, change: Change) -> None:
        change.apply(self.book)
        for admission in change.put:
            if admission.lapsed and not admission.seen:
                # It commits nothing, and goes on to claim as others do.
                continue
            self._budgets.hand_over(admission.pod_uid)
        for sandbox in change.drop:
            self._absent.pop(sandbox, None)
