"""A day on a busy node with the agent's own rules, without a node: 300 pods, bursts, neighbours, restarts of everything.

    python -m bench.day [SVG]

Time is simulated; the account, its rules and its file are the real ones. The scheduler sees what kubelet would show it, ten
seconds late, and places pods by devices; the runtime asks when a sandbox is made. Prints what happened, and draws it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from bench.picture import Line, draw
from kata_node_agent.capacity.devices import Limit, plan_devices
from kata_node_agent.capacity.free import Need, NodeMemory, OtherPod
from kata_node_agent.config.schema import Mode
from kata_node_agent.ledger.account import Account
from kata_node_agent.ledger.book import Vm
from kata_node_agent.ledger.decide import Policy
from kata_node_agent.ledger.gate import Claim
from kata_node_agent.ledger.store import FILE_NAME, Store

MIB = 1 << 20
GIB = 1 << 30
DAY = 24 * 3600
STEP = 2.0
NODE = 64 * GIB
EVICTION = 100 * MIB
MARGIN = 256 * MIB
ONE = Need(2 * GIB, 60 * MIB)
# Kubelet tells the scheduler of a change with its status, every ten seconds.
STATUS_SECONDS = 10.0
BOOT_SECONDS = 4.0
# The agent is killed, kubelet and the container runtime are restarted; now and then at the same time.
AGENT_SECONDS, KUBELET_SECONDS, RUNTIME_SECONDS = 1800, 5400, 7200
KUBELET_DOWN_SECONDS, RUNTIME_DOWN_SECONDS = 30.0, 20.0
# Budgets rise so late; slots that turn sooner, and by themselves, swing.
RISE_SECONDS = 60.0


@dataclass(slots=True)
class Pod:
    """A pod that wants a VM."""

    name: str
    vm_bytes: int
    until: float
    since: float
    device: int | None = None
    booted: float | None = None
    tries: int = 0
    refused_at: float = 0.0


@dataclass(slots=True)
class Tally:
    """What happened."""

    placed: int = 0
    ended: int = 0
    refused_at_allocate: int = 0
    refused_at_runtime: int = 0
    waited: list[float] = field(default_factory=list)
    over_budget: int = 0
    below_in_use: int = 0
    turns: int = 0
    swings: int = 0
    restarts: int = 0
    lost: int = 0
    unasked: int = 0
    # The longest time for which pods waited on a node on which nothing ran, in seconds.
    stuck: float = 0.0


class Day:
    """The node, its pods, and the account."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.now = 1000.0
        self.folder = folder
        self.account = self.new_account()
        self.account.open()
        self.pending: list[Pod] = []
        self.pods: dict[str, Pod] = {}
        self.names = 0
        self.idle = {f"idle-{n}": 2 * GIB for n in range(4)}
        self.cache = 0
        self.burst = 0
        self.shown = self.told = 0
        self.last_turn = 0
        self.turned: deque[float] = deque(maxlen=3)
        # What pods did; a turn of the slots without any is the neighbours' or our own.
        self.steps = self.steps_at_turn = 0
        self.kubelet_back = self.runtime_back = self.waits = 0.0
        self.tally = Tally()
        self.lines: dict[str, list[tuple[float, float]]] = {
            name: [] for name in ("budget", "promised", "resident", "slots", "in use", "pending")
        }

    def new_account(self) -> Account:
        """As an agent that starts makes it."""
        policy = Policy(Mode.ENFORCE, ONE.overhead_bytes, 60)
        return Account(Store(self.folder / FILE_NAME, "day"), lambda: policy, ONE, clock=lambda: self.now)

    def demand(self, hour: float) -> None:
        """Pods come all day, more at noon, and thirty at once every three hours: three hundred and more in all."""
        rate = 0.001 + 0.002 * max(0.0, 1 - abs(hour - 13) / 6)
        coming = int(self.chance.random() < rate * STEP)
        if int(hour * 3600) % (3 * 3600) < STEP and hour > 1:
            coming += 30
        for _ in range(coming):
            self.names += 1
            size = self.chance.choice([2, 2, 2, 2, 3, 4]) * GIB
            life = self.chance.choice([300, 900, 1800, 3600])
            self.pending.append(Pod(f"pod-{self.names}", size, life, self.now))

    def neighbours(self, hour: float) -> dict[str, OtherPod]:
        """Four idle Guaranteed pods, one that reads files, one that comes in bursts."""
        if self.chance.random() < 0.01:
            self.cache = self.chance.randrange(0, 20) * GIB
        if self.chance.random() < 0.002:
            self.burst = self.chance.choice([0, 0, 4, 9]) * GIB
        others = {name: OtherPod(size, 50 * MIB) for name, size in self.idle.items()}
        others["files"] = OtherPod(512 * MIB, 300 * MIB)
        others["bursts"] = OtherPod(GIB, 200 * MIB + self.burst)
        if 9 < hour < 17:
            others["office"] = OtherPod(6 * GIB, 2 * GIB)
        return others

    def resident(self, pod: Pod) -> int:
        """What a VM has touched: more and more in its first minutes."""
        if pod.booted is None:
            return 0
        share = min(0.8, 0.1 + (self.now - pod.booted) / 1000)
        return int(pod.vm_bytes * share) + ONE.overhead_bytes

    def look(self, hour: float) -> None:
        """One sweep and one reading."""
        vms = {
            pod.name: Vm(
                pod.name, pod.vm_bytes, ONE.overhead_bytes, self.resident(pod), pod=f"day/{pod.name}"
            )
            for pod in self.pods.values()
            if pod.booted is not None
        }
        self.account.observe(vms, self.now)
        others = self.neighbours(hour)
        used = sum(vm.resident_bytes for vm in vms.values()) + sum(o.held_bytes or 0 for o in others.values())
        # Page cache is available all the same, but for what is being written back.
        available = NODE - 2 * GIB - used - self.cache // 50
        node = NodeMemory(NODE - 2 * GIB, available, EVICTION, others=others)
        self.account.take_memory(node, share=1.0, margin_bytes=MARGIN, rise_seconds=60)
        self.lines["resident"].append((hour, used / GIB))

    def show(self, hour: float) -> None:
        """What kubelet is told, and now and then tells the scheduler."""
        book, room = self.account.book, self.account.room
        plan = plan_devices(
            by_size=(NODE - 2 * GIB) // ONE.total_bytes,
            fits=room.count(ONE.by_term),
            limit=Limit("memory", ""),
            max_slots=1000,
            in_use=book.devices.keys(),
            without_device=book.without_device,
        )
        healthy = len(plan.healthy_indices)
        if healthy < plan.used:
            self.tally.below_in_use += 1
        turn = (healthy > self.shown) - (healthy < self.shown)
        if turn:
            if self.last_turn and turn != self.last_turn:
                self.tally.turns += 1
                # Once down and up again is one neighbour that comes and another that went before; a third time is a swing.
                if self.steps != self.steps_at_turn:
                    self.turned.clear()
                self.turned.append(self.now)
                self.tally.swings += len(self.turned) == 3 and self.now - self.turned[0] < RISE_SECONDS
            self.last_turn, self.steps_at_turn = turn, self.steps
        self.shown, self.plan = healthy, plan
        if self.now % STATUS_SECONDS < STEP:
            self.told = healthy
        self.lines["slots"].append((hour, healthy))
        self.lines["in use"].append((hour, plan.used))
        self.lines["pending"].append((hour, len(self.pending)))
        left = min(room.left(term) for term in room.budget)
        promised = book.committed_bytes
        self.lines["budget"].append((hour, (left + promised) / GIB))
        self.lines["promised"].append((hour, promised / GIB))

    def schedule(self) -> None:
        """Places what the scheduler believes to fit, oldest first; then the runtime asks."""
        if self.now >= self.kubelet_back:
            self.place()
        if self.now >= self.runtime_back:
            for pod in list(self.pods.values()):
                if pod.booted is None and self.now - pod.refused_at > 15:
                    self.ask(pod)
        elif self.now + STEP >= self.runtime_back:
            self.runtime_returns()
        waits = self.pending and not any(pod.booted is not None for pod in self.pods.values())
        self.waits = self.waits + STEP if waits else 0.0
        self.tally.stuck = max(self.tally.stuck, self.waits)

    def place(self) -> None:
        """Kubelet admits what it was given, and says what pods hold."""
        held = {pod.device for pod in self.pods.values()}
        while self.pending and len(self.pods) < self.told:
            free = [index for index in self.plan.healthy_indices if index not in held]
            if not free:
                break
            pod = self.pending.pop(0)
            if not self.account.allocate([free[0]]).allowed:
                # The pod fails for good; its controller makes another.
                self.tally.refused_at_allocate += 1
                self.pending.append(pod)
                break
            self.steps += 1
            pod.device = free[0]
            held.add(pod.device)
            self.pods[pod.name] = pod
        self.account.hold_devices(
            {pod.device: f"day/{pod.name}" for pod in self.pods.values() if pod.device is not None}
        )

    def runtime_returns(self) -> None:
        """It has forgotten to ask about a pod that it made just before, and to tell of ends; then it tells what there is."""
        waiting = [pod for pod in self.pods.values() if pod.booted is None]
        for pod in waiting[:1]:
            self.tally.unasked += 1
            self.boot(pod)
        claims = [
            Claim(name, pod.vm_bytes, name, f"day/{name}") for name, pod in self.pods.items() if pod.booted
        ]
        self.account.synchronize(claims)

    def ask(self, pod: Pod) -> None:
        """RunPodSandbox: kubelet tries again after a refusal."""
        decision = self.account.admit(Claim(pod.name, pod.vm_bytes, pod.name, f"day/{pod.name}"))
        if not decision.allowed:
            self.tally.refused_at_runtime += 1
            pod.refused_at, pod.tries = self.now, pod.tries + 1
            return
        room, held = self.account.room, self.account.book.committed_to_sandboxes
        if any(held.get(term, 0) > budget for term, budget in room.budget.items()):
            self.tally.over_budget += 1
        self.boot(pod)

    def boot(self, pod: Pod) -> None:
        """It has a VM from now on."""
        self.steps += 1
        pod.booted = self.now + BOOT_SECONDS
        pod.until += pod.booted
        self.tally.placed += 1
        self.tally.waited.append(self.now - pod.since)

    def end(self) -> None:
        """Pods whose time has come."""
        for pod in [p for p in self.pods.values() if p.booted is not None and p.until <= self.now]:
            if self.now >= self.runtime_back:
                self.account.release(pod.name)
            self.steps += 1
            del self.pods[pod.name]
            self.tally.ended += 1

    def restart(self) -> None:
        """SIGKILL of the agent: what was promised must be there."""
        before = dict(self.account.book.admissions)
        self.account.close()
        self.account = self.new_account()
        self.account.open()
        self.tally.restarts += 1
        self.tally.lost += len(before.keys() - self.account.book.admissions.keys())

    def fail(self, passed: float, hour: float) -> None:
        """Restarts of everything, each in its own time."""
        if passed % KUBELET_SECONDS < STEP:
            self.kubelet_back = self.now + KUBELET_DOWN_SECONDS
        if passed % RUNTIME_SECONDS < STEP:
            self.runtime_back = self.now + RUNTIME_DOWN_SECONDS
        if passed % AGENT_SECONDS < STEP:
            self.restart()
            self.look(hour)

    def run(self, seconds: float = DAY) -> None:
        """From midnight on."""
        begin = self.now
        while (passed := self.now - begin) < seconds:
            hour = passed / 3600
            self.demand(hour)
            self.end()
            self.look(hour)
            self.show(hour)
            self.schedule()
            if passed:
                self.fail(passed, hour)
            self.now += STEP
        self.account.close()


