"""One look at the node: may it run VMs, and how much memory has it for them. Blocking; the daemon calls it in a thread."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import DevicePlan, Limit, plan_devices
from kata_node_agent.capacity.free import ALLOCATABLE, HUGE
from kata_node_agent.dataclass import dataclass
from kata_node_agent.eligibility import Verdict, evaluate
from kata_node_agent.errors import AgentError
from kata_node_agent.host.facts import collect
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.memory import read_budget
from kata_node_agent.publish.nfd import node_features
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from kata_node_agent.capacity.allocatable import MemoryBudget
    from kata_node_agent.capacity.free import Need, Room
    from kata_node_agent.config.schema import Config
    from kata_node_agent.host.facts import CpuidReader
    from kata_node_agent.ledger.book import Book
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should do something about."""

    reason: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one look found.

    Attributes:
        verdict: may the node run VMs.
        budget: its memory; ``None`` where it could not be read.
        problems: what is wrong with the node or with what we read of it.
        features: what NFD is to read, without its expiry.
        kubelet: the last good settings of kubelet.
    """

    verdict: Verdict
    budget: MemoryBudget | None
    problems: tuple[Problem, ...]
    features: str = ""
    kubelet: KubeletSettings | None = None


def look(config: Config, known: KubeletSettings | None = None, cpuid: CpuidReader | None = None) -> NodeView:
    """Reads and judges the node. Takes milliseconds; bounded to seconds when a guest loops.

    Args:
        config: the configuration in force.
        known: kubelet's settings as an earlier look found them; see `read_budget`.
        cpuid: reads CPUID of a CPU; the processor itself unless given.

    Raises:
        ConfigError: the configuration names a profile or check that does not exist.
    """
    root = HostRoot(config.host_root)
    problems: list[Problem] = []
    budget: MemoryBudget | None = None
    settings = known
    try:
        budget, settings = read_budget(root, config.kubelet, known)
        if settings.problem:
            what = "what was read before stays" if known else "kubelet's defaults are used instead"
            remedy = f"{what}; mend the file, or name another in kubelet.config_file"
            problems.append(Problem("KubeletConfigurationInvalid", settings.problem, remedy))
        problems += [
            Problem(complaint.reason, complaint.message, complaint.remedy)
            for complaint in settings.complaints
        ]
    except AgentError as error:
        problems.append(
            Problem("MemoryUnreadable", error.message, error.hint or "see whether host_root is right")
        )
    facts = replace(
        collect(root, cpuid=cpuid), allocatable_bytes=budget.allocatable_bytes if budget else None
    )
    eligibility = config.eligibility
    verdict = evaluate(
        facts,
        profile=eligibility.chosen_profile,
        require=eligibility.require,
        waive=eligibility.waive,
    )
    features = node_features(verdict, facts, label=config.nfd.label)
    good = settings if settings is not None and not settings.problem else known
    return NodeView(verdict, budget, tuple(problems), features.body, good)


def verdict_line(verdict: Verdict) -> str:
    """The verdict, and the first check that stands in its way: ``not eligible: kvm.device: /dev/kvm does not exist``."""
    if verdict.verdict == "eligible":
        return "eligible"
    blocking = verdict.blocking
    word = "not eligible" if verdict.verdict == "ineligible" else "eligibility unknown"
    if not blocking:
        return word
    more = f" (and {len(blocking) - 1} more)" if len(blocking) > 1 else ""
    return f"{word}: {blocking[0].id}: {blocking[0].message}{more}"


def plan(
    view: NodeView | None, config: Config, book: Book, room: Room, cost: Need, closed: Limit | None
) -> DevicePlan:
    """The devices that follow from a look, from what is promised, and from what is left.

    Args:
        view: what the last look found; ``None`` before the first.
        config: the configuration in force.
        book: what is promised.
        room: what is left.
        cost: of one more VM.
        closed: why the account takes no new VM; ``None`` when it does.
    """
    blocked = closed
    if view is None:
        blocked = Limit("starting", "the node is being checked")
    elif view.verdict.verdict != "eligible":
        blocked = Limit("eligibility", verdict_line(view.verdict))
    elif view.budget is None:
        blocked = Limit("memory_unreadable", "the node's memory could not be read")
    elif blocked is None and not room.known:
        blocked = Limit("starting", "memory and VMs are being looked at")
    term = room.least(cost.by_term)
    text = f"{room.explain(term)} / {format_bytes(cost.by_term[term])} a VM" if room.known else "not read yet"
    without_device = 0 if config.device_plugin.containers_only else book.without_device
    if without_device:
        text += f"; {without_device} more healthy for VMs whose pods hold no device"
    return plan_devices(
        by_size=_by_size(view, config.accounting.share, cost),
        fits=room.count(cost.by_term),
        limit=Limit(term, text),
        max_slots=config.device_plugin.max_slots,
        in_use=book.devices.keys(),
        without_device=without_device,
        blocked=blocked,
    )


def _by_size(view: NodeView | None, share: float, cost: Need) -> int:
    """How many VMs the node's size allows: by each kind of memory that one takes, whatever uses it now."""
    if view is None or view.budget is None:
        return 0
    there = {ALLOCATABLE: int(view.budget.allocatable_bytes * share), HUGE: view.budget.hugepages_bytes}
    taken = cost.by_term
    return min((amount // taken[term] for term, amount in there.items() if taken.get(term)), default=0)
