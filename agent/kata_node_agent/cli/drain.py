"""`kata-node-agent drain [on|off]`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_text

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.pb import agent_pb2

SCHEMA = "kata-node-agent/drain/v1"
_TIMEOUT_SECONDS = 5.0


@click.command("drain", short_help="Close the node for new VMs, or open it.")
@click.argument("switch", required=False, type=click.Choice(["on", "off"]))
@options.config_file
@options.output_format
@options.setting_flags("--run-dir")
def command(switch: str | None, config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Close the node for new VMs (on), or open it (off). VMs that run stay, and may grow.

    It outlives the agent, but not the boot. `accounting.drain` in the configuration closes the node as well. Without a word:
    show whether it is closed.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from kata_node_agent.api.client import ask, get_status
    from kata_node_agent.pb import agent_pb2

    where = options.run_dir(config_file, options.given_settings(flags))
    if switch is None:
        draining = get_status(where).account.draining
    else:
        request = agent_pb2.DrainRequest(on=switch == "on")
        answer: agent_pb2.DrainAnswer = ask(where, lambda stub: stub.Drain(request, timeout=_TIMEOUT_SECONDS))
        draining = answer.draining
    if output_format == "json":
        print_text(json.dumps({"schema": SCHEMA, "draining": draining}))
        return
    text = "closed: no new VM is taken" if draining else "open to new VMs"
    if draining and switch == "off":
        text += " (the configuration says so: accounting.drain)"
    print_text(text)
