"""The group of all commands, each imported only when it is called: `check` must not pay for gRPC."""

from __future__ import annotations

import importlib

import click

from kata_node_agent import __version__

# name -> (module, one line for --help). The line stands here so that --help imports no command.
COMMANDS = {
    "check": ("check", "Prove whether this node can run Kata VMs, and say why."),
    "report": ("report", "Show what the node has, what is kept from pods, what is used."),
    "sandboxes": ("sandboxes", "Show the Kata VMs that run here, what they cost, what threatens them."),
    "top": ("top", "The Kata VMs, live and sorted."),
    "advise": ("advise", "What to set, from what was observed: podFixed, systemReserved."),
    "snapshot": ("snapshot", "Record all facts of this node in one JSON file."),
    "run": ("run", "Run the agent in the foreground (this is what systemd starts)."),
    "status": ("status", "Ask the running agent what it advertises, and what limits it."),
    "fit": ("fit", "Say how many more VMs of a size fit on this node, and what limits it."),
    "ledger": ("ledger", "Who is promised memory, and what was decided."),
    "drain": ("drain", "Close the node for new VMs, or open it."),
    "mode": ("mode", "Switch what the running agent does with a decision against a pod."),
    "label": ("label", "Show, write or remove what Node Feature Discovery reads of this node."),
    "support-bundle": ("support_bundle", "Gather what a helper needs in one file, without secrets."),
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
        assert isinstance(command, click.Command)  # noqa: S101 - a fault of ours
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