def day(folder: Path, seed: int = 1) -> Day:
    """One day."""
    found = Day(folder, seed)
    found.run()
    return found


def picture(found: Day) -> str:
    """Memory above, slots below."""
    lines = found.lines
    memory = [
        Line("what there is for VMs", lines["budget"], "#888888"),
        Line("promised", lines["promised"], "#1f6feb"),
        Line("touched, others included", lines["resident"], "#2da44e"),
    ]
    slots = [
        Line("healthy", lines["slots"], "#888888"),
        Line("in use", lines["in use"], "#1f6feb"),
        Line("pods waiting", lines["pending"], "#cf222e"),
    ]
    return draw("A day on a busy node of 64Gi", [("GiB", memory), ("devices", slots)])


def main() -> None:
    """One day, told and drawn."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        found = day(Path(folder))
    tally = found.tally
    waited = sorted(tally.waited)
    print(f"{tally.placed} VMs, {tally.ended} ended, {len(found.pending)} pods wait at midnight")
    print(f"waited p50 {waited[len(waited) // 2]:.0f} s, longest {waited[-1]:.0f} s")
    print(
        f"refused at Allocate {tally.refused_at_allocate}, by the runtime's question {tally.refused_at_runtime}"
    )
    print(f"over budget {tally.over_budget}, fewer healthy than in use {tally.below_in_use}")
    print(
        f"{tally.restarts} restarts of the agent, {tally.lost} admissions lost; {tally.unasked} VMs that nobody asked for"
    )
    print(f"{tally.turns} turns of the slots, {tally.swings} of them by themselves within a minute")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(picture(found))


if __name__ == "__main__":
    main()
