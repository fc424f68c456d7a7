"""``snapshot``: records all facts of a node in one file, for ``check --snapshot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kata_node_agent.cli import options

if TYPE_CHECKING:
    from pathlib import Path


@click.command("snapshot", short_help="Record all facts of this node in one JSON file.")
@click.option(
    "--output", default="-", metavar="FILE", help="Where to write; - is standard output. [default: -]"
)
@options.config_file
@options.host_root
def command(output: str, config_file: Path | None, host_root: Path) -> int:
    """Record all facts of this node in one JSON file, to be judged anywhere.

    Host names, serial numbers, addresses and the environment are left out.

    \b
    Examples:
      kata-node-agent snapshot --output node.json
      kata-node-agent check --snapshot node.json
      kata-node-agent snapshot | kata-node-agent check --snapshot -

    \b
    Exit codes:
      0  written
      2  could not be written, bad usage, or an internal error
    """
    from kata_node_agent.cli.check import collect_facts
    from kata_node_agent.cli.output import write_output
    from kata_node_agent.config.load import load
    from kata_node_agent.host.snapshot import write_snapshot

    write_output(output, write_snapshot(collect_facts(host_root, load(config_file).config.kubelet)))
    return 0
