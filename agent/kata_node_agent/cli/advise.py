"""`kata-node-agent advise`: what to set, from what was observed on this node."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import print_text
from kata_node_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kata_node_agent.config.schema import Config
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.series import Observed

SCHEMA = "kata-node-agent/advise/v1"
_NO_HANDLER = "no handler of the container runtime starts Kata here"


@click.command("advise", short_help="What to set, from what was observed: podFixed, systemReserved.")
@options.config_file
@options.host_root
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="text for people, json for scripts, yaml: only what is to be applied.",
)
@options.setting_flags("--state-dir")
def command(config_file: Path | None, host_root: Path, output_format: str, **flags: Any) -> None:
    """What to set, from what was observed on this node.

    For each handler of Kata: overhead.podFixed of its RuntimeClass, what the present value costs in risk or waste, and the
    YAML to apply. For the node: systemReserved. Histories are what the agent wrote into its state folder; without them
    the advice is made of the settings and says so.

    \b
    Examples:
      kata-node-agent advise
      kata-node-agent advise --format yaml > runtimeclasses.yaml
      kata-node-agent advise --format json | jq '.handlers[] | {handler, reason, need_bytes}'

    \b
    Exit codes: 0 advised; 2 the node cannot be read, or bad usage.
    """
    from kata_node_agent.config.load import load
    from kata_node_agent.host.root import HostRoot

    config = load(config_file, flags=options.given_settings(flags)).config
    document = advise_document(HostRoot(options.host_root_or(host_root, config.host_root)), config)
    if output_format == "json":
        print_text(json.dumps(document))
    elif output_format == "yaml":
        print_text(as_yaml(document))
    else:
        print_text(as_text(document))


def advise_document(root: HostRoot, config: Config) -> dict[str, Any]:
    """All advice about the node.

    Raises:
        AgentError: the node cannot be read.
    """
    from kata_node_agent.advice.pod_overhead import advise_overhead
    from kata_node_agent.capacity.usual import usual_overhead_bytes
    from kata_node_agent.host.facts import is_live
    from kata_node_agent.host.osrelease import read_os_release
    from kata_node_agent.report.collect import collect_report
    from kata_node_agent.report.overhead import handler_uses, read_histories
    from kata_node_agent.report.sandboxes import SandboxObserver

    overview = SandboxObserver(root, config).look()
    problems = list(overview.problems)
    histories: dict[str, tuple[Observed, ...]] = {}
    try:
        # The history is this machine's: a recorded tree has none.
        if is_live(root):
            histories = read_histories(config.state_dir, (h.handler for h in overview.handlers), time.time())
    except AgentError as error:
        problems.append(str(error))
    release = read_os_release(root)
    openshift = release is not None and release.family == "rhcos"
    assumed = usual_overhead_bytes(config.sandbox.host_overhead, {})
    uses = handler_uses(overview, histories, assumed, openshift=openshift)
    report = collect_report(root, config)
    return {
        "schema": SCHEMA,
        "handlers": [_fields(advise_overhead(use)) for use in uses],
        "node": [_fields(advice) for advice in report.advice],
        "problems": list(dict.fromkeys((*problems, *report.problems))),
    }


def as_yaml(document: Mapping[str, Any]) -> str:
    """Only what is to be applied, as documents of one stream."""
    settings = [each["setting"] for each in (*document["handlers"], *document["node"]) if each["setting"]]
    if settings:
        return "\n---\n".join(settings)
    return "# nothing to change" if document["handlers"] else f"# {_NO_HANDLER}"


def as_text(document: Mapping[str, Any]) -> str:
    """For people: what to do, why, and the lines to write."""
    from kata_node_agent.cli.sandbox_text import problem_lines

    parts = [list(problem_lines(document["problems"]))]
    parts += [list(_advice(each)) for each in (*document["handlers"], *document["node"])]
    if not document["handlers"]:
        from kata_node_agent.cli.sandbox_text import wrapped
        from kata_node_agent.host.kata import CONTAINERD, CRIO

        looked = f"looked for in {', '.join((*CRIO, *CONTAINERD))}"
        steps = (
            "install Kata (on OpenShift a KataConfig, else kata-deploy), and ask again; `kata-node-agent check` says whether "
            "this node can run its VMs. If it is installed, see that those files are the node's: --host-root DIR names where "
            "its root is mounted"
        )
        parts.insert(1, [*wrapped(f"{_NO_HANDLER}: ", looked), *wrapped("  next: ", steps)])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _advice(advice: Mapping[str, Any]) -> Iterator[str]:
    from kata_node_agent.cli.sandbox_text import wrapped

    colour = {"RaisePodFixed": "red", "ReserveMore": "red", "NothingReserved": "red"}.get(advice["reason"])
    yield from wrapped(click.style(advice["reason"], bold=True, fg=colour) + ": ", advice["message"])
    if advice["why"]:
        yield from wrapped("  why: ", advice["why"])
    yield from (f"    {line}" for line in advice["setting"].splitlines())


def _fields(advice: Any) -> dict[str, Any]:
    return {name: getattr(advice, name) for name in advice.__dataclass_fields__}
