"""The command as a process: its help, its mistakes, its exit codes."""

import os
import subprocess
import sys

import pytest

from kata_node_agent.cli.group import COMMANDS

pytestmark = pytest.mark.host


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kata_node_agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["run", "--nonsense"], ["run", "--mode"], ["status", "extra"], ["check", "--format", "x"]],
)
def test_bad_usage_is_exit_2_without_a_traceback(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_a_users_mistake_is_a_line_a_remedy_and_a_reason() -> None:
    done = run("run", "--config", "/nonexistent/c.toml")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "kata-node-agent: /nonexistent/c.toml: No such file or directory (ENOENT)"
    assert lines[1].startswith("  remedy: ")
    assert lines[2] == "  reason: InvalidConfiguration"
    assert len(lines) == 3


def test_a_reader_that_goes_away_is_no_verdict() -> None:
    # 1 would mean "not eligible".
    script = f"{sys.executable} -m kata_node_agent check | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() in {"0", "2"}
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["/etc/passwd", "/nonexistent"])
def test_status_of_a_place_that_is_none_is_one_error(where: str) -> None:
    done = run("status", "--run-dir", where)
    assert done.returncode == 2
    assert "no agent is running here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["check", "report", "report --format json", "report --watch --interval 0.2"]
)
def test_an_output_that_takes_nothing_is_one_error(command: str) -> None:
    script = f"{sys.executable} -m kata_node_agent {command} > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_for_a_terminal_that_wants_no_colour_or_lacks_letters_is_still_one() -> None:
    script = f"{sys.executable} -m kata_node_agent report"
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1", "NO_COLOR": "1"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=30, env=environ)
    assert done.returncode == 0, done.stderr
    assert b"= allocatable to pods" in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        (["chek"], "no such command: chek", "did you mean check?"),
        (["config", "shwo"], "no such command: shwo", "did you mean show?"),
        (["check", "--profil", "x"], "no such option: --profil", "did you mean --profile?"),
        (["check", "--qqq"], "no such option: --qqq", "`kata-node-agent check --help` explains"),
        (["drain", "onn"], "'onn' is not one of 'on', 'off'", "did you mean on?"),
        (["check", "--format", "jsn"], "'jsn' is not one of", "did you mean json?"),
        (["status", "extra"], "unexpected extra argument", "`kata-node-agent status --help` explains"),
    ],
)
def test_bad_usage_says_what_was_meant(arguments: list[str], message: str, remedy: str) -> None:
    done = run(*arguments)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert lines[0].startswith("Usage: kata-node-agent")
    assert lines[1].startswith("kata-node-agent: ")
    assert message in lines[1]
    assert lines[2:] == [f"  remedy: {remedy}", "  reason: BadUsage"]


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_nothing_asked_is_answered_with_the_help_alone(arguments: list[str]) -> None:
    done = run(*arguments)
    said = done.stdout + done.stderr
    assert said.count("Usage:") == 1
    assert "Commands:" in said
    assert "reason:" not in said
