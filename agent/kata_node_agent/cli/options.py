"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

# The environment variables of these options are read by the configuration itself, which knows where a value came from.
config_file = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file; FILE.d/*.toml are read after it. [default: /etc/kata-node-agent/config.toml if it is there]",
)
output_format = click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text for people, json for scripts.",
)

# flag -> (dotted key of the configuration, what --help says)
_SETTING_FLAGS = {
    "--host-root": ("host_root", "DIR", "Read the host's /proc, /sys, /dev and /etc below DIR."),
    "--device-plugin-dir": ("device_plugin.directory", "DIR", "Kubelet's device plugin folder."),
    "--run-dir": ("run_dir", "DIR", "Folder of agent.sock, lock and ledger."),
    "--state-dir": ("state_dir", "DIR", "Folder of what outlives a boot."),
    "--profile": ("eligibility.profile", "NAME", "openshift, upstream or auto."),
    "--mode": ("mode", "enforce|warn|off", "What to do with a decision against a pod."),
    "--log-level": ("log_level", "LEVEL", "debug, info, warning or error."),
}


def setting_flags(*names: str) -> Callable[[F], F]:
    """Flags that override settings; see `given_settings`."""

    def decorate(function: F) -> F:
        for name in reversed(names):
            key, metavar, text = _SETTING_FLAGS[name]
            function = click.option(name, key.replace(".", "__"), metavar=metavar, help=text)(function)
        return function

    return decorate


def given_settings(arguments: dict[str, Any]) -> dict[str, object]:
    """Dotted key → raw value, for the flags that were given."""
    return {name.replace("__", "."): value for name, value in arguments.items() if value is not None}
