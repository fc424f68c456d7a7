"""``check``: can this node run Kata VMs, and why (not)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypedDict

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_text, write_output
from kata_node_agent.errors import AgentError, HostError, describe_os_error

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.config.schema import EligibilityConfig, KubeletConfig
    from kata_node_agent.host.facts import NodeFacts


class Policy(TypedDict):
    """Arguments of `evaluate`."""

    profile: str | None
    require: tuple[str, ...]
    waive: tuple[str, ...]


EXIT_CODES = {"eligible": 0, "ineligible": 1, "unknown": 2}


def _complete_check(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    from kata_node_agent.eligibility.pages import all_pages

    return sorted(name for name in all_pages() if name.startswith(begun))


@click.command("check", short_help="Prove whether this node can run Kata VMs, and say why.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "npd"]),
    default="text",
    show_default=True,
    help="text for people, json for scripts, npd for node-problem-detector.",
)
@options.config_file
@click.option(
    "--profile",
    metavar="NAME",
    shell_complete=options.complete("openshift", "upstream", "auto"),
    help="openshift or upstream. [default: openshift on RHCOS, else upstream]",
)
@options.host_root
@click.option("--snapshot", metavar="FILE", help="Judge a recorded node instead; - is standard input.")
@click.option("--record", metavar="FILE", help="Also write the snapshot of exactly what was judged.")
@click.option(
    "--require",
    multiple=True,
    metavar="ID",
    shell_complete=_complete_check,
    help="Let this check decide as well; repeatable.",
)
@click.option(
    "--waive",
    multiple=True,
    metavar="ID",
    shell_complete=_complete_check,
    help="Do not let this check decide; repeatable.",
)
@click.option(
    "--explain",
    metavar="ID",
    shell_complete=_complete_check,
    help="Print a check's page: what it asks, its reasons, their remedies. An ID is what check lists, such as cpu.firmware.",
)
@click.pass_context
def command(
    ctx: click.Context,
    output_format: str,
    config_file: Path | None,
    profile: str | None,
    host_root: Path,
    snapshot: str | None,
    record: str | None,
    require: tuple[str, ...],
    waive: tuple[str, ...],
    explain: str | None,
) -> int:
    """Prove whether this node can run Kata VMs, and say why.

    Runs a tiny guest on /dev/kvm and looks at processor, kernel and system. Changes nothing, loads
    nothing, starts no other program. Without root it tells what it can. Judges as the agent does: by
    [eligibility] of the configuration, which the options here overrule.

    \b
    Examples:
      kata-node-agent check
      kata-node-agent check --profile openshift --format json
      kata-node-agent check --explain cpu.firmware
      kata-node-agent check --snapshot node.json
      kata-node-agent check --host-root /host --waive cpu.bare-metal

    \b
    Exit codes:
      0  eligible
      1  not eligible
      2  could not tell, bad usage, or an internal error
    """
    try:
        if explain is not None:
            print_text(_explain(explain))
            return 0
        if snapshot is not None:
            _refuse_host_root(ctx)
        from kata_node_agent.config.load import load

        config = load(config_file).config
        chosen = policy(config.eligibility, profile, require, waive)
        return _check(output_format, chosen, config.kubelet, host_root, snapshot, record)
    except (AgentError, click.ClickException, click.Abort, BrokenPipeError):
        raise
    except Exception:  # noqa: BLE001 - else a fault of ours would be exit code 1: "not eligible"
        import traceback

        traceback.print_exc()
        return 2


def _refuse_host_root(ctx: click.Context) -> None:
    """The environment may name a root all the same: then it is for other commands."""
    if ctx.get_parameter_source("host_root") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--snapshot and --host-root exclude each other: a snapshot has no root.")


def policy(
    ours: EligibilityConfig,
    profile: str | None = None,
    require: tuple[str, ...] = (),
    waive: tuple[str, ...] = (),
) -> Policy:
    """What decides, from the configuration and the options. A name that does not exist is refused here."""
    from kata_node_agent.eligibility import check_policy

    chosen = profile or ours.profile
    result: Policy = {
        "profile": None if chosen == "auto" else chosen,
        # An option takes back what the configuration says of the same check.
        "require": (*(name for name in ours.require if name not in waive), *require),
        "waive": (*(name for name in ours.waive if name not in require), *waive),
    }
    check_policy(**result)
    return result


def collect_facts(host_root: Path, kubelet: KubeletConfig) -> NodeFacts:
    """The facts, with the allocatable memory that the agent reckons with."""
    from dataclasses import replace

    from kata_node_agent.host.facts import collect
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.memory import read_budget

    root = HostRoot(host_root)
    try:
        allocatable = read_budget(root, kubelet)[0].allocatable_bytes
    except AgentError:
        allocatable = None
    return replace(collect(root), allocatable_bytes=allocatable)


def _check(
    output_format: str,
    policy: Policy,
    kubelet: KubeletConfig,
    host_root: Path,
    snapshot: str | None,
    record: str | None,
) -> int:
    from kata_node_agent.eligibility import evaluate

    if snapshot is not None:
        from kata_node_agent.host.snapshot import read_snapshot

        facts = read_snapshot(_read(snapshot))
    else:
        facts = collect_facts(host_root, kubelet)
    if record is not None:
        from kata_node_agent.host.snapshot import write_snapshot

        write_output(record, write_snapshot(facts))
    verdict = evaluate(facts, **policy)
    if output_format == "json":
        import json

        print_text(json.dumps(verdict.to_json()))
    else:
        from kata_node_agent.cli.verdict_text import as_npd, as_text

        print_text(as_npd(verdict) if output_format == "npd" else as_text(verdict))
    return EXIT_CODES[verdict.verdict]


def _explain(name: str) -> str:
    from kata_node_agent.eligibility.page import Page
    from kata_node_agent.eligibility.pages import COMMON, all_pages, render
    from kata_node_agent.eligibility.profiles import check_id, describe_requirement

    page = all_pages()[check_id(name)]
    whole = Page(page.id, page.question, page.how, (*page.reasons, *COMMON))
    return render(whole, describe_requirement(page.id))


def _read(name: str) -> bytes:
    """The snapshot's bytes; one more than allowed at most, so that the reader sees if it is too large."""
    from kata_node_agent.host.snapshot import MAX_BYTES

    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        what = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise HostError(f"{name}: {what}", hint="name a file written by: kata-node-agent snapshot") from None
