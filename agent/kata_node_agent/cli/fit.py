"""`kata-node-agent fit`: how many more."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_text
from kata_node_agent.quantity import format_bytes, parse_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.pb import agent_pb2

SCHEMA = "kata-node-agent/fit/v1"
_TIMEOUT_SECONDS = 5.0


@click.command("fit", short_help="Say how many more VMs of a size fit, and what limits it.")
@options.config_file
@options.output_format
@click.option("--memory", metavar="QUANTITY", help="Such as 4Gi. [default: the usual VM]")
@click.option(
    "--handler", default="", metavar="NAME", help="QUANTITY is what the pod's containers are limited to."
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="Exit 1 unless N more fit now.")
@options.setting_flags("--run-dir")
def command(
    config_file: Path | None,
    output_format: str,
    memory: str | None,
    handler: str,
    count: int | None,
    **flags: Any,
) -> None:
    """How many more VMs fit beside what is promised, and what limits it.

    Without --handler, QUANTITY is the memory of the VM. With --handler it is the sum of the memory limits of a pod's
    containers, and the VM is what Kata makes of it with that handler's settings. The host's overhead comes on top.

    Exit codes: 0 the agent answered; 1 fewer than N fit, or the node takes none now; 2 no answer.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    amount = _amount(memory, is_vm=not handler) if memory is not None else 0
    from kata_node_agent.api.client import ask
    from kata_node_agent.pb import agent_pb2

    request = agent_pb2.FitRequest(memory_bytes=min(amount, 1 << 62), handler=handler)
    where = options.run_dir(config_file, options.given_settings(flags))
    answer: agent_pb2.FitAnswer = ask(where, lambda stub: stub.Fit(request, timeout=_TIMEOUT_SECONDS))
    print_text(json.dumps(as_json(answer)) if output_format == "json" else as_text(answer))
    wanted = count is not None and (answer.count < count or bool(answer.closed_by))
    click.get_current_context().exit(1 if wanted else 0)


def _amount(memory: str, *, is_vm: bool) -> int:
    """The bytes that were asked about. Zero stands for the usual VM in the question, so nobody may mean it."""
    from kata_node_agent.config.schema import refuse_tiny_vm

    amount = parse_bytes(memory)
    # A container may have a limit of a few MiB, and pods without limits exist; neither is a few KiB by intent.
    if is_vm or amount:
        refuse_tiny_vm("--memory", amount)
    return amount


def as_json(answer: agent_pb2.FitAnswer) -> dict[str, object]:
    """The document of the contract; further keys beside the promised ones."""
    return {
        "schema": SCHEMA,
        "count": answer.count,
        "limited_by": answer.limited_by,
        "limited_by_message": answer.limited_by_message,
        "free_bytes": answer.free_bytes,
        "needs_bytes": answer.needs_bytes,
        "vm_bytes": answer.vm_bytes,
        "closed_by": answer.closed_by,
    }


def as_text(answer: agent_pb2.FitAnswer) -> str:
    """For people."""
    each = format_bytes(answer.needs_bytes)
    vm = f"{format_bytes(answer.vm_bytes)} and {format_bytes(answer.needs_bytes - answer.vm_bytes)} beside it"
    lines = [
        f"{answer.count} more of {each} each ({vm})",
        f"limited by {answer.limited_by}: {answer.limited_by_message}",
    ]
    if answer.closed_by:
        lines.insert(0, click.style(f"none now: {answer.closed_by}", fg="yellow"))
    return "\n".join(lines)
