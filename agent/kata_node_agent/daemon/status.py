"""What the agent says of itself, from its parts: the Status message and systemd's one line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kata_node_agent import __version__
from kata_node_agent.daemon.harm import worst_first
from kata_node_agent.daemon.node import NodeView, Problem, verdict_line
from kata_node_agent.kubelet.registrar import Registrar, State
from kata_node_agent.pb import agent_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_node_agent.capacity.allocatable import MemoryBudget
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.history import History
    from kata_node_agent.kubelet.devices import DeviceTable


def build_status(
    *,
    config: Config,
    view: NodeView | None,
    table: DeviceTable,
    registrar: Registrar,
    problems: Sequence[Problem],
    started: float,
    verdict_since: float,
    history: History,
    account: AccountKeeper,
    nri: pb.Nri,
) -> pb.Status:
    """The Status message. Times are seconds since 1970."""
    kubelet = registrar.status
    return pb.Status(
        version=__version__,
        pid=os.getpid(),
        started_unix_seconds=started,
        verdict=view.verdict.verdict if view else "unknown",
        profile=view.verdict.profile if view else "",
        verdict_since_unix_seconds=verdict_since,
        mode=account.mode,
        nri=nri,
        resource=config.device_plugin.resource,
        slots=pb.Slots(
            total=len(table.listed),
            healthy=len(table.healthy),
            in_use=table.plan.used,
            limited_by=table.plan.limit.name,
            limited_by_message=table.plan.limit.message,
        ),
        kubelet=pb.Kubelet(
            registered=kubelet.state is State.REGISTERED,
            stream_open=registrar.stream_open,
            since_unix_seconds=kubelet.since,
            registrations=kubelet.registrations,
            last_error=kubelet.last_error,
            socket=str(registrar.socket_path),
        ),
        memory=_memory(view.budget, account) if view and view.budget else None,
        account=_account(account, config.accounting.share),
        history=[
            pb.Change(unix_seconds=c.unix_seconds, what=c.what, message=c.message) for c in history.changes
        ],
        change_counts=history.counts,
        problems=[pb.Problem(reason=p.reason, message=p.message, remedy=p.remedy) for p in problems],
    )


def _memory(budget: MemoryBudget, keeper: AccountKeeper) -> pb.Memory:
    account = keeper.account
    return pb.Memory(
        capacity_bytes=budget.capacity_bytes,
        system_reserved_bytes=budget.system_reserved_bytes,
        kube_reserved_bytes=budget.kube_reserved_bytes,
        eviction_hard_bytes=budget.eviction_hard_bytes,
        hugepages_bytes=budget.hugepages_bytes,
        allocatable_bytes=budget.allocatable_bytes,
        cost_of_one_bytes=account.cost_of_one.total_bytes,
        committed_bytes=account.book.committed_bytes,
        free_bytes=keeper.free_bytes,
    )


def _account(keeper: AccountKeeper, share: float) -> pb.Account:
    account, closed = keeper.account, keeper.closed()
    room, book = account.room, account.book
    return pb.Account(
        terms=[
            pb.Term(
                name=name,
                budget_bytes=budget,
                committed_bytes=room.committed.get(name, 0),
                free_bytes=room.left(name),
            )
            for name, budget in room.budget.items()
        ],
        limited_by=room.least(account.cost_of_one.by_term),
        free_bytes=keeper.free_bytes,
        committed_bytes=book.committed_bytes,
        sandboxes=len(book.running),
        devices=len(book.devices),
        draining=keeper.draining,
        closed_by=closed.name if closed is not None else "",
        decisions=keeper.decisions.messages(),
        mode_origin=mode_origin(keeper),
        other_pods_bytes=account.other_pods_bytes,
        share=share,
    )


def all_problems(
    view: NodeView | None, registrar: Registrar, others: Sequence[Problem | None]
) -> list[Problem]:
    """What is wrong, worst first.

    Args:
        view: what the last look at the node found.
        registrar: how it stands with kubelet.
        others: what the other parts have to say; ``None`` where all is well.
    """
    of_node = _node_problems(view) if view else []
    return worst_first([*_kubelet_problems(registrar), *of_node, *(each for each in others if each)])


def mode_origin(keeper: AccountKeeper) -> str:
    """Where the mode in force comes from."""
    return "set at run time" if keeper.account.setting("mode") else "configured"


def _kubelet_problems(registrar: Registrar) -> list[Problem]:
    state, error = registrar.status.state, registrar.status.last_error
    if state is State.REGISTERED:
        return []
    if state is State.REGISTERING:
        remedy = "see whether kubelet runs (systemctl status kubelet); the agent tries again by itself"
        return [
            Problem(
                "NotRegistered",
                f"not registered with kubelet: {error or 'the first try is under way'}",
                remedy,
            )
        ]
    remedy = "start kubelet; if its folder is another one, set device_plugin.directory"
    return [Problem("KubeletAbsent", f"{state.value}: {registrar.socket_path}", remedy)]


def _node_problems(view: NodeView) -> list[Problem]:
    blocking = [
        Problem(check.reason, f"{check.id}: {check.message}", check.remedy) for check in view.verdict.blocking
    ]
    return [*blocking, *view.problems]


def status_line(view: NodeView, table: DeviceTable, registrar: Registrar) -> str:
    """For `systemctl status`: ``registered; 9 of 11 slots healthy, 2 in use; eligible``."""
    slots = f"{len(table.healthy)} of {len(table.listed)} slots healthy, {len(table.plan.in_use)} in use"
    return f"{registrar.status.state}; {slots}; {verdict_line(view.verdict)}"
