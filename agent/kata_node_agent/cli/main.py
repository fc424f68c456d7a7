"""The front door: finds the command, and turns errors into one clear line and an exit code.

Commands are loaded when they are called: `check` must not pay for gRPC, nor the daemon for what prints tables.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from kata_node_agent import __version__
from kata_node_agent.errors import AgentError

# name -> (module, one line for --help). The line stands here so that --help imports no command.
COMMANDS = {
    "check": ("check", "Prove whether this node can run Kata VMs, and say why."),
    "snapshot": ("snapshot", "Record all facts of this node in one JSON file."),
    "run": ("run", "Run the agent in the foreground (this is what systemd starts)."),
    "status": ("status", "Ask the running agent what it advertises, and what limits it."),
    "config": ("config", "Show or check the configuration, with where each value came from."),
    "dev": ("dev", "Try it all: the agent and a development kubelet, in one folder."),
    "devkubelet": ("devkubelet", "A small kubelet for newcomers and tests."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's ``command`` object from its module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kata_node_agent.cli.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kata-node-agent")
def cli() -> None:
    """Keep a Kubernetes node honest about Kata Containers.

    \b
    On a node, as root:    kata-node-agent check
    To try the whole:      kata-node-agent dev
    As a service:          kata-node-agent run
    """


def main() -> NoReturn:
    """Entry point of the `kata-node-agent` command. Exit 2 is bad usage or an error of any kind; see `check --help`."""
    try:
        code = cli.main(standalone_mode=False)
    except AgentError as error:
        click.echo(f"kata-node-agent: {error.message}", err=True)
        if error.hint:
            click.echo(f"  remedy: {error.hint}", err=True)
        click.echo(f"  reason: {error.reason}", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing to say, nobody to say it to.
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
