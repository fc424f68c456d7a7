import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need
from tools import completion

# What a shell does when somebody types this and presses the tab key.
ASK = {
    "bash": """
        source {script}
        COMP_WORDS=(kata-node-agent {before} {word}); COMP_CWORD={position}
        $(complete -p kata-node-agent | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p') kata-node-agent {word}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """,
    "fish": "source {script}; complete --do-complete 'kata-node-agent {before} {word}'",
    "zsh": """
        compdef() {{ :; }}
        compadd() {{ local list; while [[ $# -gt 0 ]]; do [[ $1 = -a ]] && list=$2; shift; done; print -l -- "${{(@P)list}}"; }}
        _describe() {{ local list=$3; [[ -z $list ]] && list=$2; print -l -- "${{(@P)list%%:*}}"; }}
        words=(kata-node-agent {before} {word}); CURRENT=$((1 + {position}))
        source {script}; _kata_node_agent_completion
    """,
}


@pytest.mark.host
@pytest.mark.parametrize("shell", list(completion.NAMES))
@pytest.mark.parametrize(
    ("before", "word", "found"),
    [
        ("", "sna", "snapshot"),
        ("ledger", "ver", "verify"),
        ("check", "--exp", "--explain"),
        ("check --explain", "cpu.f", "cpu.firmware"),
        ("check --profile", "open", "openshift"),
        ("run --mode", "w", "warn"),
        ("run --log-level", "deb", "debug"),
    ],
)
def test_the_shell_completes(tmp_path: Path, shell: str, before: str, word: str, found: str) -> None:
    need(shell)
    text = next(text for name, _, text in completion.scripts() if name == shell)
    script = tmp_path / "completion"
    script.write_text(text)
    # The command as it is installed: completion asks it by its name.
    command = tmp_path / "kata-node-agent"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m kata_node_agent "$@"\n')
    command.chmod(0o755)
    ask = ASK[shell].format(script=script, before=before, word=word, position=1 + len(before.split()))
    done = subprocess.run(
        [shell, "-c", ask],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
    )
    assert found in done.stdout.split(), (done.stdout, done.stderr)


@pytest.mark.host  # click asks bash for its version
def test_each_shell_has_a_script_under_the_name_that_its_folder_wants() -> None:
    names = {shell: name for shell, name, _ in completion.scripts()}
    assert names == {"bash": "kata-node-agent", "zsh": "_kata-node-agent", "fish": "kata-node-agent.fish"}


@pytest.mark.host
def test_completion_is_a_success() -> None:
    environ = {
        **os.environ,
        "_KATA_NODE_AGENT_COMPLETE": "bash_complete",
        "COMP_WORDS": "kata-node-agent ch",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-m", "kata_node_agent"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert (done.returncode, done.stdout) == (0, "plain,check\n")
