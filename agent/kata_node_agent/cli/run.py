"""`kata-node-agent run`: the daemon in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options

if TYPE_CHECKING:
    from pathlib import Path


@click.command("run", short_help="Run the agent in the foreground.")
@options.config_file
@options.setting_flags(
    "--host-root", "--device-plugin-dir", "--run-dir", "--state-dir", "--profile", "--mode", "--log-level"
)
def command(config_file: Path | None, **flags: Any) -> None:
    """Check the node, serve the device plugin, register with kubelet; until SIGTERM or Ctrl-C.

    \b
    SIGHUP takes the configuration anew (systemctl reload).
    Under systemd it speaks sd_notify and logs with priorities.

    \b
    As a service, as root:  kata-node-agent run
    Anywhere, for a look:   kata-node-agent dev

    Exit codes: 0 ended by a signal; 2 could not start, with the reason and a remedy on stderr; 75 has to be started
    anew at once, which systemd does.
    """
    from kata_node_agent.daemon.start import start

    start(config_file, options.given_settings(flags))
