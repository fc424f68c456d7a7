"""What is wrong with a command line, in the words that all errors here have: usage, message, remedy, reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


def explain(error: click.ClickException) -> None:
    """Says it on standard error."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # Nothing was asked: the help is the answer. Before click 8.2 there is no such error.
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        click.echo(context.get_usage(), err=True)
    message, hint = _words(error, context)
    click.echo(f"kata-node-agent: {message}", err=True)
    if hint:
        click.echo(f"  remedy: {hint}", err=True)
    click.echo(f"  reason: {'BadUsage' if isinstance(error, click.UsageError) else 'Error'}", err=True)


def _words(error: click.ClickException, context: click.Context | None) -> tuple[str, str]:
    """Message and remedy."""
    message = error.format_message()
    path = context.command_path if context is not None else "kata-node-agent"
    see = f"`{path} --help` explains"
    if isinstance(error, click.NoSuchOption):
        # Without the library's own suggestions, which say the same otherwise.
        near = nearest(error.option_name, _options(context))
        return f"no such option: {error.option_name}", f"did you mean {near}?" if near else see
    if isinstance(error, click.BadParameter) and error.param is not None:
        choices = getattr(error.param.type, "choices", ())
        given = message.partition("'")[2].partition(" is not one of")[0].rpartition("'")[0].rpartition("'")[2]
        near = nearest(given, choices) if choices else None
        return message, f"did you mean {near}?" if near else see
    if (
        context is not None
        and isinstance(context.command, click.Group)
        and message.startswith("No such command")
    ):
        given = message.partition("'")[2].partition("'")[0]
        near = nearest(given, context.command.list_commands(context))
        return f"no such command: {given}", f"did you mean {near}?" if near else see
    return message, see if context is not None else ""


def _options(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    return [name for parameter in context.command.get_params(context) for name in parameter.opts]


def nearest(given: str, names: Sequence[str]) -> str | None:
    """The name that was meant, if one is near."""
    import difflib

    return next(iter(difflib.get_close_matches(given, names, n=1, cutoff=0.5)), None)
