"""`kata-node-agent sandboxes`: the Kata VMs that run here, what they cost, and what threatens them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_again_and_again, print_text
from kata_node_agent.cli.sandbox_order import CLAIM_REMEDY, matches, ordered, seen
from kata_node_agent.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.report.sandboxes import Overview


@click.command("sandboxes", short_help="Show the Kata VMs that run here, their cost and risks.")
@click.argument("name", required=False)
@options.config_file
@options.host_root
@options.output_format
@options.sort(("id", "pod", "resident", "vm", "beside", "risks"), "id")
@options.limit
@click.option("--details", is_flag=True, help="What each costs part by part, and all its risks.")
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C; json one a line.")
@options.interval("Time between two looks of --watch.")
def command(
    name: str | None,
    config_file: Path | None,
    host_root: Path,
    output_format: str,
    sort: str,
    limit: int | None,
    details: bool,
    watch: bool,
    interval: float,
) -> None:
    """The Kata VMs that run on this node: how big they are, what they really cost, and what threatens them.

    NAME shows one in detail: a pod (namespace/name, or its name), the beginning of a sandbox's id, or a name as it stands
    in the table. Reads the node
    itself and needs no running agent; shared memory is counted once, where the sum of RSS counts it up to three times.

    \b
    Examples:
      kata-node-agent sandboxes
      kata-node-agent sandboxes default/web-0
      kata-node-agent sandboxes --format json | jq '.sandboxes[] | {pod, risks}'
      kata-node-agent sandboxes --sort risks --limit 10
      kata-node-agent sandboxes --watch

    \b
    Exit codes: 0 shown; 2 no VM may be looked into, the node cannot be read, no such sandbox, or bad usage.
    """
    from kata_node_agent.config.load import load
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.sandboxes import SandboxObserver

    config = load(config_file).config
    root = HostRoot(options.host_root_or(host_root, config.host_root))
    observer = SandboxObserver(root, config)

    def show() -> str:
        overview = ordered(_chosen(seen(observer.look()), name), sort)
        if output_format == "json":
            return json.dumps(replace(overview, views=overview.views[:limit]).document())
        from kata_node_agent.cli.sandbox_text import as_text

        return as_text(overview, details=details or name is not None, limit=limit)

    if not watch:
        print_text(show())
        return
    print_again_and_again(show, seconds=interval, redraw=output_format == "text")


def _chosen(overview: Overview, name: str | None) -> Overview:
    if name is None:
        return overview
    views = tuple(view for view in overview.views if matches(view, name))
    if not views:
        for one in overview.unbelieved:
            if one.claim.rpartition(" ")[2].startswith(name) or name == str(one.pid):
                raise HostError(
                    f"process {one.pid} claims to be {one.claim} and is not believed: {one.why}",
                    hint=CLAIM_REMEDY,
                    reason="SandboxNotBelieved",
                )
        raise HostError(
            f"no sandbox of this node is or belongs to {name}",
            hint="see `kata-node-agent sandboxes` for those that run",
            reason="NoSuchSandbox",
        )
    return replace(overview, views=views, unbelieved=())
