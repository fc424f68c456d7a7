"""The front door: finds the command, and turns errors into one clear line and an exit code.

The daemon is started from here without the library that parses command lines: it would stay in the memory of every node
(3.9 MiB) for a handful of flags. Whatever is not plain, `--help` and mistakes included, goes the ordinary way.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from kata_node_agent.cli.flags import plain_run_flags
from kata_node_agent.errors import AgentError


def main() -> NoReturn:
    """Entry point of the `kata-node-agent` command. Exit 2 is bad usage or an error of any kind; see `check --help`."""
    try:
        if sys.argv[1:2] == ["run"] and (flags := plain_run_flags(sys.argv[2:])) is not None:
            from kata_node_agent.daemon.start import start

            start(*flags)
            code = 0
        else:
            code = _run_group()
    except AgentError as error:
        _say(f"kata-node-agent: {error.message}")
        if error.hint:
            _say(f"  remedy: {error.hint}")
        _say(f"  reason: {error.reason}")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run_group() -> int:
    import click

    from kata_node_agent.cli.group import cli

    try:
        # By its name, however it was started: the completion scripts ask for that.
        code = cli.main(prog_name="kata-node-agent", standalone_mode=False)
    except click.ClickException as error:
        from kata_node_agent.cli.usage import explain

        explain(error)
        return 2
    except click.Abort:
        return 130
    except SystemExit as end:
        # The library's way to end after completion (0), and when the reader of our output has gone (`| head`): its code is 1
        # then, which has a meaning here.
        return 0 if end.code == 0 else 2
    return code if isinstance(code, int) else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)
