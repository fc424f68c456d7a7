"""`kata-node-agent status`: asks the running agent."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.gates import gates, gates_line
from kata_node_agent.cli.output import print_text
from kata_node_agent.quantity import format_bytes
from kata_node_agent.text import ago

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.pb import agent_pb2

SCHEMA = "kata-node-agent/status/v1"


@click.command("status", short_help="Ask the running agent what it advertises.")
@options.config_file
@options.output_format
@click.option("--history", is_flag=True, help="What changed, newest last, instead.")
@options.setting_flags("--run-dir")
def command(config_file: Path | None, output_format: str, history: bool, **flags: Any) -> None:
    """What is wrong, if anything; the verdict; how many VMs fit and what limits it; kubelet.

    Exit codes: 0 the agent answered and has no problem; 1 it answered and has; 2 no answer.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from kata_node_agent.api.client import get_status

    status = get_status(options.run_dir(config_file, options.given_settings(flags)))
    if output_format == "json":
        print_text(json.dumps(as_json(status)))
    else:
        print_text(history_text(status) if history else as_text(status, time.time()))
    click.get_current_context().exit(1 if status.problems else 0)


def as_json(status: agent_pb2.Status) -> dict[str, object]:
    """The document of the contract; further keys beside the promised ones."""
    slots, kubelet, memory = status.slots, status.kubelet, status.memory
    return {
        "schema": SCHEMA,
        "version": status.version,
        "pid": status.pid,
        "started_unix_seconds": status.started_unix_seconds,
        "verdict": status.verdict,
        "verdict_since_unix_seconds": status.verdict_since_unix_seconds,
        "profile": status.profile,
        "mode": status.mode,
        "resource": status.resource,
        "slots": {
            "total": slots.total,
            "healthy": slots.healthy,
            "in_use": slots.in_use,
            "limited_by": slots.limited_by,
            "limited_by_message": slots.limited_by_message,
        },
        "kubelet": {
            "registered": kubelet.registered,
            "stream_open": kubelet.stream_open,
            "since_unix_seconds": kubelet.since_unix_seconds,
            "registrations": kubelet.registrations,
            "last_error": kubelet.last_error,
            "socket": kubelet.socket,
        },
        "nri": nri_json(status.nri),
        "gates": [asdict(gate) for gate in gates(status)],
        "memory": {field.name: getattr(memory, field.name) for field in memory.DESCRIPTOR.fields},
        "free_bytes": status.account.free_bytes,
        "committed_bytes": status.account.committed_bytes,
        "account": account_json(status.account),
        "history": [
            {"unix_seconds": change.unix_seconds, "what": change.what, "message": change.message}
            for change in status.history
        ],
        "change_counts": dict(status.change_counts),
        "problems": [{"reason": p.reason, "message": p.message, "remedy": p.remedy} for p in status.problems],
    }


def account_json(account: agent_pb2.Account) -> dict[str, object]:
    """What may be promised to VMs, and what is."""
    return {
        "terms": [
            {field.name: getattr(term, field.name) for field in term.DESCRIPTOR.fields}
            for term in account.terms
        ],
        "limited_by": account.limited_by,
        "other_pods_bytes": account.other_pods_bytes,
        "share": account.share,
        "sandboxes": account.sandboxes,
        "devices": account.devices,
        "draining": account.draining,
        "closed_by": account.closed_by,
        "mode_origin": account.mode_origin,
    }


def nri_json(nri: agent_pb2.Nri) -> dict[str, object]:
    """The part about the container runtime's questions."""
    plain = [field.name for field in nri.DESCRIPTOR.fields if field.name not in {"decisions", "answers"}]
    decisions = [{"question": d.question, "outcome": d.outcome, "count": d.count} for d in nri.decisions]
    return {name: getattr(nri, name) for name in plain} | {"decisions": decisions}


def history_text(status: agent_pb2.Status) -> str:
    """One line a change, with local time."""
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(change.unix_seconds))}  {change.what:8} {change.message}"
        for change in status.history
    ]
    return "\n".join(lines) or "nothing has changed since the agent started"


