"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from kata_node_agent.cli.flags import SETTING_FLAGS, SETTING_VALUES
from kata_node_agent.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

# The environment variables of these options are read by the configuration itself, which knows where a value came from.
config_file = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file; FILE.d/*.toml are read after it. [default: /etc/kata-node-agent/config.toml if it is there]",
)
host_root = click.option(
    "--host-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="KATA_NODE_AGENT_HOST_ROOT",
    default=Path("/"),
    metavar="DIR",
    help="Read the host's files below DIR: a mounted host, or a recorded tree.",
)
output_format = click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text for people, json for scripts.",
)


def complete(*values: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What the shell offers for an option whose value the configuration judges."""
    return lambda _context, _option, begun: [value for value in values if value.startswith(begun)]


def interval(help_text: str) -> Callable[[F], F]:
    """``--interval`` of a command that looks again and again."""
    return click.option(
        "--interval",
        type=click.FloatRange(min=0.2),
        default=2.0,
        show_default=True,
        metavar="SECONDS",
        help=help_text,
    )


def sort(choices: Sequence[str], default: str) -> Callable[[F], F]:
    """``--sort`` of a command that lists; amounts come with the largest first."""
    return click.option(
        "--sort",
        type=click.Choice(list(choices)),
        default=default,
        show_default=True,
        help="By what; amounts with the largest first.",
    )


limit = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Show N at most; sums are those of all."
)


def host_root_or(given: Path, configured: Path) -> Path:
    """The root that was given to this command, by flag or environment; else the configuration's."""
    source = click.get_current_context().get_parameter_source("host_root")
    return configured if source is click.core.ParameterSource.DEFAULT else given


def setting_flags(*names: str) -> Callable[[F], F]:
    """Flags that override settings; see `given_settings`."""

    def decorate(function: F) -> F:
        for name in reversed(names):
            key, metavar, text = SETTING_FLAGS[name]
            values = complete(*SETTING_VALUES[name]) if name in SETTING_VALUES else None
            function = click.option(
                name, key.replace(".", "__"), metavar=metavar, help=text, shell_complete=values
            )(function)
        return function

    return decorate


def given_settings(arguments: dict[str, Any]) -> dict[str, object]:
    """Dotted key → raw value, for the flags that were given."""
    return {name.replace("__", "."): value for name, value in arguments.items() if value is not None}


def run_dir(config_file: Path | None, given: dict[str, object]) -> Path:
    """Where the agent serves. A configuration that is broken now is no reason not to ask the agent that runs."""
    from kata_node_agent.config.load import load
    from kata_node_agent.config.schema import Config

    try:
        return load(config_file, flags=given).config.run_dir
    except ConfigError as error:
        click.echo(f"kata-node-agent: {error}", err=True)
        return Path(str(given.get("run_dir", Config().run_dir)))
