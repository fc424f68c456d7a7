"""`kata-node-agent label`: what Node Feature Discovery (NFD) reads of this node, shown, written and removed by hand."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.config.load import load
from kata_node_agent.errors import AgentError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.publish.nfd import FeatureFile, Outcome, ceiling, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kata_node_agent.config import Config
    from kata_node_agent.daemon.node import NodeView

LABEL_SCHEMA = "kata-node-agent/label/v1"
CEILING_SCHEMA = "kata-node-agent/ceiling/v1"

_STATES = {
    "no-folder": "not written: there is no such folder, NFD is not installed here",
    "absent": "not written yet",
    "current": "up to date",
    "differs": "says something else; `kata-node-agent label apply` would write:",
    "lapsed": "lapsed: nobody refreshed it, and NFD ignores it",
}


class _LabelGroup(click.Group):
    """`label --remove` is `label remove`: what many a hand types first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes the flag for the command."""
        return super().parse_args(ctx, ["remove", *args[1:]] if args[:1] == ["--remove"] else args)


def _common(*flags: str) -> Callable[[options.F], options.F]:
    """The options that all these commands share, and the flags of further settings."""

    def decorate(function: options.F) -> options.F:
        function = options.setting_flags("--host-root", *flags)(function)
        function = click.option(
            "--features-dir", "nfd__features_dir", metavar="DIR", help="Folder that NFD's worker reads."
        )(function)
        return options.config_file(options.output_format(function))

    return decorate


@click.group("label", cls=_LabelGroup, short_help="Show, write or remove what NFD reads of this node.")
def command() -> None:
    """Show, write or remove what Node Feature Discovery (NFD) reads of this node.

    The running agent keeps the features file by itself where NFD is installed. These commands are for looking, for
    a node without a running agent, and for the ceiling, which the agent never touches.
    """


@command.command("show")
@_common("--profile")
def show(config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Check this node and print what NFD is to read of it, and what it reads now. Writes nothing."""
    config = _config(config_file, flags)
    view = _look(config)
    verdict, features = view.verdict, text.read_body(view.features)
    file, number = _features_file(config), _ceiling_file(config)
    present = file.read()
    state = _state(file, present, view.features, time.time())
    body = text.compose(view.features, int(time.time()) + config.nfd.expiry_seconds)
    shown = present if state == "current" and present is not None else body
    if output_format == "json":
        document = {
            "schema": LABEL_SCHEMA,
            "verdict": verdict.verdict,
            "profile": verdict.profile,
            "features_file": {
                "path": str(file.path),
                "state": state,
                "expires_unix_seconds": text.expiry(present or ""),
                "text": shown,
                "features": [
                    {"name": feature.name, "value": feature.value, "label": feature.label}
                    for feature in features.features
                ],
                "left_out": list(features.left_out),
            },
            "ceiling_file": {"path": str(number.path), "ceiling": ceiling.read_ceiling(number.read())},
        }
        click.echo(json.dumps(document))
        return
    click.echo(f"{file.path}: {_STATES[state]}")
    click.echo("".join(f"  {line}\n" for line in shown.splitlines()))
    set_to = ceiling.read_ceiling(number.read())
    click.echo(f"{number.path}: " + ("no ceiling is set" if set_to is None else f"ceiling {set_to}"))


