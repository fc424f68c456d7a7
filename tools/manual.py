"""Manual pages from what the program itself says: the commands' help, and the settings' documentation.

    python -m tools.manual FOLDER

writes kata-node-agent(1), a page for each command and kata-node-agent.toml(5), each into its section's folder below FOLDER,
so that `man -M FOLDER` finds them. They depend on the sources and on SOURCE_DATE_EPOCH only
(reproducible-builds.org), and so may be made anew anywhere.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kata_node_agent import __version__
from kata_node_agent.api.server import SOCKET_NAME
from kata_node_agent.cli.group import COMMANDS, cli
from kata_node_agent.config.load import env_name, settings
from kata_node_agent.config.schema import Config
from kata_node_agent.sockets import GROUP
from tools import roff

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "kata-node-agent"
CONFIG_PAGE = f"{PROGRAM}.toml"
_CONFIG_FILE = f"/etc/{PROGRAM}/config.toml"


def pages(date: str) -> Iterator[tuple[str, str]]:
    """Each page's file name and text.

    Args:
        date: to stand in them, such as 2026-01-31.
    """
    yield f"{PROGRAM}.1", _text(_main_page(date))
    for name in COMMANDS:
        context = _root()
        command = cli.get_command(context, name)
        assert command is not None  # noqa: S101 - it stands in the list
        yield f"{PROGRAM}-{name}.1", _text(_command_page(name, command, context, date))
    yield f"{CONFIG_PAGE}.5", _text(_config_page(date))


def _root() -> click.Context:
    return click.Context(cli, info_name=PROGRAM, **cli.context_settings)


def _text(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _head(name: str, number: int, summary: str, date: str) -> Iterator[str]:
    manual = "Kata node agent" if number == 1 else "Configuration of the Kata node agent"
    yield roff.title(name, number, date, f"{PROGRAM} {__version__}", manual)
    yield from roff.section("NAME", [f"{roff.escape(name)} \\- {roff.escape(summary.rstrip('.'))}"])


def _main_page(date: str) -> Iterator[str]:
    yield from _head(PROGRAM, 1, _summary(cli), date)
    synopsis = f"{roff.bold(PROGRAM)} [{roff.italic('OPTION')}] {roff.italic('COMMAND')} [{roff.italic('ARGUMENT')} ...]"
    yield from roff.section("SYNOPSIS", [synopsis])
    paragraphs, _, _ = roff.split_help(cli.help or "")
    yield from roff.section("DESCRIPTION", [line for part in paragraphs for line in roff.paragraph(part)])
    items = (roff.tagged(_reference(f"{PROGRAM}-{name}", 1), line) for name, (_, line) in COMMANDS.items())
    yield from roff.section("COMMANDS", [line for item in items for line in item])
    yield from _options(cli, _root())
    yield from roff.section("ENVIRONMENT", _environment())
    yield from roff.section("FILES", _files())
    yield from roff.section(
        "EXIT STATUS",
        [
            *roff.tagged("0", "All is well; check and status: and nothing is wrong."),
            *roff.tagged("1", "The answer is no: each command's page says to which question."),
            *roff.tagged("2", "Bad usage, or an error; what happened and what to do is on standard error."),
        ],
    )
    yield from _see_also((CONFIG_PAGE, 5), ("systemctl", 1), ("journalctl", 1))


def _command_page(name: str, command: click.Command, parent: click.Context, date: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    summary = COMMANDS[name][1]
    yield from _head(f"{PROGRAM}-{name}", 1, summary[0].lower() + summary[1:], date)
    yield from roff.section("SYNOPSIS", _synopsis(command, context))
    paragraphs, examples, codes = roff.split_help(command.help or "")
    yield from roff.section("DESCRIPTION", [line for part in paragraphs for line in roff.paragraph(part)])
    yield from _options(command, context)
    if isinstance(command, click.Group):
        yield from roff.section("COMMANDS", _subcommands(command, context))
    items = [line for code, meaning in codes for line in roff.tagged(roff.escape(code), meaning)]
    yield from roff.section("EXIT STATUS", items)
    yield from roff.section("EXAMPLES", [line for block in examples for line in roff.literal(block)])
    yield from _see_also((PROGRAM, 1), (CONFIG_PAGE, 5))


def _subcommands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # noqa: S101 - it stands in the list
        inner = click.Context(command, info_name=name, parent=context)
        yield f'.SS "{roff.escape(name)}"'
        yield from _synopsis(command, inner)
        paragraphs, examples, codes = roff.split_help(command.help or "")
        for part in paragraphs:
            yield from roff.paragraph(part)
        yield from _option_items(command, inner)
        for code, meaning in codes:
            yield from roff.tagged(f"Exit status {roff.escape(code)}", meaning)
        for block in examples:
            yield from roff.literal(block)


def _summary(command: click.Command) -> str:
    return (command.help or "").strip().partition("\n")[0]


def _synopsis(command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = (roff.escape(piece) for piece in command.collect_usage_pieces(context))
    yield " ".join((roff.bold(context.command_path), *pieces))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from roff.section("OPTIONS", _option_items(command, context))


def _option_items(command: click.Command, context: click.Context) -> Iterator[str]:
    help_option = None if context.parent is None else command.get_help_option(context)
    for parameter in command.get_params(context):
        if parameter is help_option:
            # The main page tells of it.
            continue
        record = parameter.get_help_record(context)
        if record is None:
            continue
        declaration, text = record
        names, _, value = declaration.partition(" ") if ", " not in declaration else (declaration, "", "")
        tag = ", ".join(roff.bold(name) for name in names.split(", "))
        yield from roff.tagged(f"{tag} {roff.italic(value)}" if value else tag, text)


def _environment() -> Iterator[str]:
    yield from roff.tagged(
        roff.bold("KATA_NODE_AGENT_CONFIG"), "Configuration file, where --config is not given."
    )
    yield from roff.tagged(
        roff.bold("KATA_NODE_AGENT_") + roff.italic("SETTING"),
        f"A setting; {CONFIG_PAGE}(5) names the variable of each.",
    )


def _files() -> Iterator[str]:
    config = Config()
    for path, text in (
        (_CONFIG_FILE, f"Configuration, see {CONFIG_PAGE}(5); then {_CONFIG_FILE}.d/*.toml in name order."),
        (
            str(config.run_dir / SOCKET_NAME),
            f"The running agent's API and health, for root and the group {GROUP}.",
        ),
        (str(config.run_dir), "Also lock and ledger: kept when the agent ends, and gone with the boot."),
        (str(config.state_dir), "The history that advice is made of."),
        (str(config.device_plugin.directory), "Kubelet's folder, where the agent's device plugin listens."),
        (str(config.nfd.features_dir), "Where Node Feature Discovery reads what the agent found."),
    ):
        yield from roff.tagged(roff.italic(path), text)


def _config_page(date: str) -> Iterator[str]:
    yield from _head(CONFIG_PAGE, 5, "configuration of the Kata node agent", date)
    paths = [_CONFIG_FILE, f"{_CONFIG_FILE}.d/*.toml"]
    yield from roff.section("SYNOPSIS", [line for path in paths for line in (roff.italic(path), ".br")][:-1])
    yield from roff.section("DESCRIPTION", _config_description())
    sections: dict[str, list[str]] = {}
    for key, field in settings():
        head, _, name = key.rpartition(".")
        meta = field.metadata
        default = json.dumps(meta["default"], ensure_ascii=False)
        text = meta["doc"] + ("" if meta["live"] else " (takes effect at a restart only)")
        tag = f"{roff.bold(name)} = {roff.italic(default)}"
        item = [*roff.tagged(tag, text), ".br", f"Environment: {roff.escape(env_name(key))}"]
        sections.setdefault(head, []).extend(item)
    for head, lines in sections.items():
        yield from roff.section(f"[{head}]" if head else "TOP LEVEL", lines)
    yield from _see_also((PROGRAM, 1), (f"{PROGRAM}-config", 1))


def _config_description() -> Iterator[str]:
    yield from roff.paragraph(
        "The agent's settings, in TOML. Later sources win: defaults, the file, the files of the folder in name order, the "
        "environment, flags. A key that does not exist is an error that names the nearest one that does."
    )
    yield from roff.paragraph(
        "Values below are the defaults. Amounts of memory are written as in Kubernetes, with their unit: 350Mi, 2Gi."
    )
    yield from roff.literal(
        f"{PROGRAM} config check     # would the agent start with this?\n"
        f"{PROGRAM} config show      # each value, and where it comes from\n"
        f"systemctl reload {PROGRAM}"
    )
    yield from roff.paragraph(
        "A reload with a configuration that cannot be used leaves the present one in force."
    )


def _reference(name: str, number: int) -> str:
    return f"{roff.bold(name)}({number})"


def _see_also(*pages_: tuple[str, int]) -> Iterator[str]:
    yield from roff.section("SEE ALSO", [",\n".join(_reference(name, number) for name, number in pages_)])


def main() -> None:
    """Writes the pages into the folder that is named."""
    folder = Path(sys.argv[1])
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    for name, text in pages(date):
        section = folder / f"man{name.rpartition('.')[2]}"
        section.mkdir(parents=True, exist_ok=True)
        (section / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
