"""`kata-node-agent ledger list|history|verify|release`."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_text
from kata_node_agent.quantity import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.protobuf.message import Message

    from kata_node_agent.pb import agent_pb2

SCHEMA = "kata-node-agent/ledger/v1"
_TIMEOUT_SECONDS = 5.0
_SHOWN_ID = 12


@click.group("ledger", short_help="Who is promised memory, and what was decided.")
def command() -> None:
    """The running agent's ledger: what is promised to which VM, and every decision with its numbers."""


def _ask(config_file: Path | None, flags: dict[str, Any], method: str, request: Callable[[], Message]) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    where = options.run_dir(config_file, options.given_settings(flags))
    return ask_agent(where, method, request())


def ask_agent(run_dir: Path, method: str, request: Message) -> Any:
    """What the agent that serves in ``run_dir`` answers to one call.

    Raises:
        SocketError: no agent answers there, or it cannot do what is asked.
    """
    from kata_node_agent.api.client import ask

    return ask(run_dir, lambda stub: getattr(stub, method)(request, timeout=_TIMEOUT_SECONDS))


@command.command("list")
@options.config_file
@options.output_format
@options.setting_flags("--run-dir")
def list_admissions(config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Who is promised what: VMs, and devices that stand for VMs to come."""
    from kata_node_agent.pb import agent_pb2

    answer: agent_pb2.Admissions = _ask(config_file, flags, "ListAdmissions", agent_pb2.ListAdmissionsRequest)
    if output_format == "json":
        print_text(json.dumps(admissions_json(answer)))
        return
    print_text(admissions_text(answer))


@command.command("history")
@options.config_file
@options.output_format
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="The last so many."
)
@options.setting_flags("--run-dir")
def history(config_file: Path | None, output_format: str, limit: int, **flags: Any) -> None:
    """The last decisions, newest last."""
    from kata_node_agent.pb import agent_pb2

    answer: agent_pb2.Decisions = _ask(
        config_file, flags, "ListDecisions", lambda: agent_pb2.ListDecisionsRequest(limit=limit)
    )
    if output_format == "json":
        print_text(json.dumps(decisions_json(answer)))
        return
    print_text("\n".join(map(decision_line, answer.decisions)) or "nothing was decided since the boot")


@command.command("verify")
@options.config_file
@options.output_format
@options.setting_flags("--run-dir")
def verify(config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Compare the ledger's file with what it should hold. Exit 0 if it does, 1 with what is wrong."""
    from kata_node_agent.pb import agent_pb2

    answer: agent_pb2.Verification = _ask(config_file, flags, "VerifyLedger", agent_pb2.VerifyLedgerRequest)
    problems = list(answer.problems)
    if output_format == "json":
        print_text(json.dumps({"schema": SCHEMA, "problems": problems}))
    else:
        print_text("\n".join(problems) or "the file holds what it should")
    click.get_current_context().exit(1 if problems else 0)


@command.command("release")
@click.argument("sandbox")
@options.config_file
@options.output_format
@options.setting_flags("--run-dir")
def release(sandbox: str, config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Say that a sandbox has ended, where the container runtime did not. Memory counts while its VM runs."""
    from kata_node_agent.pb import agent_pb2

    answer: agent_pb2.ReleaseAnswer = _ask(
        config_file, flags, "Release", lambda: agent_pb2.ReleaseRequest(sandbox=sandbox)
    )
    if output_format == "json":
        print_text(json.dumps({"schema": SCHEMA, "sandbox": sandbox, "known": answer.known}))
    else:
        print_text("released; it counts until its VM has exited" if answer.known else "no such sandbox")
    click.get_current_context().exit(0 if answer.known else 1)


def _fields(message: Message) -> dict[str, object]:
    """All plain fields by name."""
    return {
        field.name: getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if field.message_type is None
    }


def admissions_json(answer: agent_pb2.Admissions) -> dict[str, object]:
    """Who is promised what, as one document."""
    return {
        "schema": SCHEMA,
        "admissions": [_fields(each) for each in answer.admissions],
        "devices": [_fields(each) for each in answer.devices],
    }


def decisions_json(answer: agent_pb2.Decisions) -> dict[str, object]:
    """The last decisions, as one document."""
    rows = [{**_fields(each), "decision": _fields(each.decision)} for each in answer.decisions]
    return {"schema": SCHEMA, "decisions": rows}


def admissions_text(answer: agent_pb2.Admissions) -> str:
    """A table, largest first."""
    rows = [("SANDBOX", "POD", "ORIGIN", "ADMITTED", "VM NOW", "PROMISED", "STATE")]
    for one in sorted(answer.admissions, key=lambda each: -each.commitment_bytes):
        now = format_bytes(one.vm_bytes) if one.vm_bytes else "–"
        state = "confirmed" if one.confirmed else "seen" if one.vm_bytes else "new"
        if not one.commitment_bytes:
            state = "ended"
        elif one.released:
            state = "ending"
        admitted, promised = format_bytes(one.admitted_bytes), format_bytes(one.commitment_bytes)
        rows.append(
            (one.sandbox[:_SHOWN_ID], one.pod or one.pod_uid, one.origin, admitted, now, promised, state)
        )
    for device in answer.devices:
        promised = format_bytes(device.commitment_bytes) if device.commitment_bytes else "with its VM"
        rows.append((device.id, device.pod, "allocated", "–", "–", promised, ""))
    if len(rows) == 1:
        return "nothing is promised"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def decision_line(noted: agent_pb2.NotedDecision) -> str:
    """``2026-11-24 15:00:00  admit   refused  NotEnoughMemory: …``."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(noted.unix_seconds))
    decision = noted.decision
    word = "would refuse" if decision.would_refuse else "yes" if decision.allowed else "refused"
    who = noted.pod or noted.sandbox[:_SHOWN_ID]
    return f"{when}  {noted.what:8} {word:12} {decision.reason}: {who}: {decision.message}".rstrip(": ")
