"""`kata-node-agent config show|check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kata_node_agent.cli import options
from kata_node_agent.config.load import Loaded, env_name, load, settings

SCHEMA = "kata-node-agent/config/v1"
FLAGS = (
    "--host-root",
    "--device-plugin-dir",
    "--run-dir",
    "--state-dir",
    "--profile",
    "--mode",
    "--log-level",
)


@click.group("config", short_help="Show or check the configuration.")
def command() -> None:
    """The configuration, from all sources: defaults, file, FILE.d/*.toml, environment, flags; later ones win."""


@command.command("show")
@options.config_file
@options.output_format
@options.setting_flags(*FLAGS)
def show(config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Print every setting, its value, and where that came from. The text is a valid configuration file."""
    loaded = load(config_file, flags=options.given_settings(flags))
    if output_format == "json":
        rows = [
            {"key": key, "value": _plain(value), "origin": origin} for key, value, origin in loaded.items()
        ]
        click.echo(json.dumps({"schema": SCHEMA, "settings": rows}))
        return
    click.echo(as_toml(loaded), nl=False)


@command.command("check")
@options.config_file
@options.setting_flags(*FLAGS)
def check(config_file: Path | None, **flags: Any) -> None:
    """Say whether the agent would start with this configuration, and what of it is hardly meant.

    Exit codes: 0 it would, with warnings or without; 2 it would not, with the reason.
    """
    from kata_node_agent.daemon.start import load_valid

    loaded = load_valid(config_file, options.given_settings(flags))
    origins = {origin for origin in loaded.origins.values() if origin != "default"}
    click.echo(f"configuration is valid ({', '.join(sorted(origins)) or 'all defaults'})")
    for warning in warnings(loaded):
        click.echo(f"warning: {warning}")


def warnings(loaded: Loaded) -> list[str]:
    """What the agent starts with, and nobody is likely to want."""
    config, said = loaded.config, []
    if not config.device_plugin.max_slots:
        said.append(
            f"{loaded.origins['device_plugin.max_slots']}: device_plugin.max_slots = 0: no VM is ever advertised; "
            "`accounting.drain = true` closes a node for a time"
        )
    for key, value, origin in loaded.items():
        if not key.endswith(("_file", ".tls_cert", ".tls_key", ".tls_client_ca")) or value is None:
            continue
        path = Path(str(value))
        if key.startswith("kubelet."):
            path = config.host_root / path.relative_to(path.anchor)
        if not path.exists():
            said.append(f"{origin}: {key} = {value}: there is no such file now")
    return said


def _plain(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float) else str(value)


def as_toml(loaded: Loaded) -> str:
    """Every setting as TOML, with its documentation, environment variable and origin as comments."""
    docs = {key: field.metadata["doc"] for key, field in settings()}
    lines: list[str] = []
    section = ""
    for key, value, origin in loaded.items():
        head, _, name = key.rpartition(".")
        if head != section:
            lines += ["", f"[{head}]"]
            section = head
        # JSON's texts, numbers and lists of texts are TOML's too.
        lines.append(f"{name} = {json.dumps(_plain(value), ensure_ascii=False)}")
        lines.append(f"#   {docs[key]}")
        lines.append(f"#   from: {origin}; or {env_name(key)}")
    return "\n".join(lines).lstrip("\n") + "\n"
