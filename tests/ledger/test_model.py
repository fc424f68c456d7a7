"""The account against a plain model: whatever happens in whatever order, the sums are those of the model."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kata_node_agent.capacity.devices import Limit, plan_devices
from kata_node_agent.capacity.free import ALLOCATABLE, OtherPod
from kata_node_agent.config.schema import Mode
from tests.ledger.support import GIB, GRACE, MIB, ONE, OVERHEAD, World, claim

SANDBOXES = st.sampled_from("abcdefgh")
SIZES = st.sampled_from([0, 512 * MIB, GIB, 2 * GIB, 4 * GIB, 9 * GIB])
INDICES = st.integers(0, 9)
ALLOCATABLE_BYTES = 16 * GIB


class Promise:
    """The model of one sandbox: what was promised, and what its VM is."""

    def __init__(self) -> None:
        self.promised: int | None = None
        self.vm: int | None = None
        self.seen = self.confirmed = self.released = self.lapsed = False

    @property
    def bytes(self) -> int:
        if self.lapsed:
            return 0
        sizes = [size for size in (self.promised, self.vm) if size is not None]
        return max(sizes) + OVERHEAD if sizes else 0


class Ledger(RuleBasedStateMachine):
    """Everything that may happen to an account. Each rule says what the model expects of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="kna-"))
        self.world = World(self.folder, allocatable_bytes=ALLOCATABLE_BYTES)
        self.model: dict[str, Promise] = {}
        self.pods: dict[int, str] = {}
        self.others = 0

    def teardown(self) -> None:
        self.world.account.close()
        shutil.rmtree(self.folder)

    @property
    def of_sandboxes(self) -> int:
        return sum(promise.bytes for promise in self.model.values())

    @property
    def committed(self) -> int:
        counted = {f"default/{name}" for name, promise in self.model.items() if promise.bytes}
        of_devices = sum(ONE.total_bytes for pod in self.pods.values() if pod not in counted)
        return self.of_sandboxes + of_devices

    @rule(name=SANDBOXES, size=SIZES)
    def admit(self, name: str, size: int) -> None:
        before, known = self.committed, self.model.get(name, Promise())
        # A pod that holds a device, and no VM, has only VMs in its way.
        holds = f"default/{name}" in self.pods.values() and not known.bytes
        counted = self.of_sandboxes if holds else before
        decision = self.world.account.admit(claim(name, size))
        if decision.allowed:
            promise = self.model.setdefault(name, Promise())
            if promise.lapsed:
                promise.promised, promise.seen, promise.released, promise.lapsed = None, False, False, False
            promise.promised = max(promise.promised or 0, size)
            promised = self.of_sandboxes if holds else self.committed
            if promised > counted and self.world.mode is Mode.ENFORCE:
                assert promised <= ALLOCATABLE_BYTES - self.others, "promised more than there is"
        else:
            assert self.world.mode is Mode.ENFORCE
            promised = 0 if known.lapsed else known.promised or 0
            after = max(promised, known.vm or 0, size) + OVERHEAD
            # Refused only where it does not fit (what budgets gave back may be late).
            assert after - known.bytes > self.world.free + before - counted
        repeated = self.world.account.admit(claim(name, size))
        assert repeated.allowed == decision.allowed

    @rule(name=SANDBOXES)
    def confirm(self, name: str) -> None:
        self.world.account.confirm(name)
        if name in self.model:
            self.model[name].confirmed = True

    @rule(name=SANDBOXES)
    def release(self, name: str) -> None:
        self.world.account.release(name)
        self.world.account.release(name)
        if name in self.model:
            self.model[name].released = True
            if self.model[name].vm is None:
                self.world.look()
                del self.model[name]

    @rule(name=SANDBOXES, size=SIZES.filter(bool))
    def boot_or_grow(self, name: str, size: int) -> None:
        promise = self.model.setdefault(name, Promise())
        promise.vm = max(promise.vm or 0, size)
        promise.seen, promise.lapsed = True, False
        self.world.run(name, promise.vm, pod=f"default/{name}")
        self.world.look()

    @rule(name=SANDBOXES)
    def exit(self, name: str) -> None:
        if self.world.running.pop(name, None) is not None:
            promise = self.model[name]
            promise.vm, promise.lapsed = None, True
            if promise.released:
                del self.model[name]
            self.world.look()

    @rule(indices=st.sets(INDICES, min_size=1, max_size=3))
    def allocate(self, indices: set[int]) -> None:
        before = self.committed
        if self.world.account.allocate(indices).allowed:
            counted = {f"default/{name}" for name, promise in self.model.items() if promise.bytes}
            for index in indices:
                if self.pods.get(index, "") in {"", *counted}:
                    self.pods[index] = ""
            if self.committed > before and self.world.mode is Mode.ENFORCE:
                assert self.committed <= ALLOCATABLE_BYTES - self.others
        else:
            assert self.world.mode is Mode.ENFORCE

    @rule(pods=st.dictionaries(INDICES, st.sampled_from(["", "default/a", "default/b", "default/c"])))
    def kubelet_names_its_devices(self, pods: dict[int, str]) -> None:
        self.world.account.hold_devices(pods)
        self.world.account.hold_devices(pods)
        self.pods = {index: pod or self.pods.get(index, "") for index, pod in pods.items()}

    @rule(size=st.integers(0, 12).map(lambda gib: gib * GIB))
    def others_request(self, size: int) -> None:
        self.world.others = {"x": OtherPod(size, 0)}
        self.others = max(size, self.others)
        self.world.look()

    @rule()
    def time_goes_by(self) -> None:
        """Long enough for budgets to rise and for admissions without a VM or a sign to expire."""
        self.world.now += GRACE + 1
        self.world.look()
        self.others = sum(pod.request_bytes or 0 for pod in self.world.others.values())
        for name, promise in list(self.model.items()):
            if promise.vm is None:
                promise.lapsed = True
                if promise.seen or not promise.confirmed:
                    del self.model[name]

    @rule(mode=st.sampled_from(Mode))
    def switch_the_mode(self, mode: Mode) -> None:
        self.world.mode = mode

    @precondition(lambda self: self.model or self.pods)
    @rule()
    def die(self) -> None:
        held = dict(self.world.account.book.admissions)
        self.world.restart()
        assert self.world.account.book.admissions == held
        # A new agent's budgets remember nothing.
        self.others = sum(pod.request_bytes or 0 for pod in self.world.others.values())

    @invariant()
    def the_sums_are_the_models(self) -> None:
        book = self.world.account.book
        assert book.committed_bytes == self.committed
        assert book.committed.get(ALLOCATABLE, 0) == self.committed
        assert book.committed_to_sandboxes.get(ALLOCATABLE, 0) == self.of_sandboxes
        assert all(amount >= 0 for amount in (*book.committed.values(), *book.touched.values()))

    @invariant()
    def what_runs_or_is_allocated_is_in_use(self) -> None:
        book = self.world.account.book
        counted = {name for name, promise in self.model.items() if promise.bytes}
        held = set(self.pods.values())
        assert set(book.running) == counted
        assert book.without_device == sum(f"default/{name}" not in held for name in counted)

    @invariant()
    def no_number_that_is_shown_falls_below_what_is_in_use(self) -> None:
        book, fits = self.world.account.book, self.world.account.room.count(ONE.by_term)
        # By default, and where pods ask for devices in containers only.
        for without_device in (book.without_device, 0):
            for blocked in (None, Limit("draining", "")):
                shown = plan_devices(
                    by_size=ALLOCATABLE_BYTES // ONE.total_bytes,
                    fits=fits,
                    limit=Limit("memory", ""),
                    max_slots=5,
                    in_use=book.devices.keys(),
                    without_device=without_device,
                    blocked=blocked,
                )
                healthy = shown.healthy_indices
                assert len(set(healthy)) == len(healthy) >= shown.used == len(book.devices) + without_device
                assert set(book.devices) <= set(healthy) <= set(shown.indices)
                assert len(healthy) - shown.used <= (0 if blocked else fits)

    @invariant()
    def the_room_is_the_budget_less_the_sums(self) -> None:
        assert self.world.free <= ALLOCATABLE_BYTES - self.committed
        assert self.world.free >= ALLOCATABLE_BYTES - self.others - self.committed

    @invariant()
    def the_file_is_what_the_book_is(self) -> None:
        assert self.world.account.verify() == []


EXAMPLES = int(os.environ.get("LEDGER_EXAMPLES", "60"))
Ledger.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestLedger = Ledger.TestCase