@command.command("apply")
@_common("--profile")
def apply(config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Check this node and write the features file once.

    It lapses after nfd.expiry_seconds unless a running agent keeps it fresh.
    """
    config = _config(config_file, flags)
    view = _look(config)
    verdict, features = view.verdict, text.read_body(view.features)
    file = _features_file(config)
    outcome = file.publish(view.features, lifetime_seconds=config.nfd.expiry_seconds)
    if outcome is Outcome.NO_FOLDER:
        raise file.no_folder()
    expires = text.expiry(file.read() or "")
    if output_format == "json":
        document = {
            "schema": LABEL_SCHEMA,
            "verdict": verdict.verdict,
            "profile": verdict.profile,
            "path": str(file.path),
            "outcome": outcome,
            "expires_unix_seconds": expires,
            "left_out": list(features.left_out),
        }
        click.echo(json.dumps(document))
        return
    word = "written" if outcome is Outcome.WRITTEN else "up to date already"
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
    click.echo(f"{file.path}: {word}; verdict {verdict.verdict}, profile {verdict.profile}")
    click.echo(f"Lapses at {moment}, unless the running agent refreshes it. NFD takes it within a minute.")
    for note in features.left_out:
        click.echo(f"left out: {note}")


@command.command("remove")
@_common()
def remove(config_file: Path | None, output_format: str, **flags: Any) -> None:
    """Delete the features file; NFD takes our labels off the node within a minute. The ceiling stays.

    A running agent writes the file again: set nfd.publish = false first, and reload it.

    With KataConfig's checkNodeEligibility, a node that loses its label leaves the Kata pool, and OpenShift
    reboots it.
    """
    config = _config(config_file, flags)
    file = _features_file(config)
    removed = file.remove()
    if output_format == "json":
        click.echo(json.dumps({"schema": LABEL_SCHEMA, "path": str(file.path), "removed": removed}))
        return
    if not removed:
        click.echo(f"{file.path}: there is no such file")
        return
    click.echo(f"{file.path}: removed; NFD takes its labels off the node within a minute")
    if config.nfd.publish:
        click.echo("A running agent writes it again: set nfd.publish = false and reload the agent.")


@command.command("ceiling")
@click.option(
    "--set", "number", type=click.IntRange(0, ceiling.MAX_CEILING), metavar="N", help="Set it to N."
)
@click.option("--from-node", is_flag=True, help="Set it to what fits: allocatable memory / cost of one VM.")
@click.option(
    "--remove", "remove_it", is_flag=True, help="Delete the file, and with it the extended resource."
)
@click.option("--force", is_flag=True, help="Do it even if kubelet may kill running pods for it.")
@_common()
def set_ceiling(
    config_file: Path | None,
    output_format: str,
    number: int | None,
    from_node: bool,
    remove_it: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Show or change the number behind the extended resource katacontainers.io/sandbox-overhead.

    It is the greatest number of Kata pods that the scheduler may ever place here, by RuntimeClass overhead.podFixed.
    Without an option: show it. Nothing but this command changes it.

    DANGER: when it falls below what running pods use, kubelet kills the surplus at its next restart. So lowering it
    below the running sandboxes is refused, and so is any lowering when these cannot be counted.

    \b
    Exit codes:
      0  shown or changed
      2  refused, or another error
    """
    if (number is not None) + from_node + remove_it > 1:
        raise click.UsageError("--set, --from-node and --remove exclude each other.")
    config = _config(config_file, flags)
    file = _ceiling_file(config)
    present, in_use = ceiling.read_ceiling(file.read()), _in_use(config)
    if number is None and not from_node and not remove_it:
        _show_ceiling(config, file, present, in_use, output_format)
        return
    wanted = None if remove_it else _of_node(config) if from_node else number
    warning = ceiling.danger(present, wanted, in_use)
    if not force:
        ceiling.check_change(present, wanted, in_use)
    changed = _change(file, wanted)
    if output_format == "json":
        document = {"schema": CEILING_SCHEMA, "path": str(file.path), "before": present, "ceiling": wanted}
        click.echo(json.dumps({**document, "in_use": in_use, "changed": changed, "danger": warning}))
        return
    what = "removed" if wanted is None else f"ceiling {wanted}"
    click.echo(f"{file.path}: {what}{'' if changed else ', as before'}")
    if warning:
        click.echo(f"Forced. DANGER: {warning}", err=True)


def _config(config_file: Path | None, flags: dict[str, Any]) -> Config:
    return load(config_file, flags=options.given_settings(flags)).config


def _features_file(config: Config) -> FeatureFile:
    return FeatureFile(HostRoot(config.host_root).resolve(config.nfd.features_dir) / text.FILE_NAME)


def _ceiling_file(config: Config) -> FeatureFile:
    return FeatureFile(HostRoot(config.host_root).resolve(config.nfd.features_dir) / ceiling.FILE_NAME)


def _look(config: Config) -> NodeView:
    """The look that the running agent takes too: what it publishes is what is shown here."""
    from kata_node_agent.daemon.node import look

    return look(config)


def _state(file: FeatureFile, present: str | None, body: str, now: float) -> str:
    """One of the keys of `_STATES`."""
    if present is None:
        return "absent" if file.folder_exists() else "no-folder"
    until = text.expiry(present)
    if until is None or present != text.compose(body, int(until)):
        return "differs"
    return "current" if until > now else "lapsed"


def _in_use(config: Config) -> int | None:
    from kata_node_agent.publish.nfd.in_use import count_sandboxes

    return count_sandboxes(HostRoot(config.host_root))


def _of_node(config: Config) -> int:
    """What the node's memory holds.

    Raises:
        AgentError: it cannot be read.
    """
    view = _look(config)
    if view.budget is None:
        why = next((problem for problem in view.problems if problem.reason == "MemoryUnreadable"), None)
        raise AgentError(
            why.message if why else "the node's memory could not be read",
            hint="give the number with --set",
            reason="MemoryUnreadable",
        )
    if unsure := next((p for p in view.problems if p.reason == "KubeletConfigurationInvalid"), None):
        # A ceiling that is too high stays: lowering it later is what kills pods.
        hint = "mend the file, or give the number with --set"
        raise AgentError(
            f"kubelet's settings are not known: {unsure.message}", hint=hint, reason=unsure.reason
        )
    return ceiling.node_ceiling(
        view.budget.allocatable_bytes, _cost_of_one(config, view.budget.capacity_bytes)
    )


def _cost_of_one(config: Config, capacity_bytes: int) -> int:
    """A VM of the usual size. What was observed beside it is left out: the ceiling shall be the same whenever it is set."""
    from kata_node_agent.capacity.usual import usual_overhead_bytes, usual_vm_bytes
    from kata_node_agent.host.facts import is_live
    from kata_node_agent.nodeconfig.kata import read_kata_settings
    from kata_node_agent.nodeconfig.vm_settings import settings_by_handler

    root = HostRoot(config.host_root)
    handlers = settings_by_handler(root, read_kata_settings(root), capacity_bytes, live=is_live(root))
    vm_bytes = usual_vm_bytes(config.sandbox.vm_memory, handlers)
    return vm_bytes + usual_overhead_bytes(config.sandbox.host_overhead, {})


def _change(file: FeatureFile, wanted: int | None) -> bool:
    if wanted is None:
        return file.remove()
    outcome = file.write(ceiling.ceiling_text(wanted))
    if outcome is Outcome.NO_FOLDER:
        raise file.no_folder()
    return outcome is Outcome.WRITTEN


def _show_ceiling(
    config: Config, file: FeatureFile, present: int | None, in_use: int | None, output_format: str
) -> None:
    try:
        of_node = _of_node(config)
    except AgentError:
        of_node = None
    if output_format == "json":
        document = {"schema": CEILING_SCHEMA, "path": str(file.path), "ceiling": present}
        click.echo(json.dumps({**document, "from_node": of_node, "in_use": in_use}))
        return
    click.echo(f"ceiling    {'not set' if present is None else present}; {file.path}")
    click.echo(
        "from node  "
        + (
            "the node's memory could not be read"
            if of_node is None
            else f"{of_node} (allocatable memory / cost of one VM)"
        )
    )
    unknown = "not known: the node's processes cannot be seen from here"
    click.echo(f"in use     {unknown if in_use is None else f'{in_use} Kata sandboxes run'}")
