"""`kata-node-agent mode [enforce|warn|off|configured]`."""

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

SCHEMA = "kata-node-agent/mode/v1"
_TIMEOUT_SECONDS = 5.0


@click.command("mode", short_help="Switch what the running agent does with a decision against a pod.")
@click.argument("mode", required=False, type=click.Choice(["enforce", "warn", "off", "configured"]))
@options.config_file
@options.output_format
@options.setting_flags("--run-dir")
def command(mode: str | None, config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Switch the running agent: enforce refuses; warn decides and records, and refuses nothing; off only counts.

    It outlives the agent, but not the boot. `configured` gives it back to the configuration. Without a mode: show the one in
    force, and who set it.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from kata_node_agent.api.client import ask, get_status
    from kata_node_agent.pb import agent_pb2

    where = options.run_dir(config_file, options.given_settings(flags))
    if mode is None:
        status = get_status(where)
        document = {"schema": SCHEMA, "mode": status.mode, "origin": status.account.mode_origin}
        text = f"mode {status.mode}, {status.account.mode_origin}"
        print_text(json.dumps(document) if output_format == "json" else text)
        return
    request = agent_pb2.SetModeRequest(mode="" if mode == "configured" else mode)
    answer: agent_pb2.SetModeAnswer = ask(where, lambda stub: stub.SetMode(request, timeout=_TIMEOUT_SECONDS))
    print_text(
        json.dumps({"schema": SCHEMA, "mode": answer.mode})
        if output_format == "json"
        else f"mode {answer.mode}"
    )
