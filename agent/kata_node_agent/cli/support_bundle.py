"""`kata-node-agent support-bundle`: all that somebody needs who helps from afar, as one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kata_node_agent import __version__
from kata_node_agent.cli import options
from kata_node_agent.errors import AgentError, ConfigError, HostError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.load import Loaded
    from kata_node_agent.host.facts import NodeFacts

SCHEMA = "kata-node-agent/support-bundle/v1"
_UNIT = "kata-node-agent.service"
_WRITTEN = "a file of the configuration as it is written, without comments and what looks like a secret"
_LOG_LINES = 5000
_LOG_BYTES = 4 << 20
_TIMEOUT_SECONDS = 10.0


class _Source:
    """Where the parts come from."""

    def __init__(self, host_root: Path, loaded: Loaded) -> None:
        self.host_root = host_root
        self.loaded = loaded
        self.run_dir = loaded.config.run_dir

    @cached_property
    def facts(self) -> NodeFacts:
        """Read once: the verdict is to be that of the snapshot beside it."""
        from kata_node_agent.cli.check import collect_facts

        return collect_facts(self.host_root, self.loaded.config.kubelet)


@click.command("support-bundle", short_help="Gather what a helper needs in one file, without secrets.")
@click.option(
    "--output",
    metavar="FILE",
    help="Where to write, a .tar.gz; - is standard output. [default: kata-node-agent-TIME.tar.gz here]",
)
@options.config_file
@options.host_root
@options.setting_flags("--run-dir", "--state-dir")
def command(output: str | None, config_file: Path | None, host_root: Path, **flags: Any) -> None:
    """Gather what somebody needs who helps from afar, in one file: facts, verdict, configuration with origins, report, VMs,
    the running agent's status, ledger and last decisions, and its log.

    It holds names of pods, ids of sandboxes and paths; no secrets, no environment, no command lines, no host name. What
    cannot be had is named in about.json and on standard error, and the rest is written all the same: it works while
    the agent does not run, and as an ordinary user.

    \b
    Examples:
      kata-node-agent support-bundle
      tar -xzf kata-node-agent-*.tar.gz
      kata-node-agent support-bundle --output - | ssh desk 'cat > node.tar.gz'

    \b
    Exit codes: 0 written, with all there is; 1 written, and parts are missing; 2 not written, or bad usage.
    """  # noqa: D205 - the help's first paragraph
    from kata_node_agent.cli.archive import pack, write_new
    from kata_node_agent.cli.written import read_files
    from kata_node_agent.config.load import load, load_without_files

    given = options.given_settings(flags)
    problem: ConfigError | None = None
    try:
        loaded = load(config_file, flags=given)
    except ConfigError as error:
        # It may be the very reason why somebody asks for help.
        loaded, problem = load_without_files(given), error
    source = _Source(options.host_root_or(host_root, loaded.config.host_root), loaded)
    now = time.time()
    texts, missing = _gather(source)
    written, unread = read_files(config_file)
    missing |= unread
    if problem is not None:
        missing["configuration"] = f"{problem}; config.toml has the defaults, and the rest goes by them"
    about = {
        "schema": SCHEMA,
        "version": __version__,
        "unix_seconds": now,
        "uid": os.geteuid(),
        "parts": {name: _PARTS[name][0] for name in texts} | dict.fromkeys(written, _WRITTEN),
        "missing": missing,
    }
    folder = f"kata-node-agent-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}"
    content = pack({"about.json": _json(about), **texts, **written}, folder, now)
    target = output or f"{folder}.tar.gz"
    write_new(target, content)
    for name, why in missing.items():
        _say(f"  missing {name}: {why}")
    _say(f"wrote {'standard output' if target == '-' else target} ({len(content) // 1024 + 1} KiB)")
    click.get_current_context().exit(1 if missing else 0)


def _gather(source: _Source) -> tuple[dict[str, str], dict[str, str]]:
    """The texts by file name, and for each that cannot be had why."""
    texts: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, (what, make) in _PARTS.items():
        if sys.stderr.isatty():
            _say(f"  {what} …")
        try:
            texts[name] = make(source)
        except AgentError as error:
            missing[name] = str(error)
        except Exception as error:  # noqa: BLE001 - a part that is broken is what a helper has to hear of
            missing[name] = f"internal error: {type(error).__name__}: {error}"
    return texts, missing


def _snapshot(source: _Source) -> str:
    from kata_node_agent.host.snapshot import write_snapshot

    return write_snapshot(source.facts)


def _verdict(source: _Source) -> str:
    from kata_node_agent.cli.check import policy
    from kata_node_agent.eligibility import evaluate

    return _json(evaluate(source.facts, **policy(source.loaded.config.eligibility)).to_json())


def _config(source: _Source) -> str:
    from kata_node_agent.cli.config import as_toml

    return as_toml(source.loaded)


def _report(source: _Source) -> str:
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.collect import collect_report

    return _json(collect_report(HostRoot(source.host_root), source.loaded.config).to_json())


def _sandboxes(source: _Source) -> str:
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.sandboxes import SandboxObserver

    return _json(SandboxObserver(HostRoot(source.host_root), source.loaded.config).look().document())


def _status(source: _Source) -> str:
    from kata_node_agent.api.client import get_status
    from kata_node_agent.cli.status import as_json

    return _json(as_json(get_status(source.run_dir)))


def _ledger(source: _Source) -> str:
    from kata_node_agent.cli import ledger
    from kata_node_agent.pb import agent_pb2

    answer = ledger.ask_agent(source.run_dir, "ListAdmissions", agent_pb2.ListAdmissionsRequest())
    return _json(ledger.admissions_json(answer))


def _decisions(source: _Source) -> str:
    from kata_node_agent.cli import ledger
    from kata_node_agent.pb import agent_pb2

    answer = ledger.ask_agent(source.run_dir, "ListDecisions", agent_pb2.ListDecisionsRequest())
    return _json(ledger.decisions_json(answer))


def _verification(source: _Source) -> str:
    from kata_node_agent.cli import ledger
    from kata_node_agent.pb import agent_pb2

    answer = ledger.ask_agent(source.run_dir, "VerifyLedger", agent_pb2.VerifyLedgerRequest())
    return _json({"schema": ledger.SCHEMA, "problems": list(answer.problems)})


def _ledger_file(source: _Source) -> str:
    """The file as it lies there, for when no agent answers for it.

    Opened without a lock: an agent that starts just now must get its own.
    """
    import sqlite3
    from contextlib import closing

    from kata_node_agent.ledger.store import FILE_NAME

    path = source.run_dir / FILE_NAME
    try:
        if not path.stat().st_size:
            raise HostError(f"{path}: is empty")
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as connection:
            return "\n".join(connection.iterdump()) + "\n"
    except OSError as error:
        raise HostError(f"{path}: {describe_os_error(error)}") from None
    except sqlite3.Error as error:
        raise HostError(f"{path}: {error}") from None


def _log(source: _Source) -> str:
    """The end of the unit's journal of this boot. The agent keeps no log of its own: its words belong to the journal."""
    arguments = ["journalctl", "--unit", _UNIT, "--boot", "--lines", str(_LOG_LINES)]
    arguments += ["--no-hostname", "--no-pager", "--output", "short-iso-precise"]
    if source.host_root.resolve() != Path("/"):
        arguments += ["--root", str(source.host_root)]
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise HostError("there is no journalctl here", hint="run it on the host") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"journalctl: {error}") from None
    text = done.stdout[-_LOG_BYTES:].decode("utf-8", errors="replace")
    if done.returncode:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        raise HostError(f"journalctl: {said[0] if said else f'exit code {done.returncode}'}")
    if all(line.startswith("-- ") for line in text.splitlines()):
        raise HostError(
            f"the journal of this boot has no entry of {_UNIT}",
            hint="the agent is started in another way, or you may not read the journal: run as root, or add its output",
        )
    return text


# File in the archive → what it is, and who makes it.
_PARTS: dict[str, tuple[str, Callable[[_Source], str]]] = {
    "snapshot.json": ("facts of the node, for check --snapshot", _snapshot),
    "verdict.json": ("the verdict, as check has it", _verdict),
    "config.toml": ("the configuration, each value with its origin", _config),
    "report.json": ("what the node has and uses, as report has it", _report),
    "sandboxes.json": ("the VMs that run, as sandboxes has them", _sandboxes),
    "status.json": ("the running agent's status and history", _status),
    "ledger.json": ("who is promised what, as ledger list has it", _ledger),
    "decisions.json": ("the last decisions, as ledger history has them", _decisions),
    "ledger.sql": ("the ledger's file as it lies there", _ledger_file),
    "verification.json": ("the ledger's file against what it should hold", _verification),
    "log.txt": ("the end of the agent's log", _log),
}


def _json(document: object) -> str:
    return json.dumps(document, indent=1) + "\n"


def _say(line: str) -> None:
    click.echo(line, err=True)
