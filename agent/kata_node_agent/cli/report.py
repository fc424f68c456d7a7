"""`kata-node-agent report`: what the node has, what is kept from pods, what is used, and what to change."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_again_and_again, print_text

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.config.schema import Config


@click.command("report", short_help="Show what the node has, what is kept from pods, what is used.")
@options.config_file
@options.host_root
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "summary"]),
    default="text",
    show_default=True,
    help="text for people, json for scripts, summary in the shape of kubelet's Summary API node object.",
)
@click.option("--settings", is_flag=True, help="Also list every setting, with where it comes from.")
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C; json and summary one a line.")
@options.interval("Time between two reports of --watch.")
@options.setting_flags("--state-dir")
def command(
    config_file: Path | None,
    host_root: Path,
    output_format: str,
    settings: bool,
    watch: bool,
    interval: float,
    **flags: Any,
) -> None:
    """What the node has, what is kept from pods, what is used, and what to change.

    Reads the node itself and needs no running agent; the history behind the advice is what the agent wrote into its
    state folder. Numbers are kubelet's: capacity, allocatable, working sets and eviction signals as it computes them.

    \b
    Examples:
      kata-node-agent report
      kata-node-agent report --settings
      kata-node-agent report --format json | jq .allocatable.memory_bytes
      kata-node-agent report --watch
      kata-node-agent report --host-root /host

    \b
    Exit codes: 0 reported; 2 the node cannot be read, or bad usage.
    """
    from kata_node_agent.config.load import load

    config = load(config_file, flags=options.given_settings(flags)).config
    host_root = options.host_root_or(host_root, config.host_root)
    if not watch:
        print_text(_one(host_root, config, output_format, settings))
        return
    print_again_and_again(
        lambda: _one(host_root, config, output_format, settings),
        seconds=interval,
        redraw=output_format == "text",
    )


def _one(host_root: Path, config: Config, output_format: str, settings: bool) -> str:
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.collect import collect_report

    report = collect_report(HostRoot(host_root), config)
    if output_format == "summary":
        from kata_node_agent.report.summary import as_summary

        return json.dumps(as_summary(report))
    if output_format == "json":
        return json.dumps(report.to_json())
    from kata_node_agent.cli.report_text import as_text

    return as_text(report.to_json(), bars=sys.stdout.isatty(), settings=settings)