def as_text(status: agent_pb2.Status, now: float) -> str:
    """For people: what is wrong first, then what is."""
    slots, kubelet, memory = status.slots, status.kubelet, status.memory
    lines: list[str] = []
    for problem in status.problems:
        lines.append(click.style(f"{problem.reason}: {problem.message}", fg="red"))
        if problem.remedy:
            lines.append(f"  remedy: {problem.remedy}")
    if status.account.draining:
        # No problem: somebody wants it so. But who asks why no VM comes here has to read it first.
        lines.append(
            click.style("draining: no new VM is taken; those that run stay", fg="yellow")
            + "; `kata-node-agent drain off` opens it"
        )
    if lines:
        lines.append("")
    colour = {"eligible": "green", "ineligible": "red"}.get(status.verdict, "yellow")
    verdict = click.style(status.verdict, fg=colour, bold=True)
    lines.append(
        f"verdict    {verdict} (profile {status.profile}), for {ago(status.verdict_since_unix_seconds, now)}"
    )
    lines.append(
        f"slots      {slots.healthy} healthy of {slots.total}, {slots.in_use} in use; {status.resource}, mode {status.mode}"
    )
    lines.append(f"limited by {slots.limited_by}: {slots.limited_by_message}")
    if memory.capacity_bytes:
        lines.append(
            f"memory     allocatable {format_bytes(memory.allocatable_bytes)} = {format_bytes(memory.capacity_bytes)}"
            f" − reserved {format_bytes(memory.system_reserved_bytes + memory.kube_reserved_bytes)}"
            f" − eviction {format_bytes(memory.eviction_hard_bytes)}"
            + (f" − hugepages {format_bytes(memory.hugepages_bytes)}" if memory.hugepages_bytes else "")
            + f"; one VM {format_bytes(memory.cost_of_one_bytes)}"
        )
    lines += _account_lines(status.account)
    state = "registered" if kubelet.registered else "not registered"
    stream = "stream open" if kubelet.stream_open else "no stream"
    times = _number(kubelet.registrations, "registration")
    lines.append(
        f"kubelet    {state}, {stream}, for {ago(kubelet.since_unix_seconds, now)}, {times}; {kubelet.socket}"
    )
    lines.append(nri_line(status.nri, now))
    lines.append(gates_line(status))
    lines.append(f"agent      {status.version}, pid {status.pid}, up {ago(status.started_unix_seconds, now)}")
    return "\n".join(lines)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _account_lines(account: agent_pb2.Account) -> list[str]:
    """What is promised and what is left, by term; the one that limits first."""
    if not account.terms:
        return []
    drained = ", draining" if account.draining else ""
    holders = f"{_number(account.sandboxes, 'VM')} and {_number(account.devices, 'device')}"
    promised, free = format_bytes(account.committed_bytes), format_bytes(account.free_bytes)
    others = (
        f", {format_bytes(account.other_pods_bytes)} claimed by other pods"
        if account.other_pods_bytes
        else ""
    )
    lines = [f"account    {promised} promised to {holders}{others}, {free} free{drained}"]
    for term in sorted(account.terms, key=lambda term: term.name != account.limited_by):
        if not (term.budget_bytes or term.committed_bytes):
            # No huge pages, say: nobody has any, and nobody wants any.
            continue
        less = f"{format_bytes(term.budget_bytes)} − {format_bytes(term.committed_bytes)}"
        lines.append(f"           {term.name:18} {less} = {format_bytes(term.free_bytes)}")
    return lines


def nri_line(nri: agent_pb2.Nri, now: float) -> str:
    """Whether the runtime asks before it creates VMs, and what went past us."""
    line = f"nri        {nri.state}"
    if nri.connected:
        line += f", {nri.runtime}, for {ago(nri.since_unix_seconds, now)}, {nri.pods} Kata pods"
    elif nri.state != "off":
        line += f": {nri.socket}"
    if past := nri.undecided + nri.late + nri.unanswered + nri.unseen:
        line += f"; {past} went on without a decision"
    return line
