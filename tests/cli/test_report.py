import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kata_node_agent.cli.group import cli

TREES = Path(__file__).parents[1] / "trees-cgroups"


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["report", *map(str, arguments)])
    return done.exit_code, done.output


def test_text_tells_allocatable_usage_and_what_it_means() -> None:
    code, text = run("--host-root", TREES / "v2")
    assert code == 0
    assert "= allocatable to pods          28.8Gi" in text
    assert "27 % of 28.8Gi" in text
    assert "KataOutsidePods: 236Mi" in text
    assert "█" not in text


def test_settings_are_listed_with_their_origins() -> None:
    text = run("--host-root", TREES / "v2", "--settings")[1]
    assert "systemReserved.memory = 3Gi  [flag --system-reserved of kubelet (pid 4242)]" in text


def test_json_and_summary_are_one_document_each() -> None:
    document = json.loads(run("--host-root", TREES / "v1", "--format", "json")[1])
    assert document["usage"]["hierarchy"] == "v1"
    summary = json.loads(run("--host-root", TREES / "v1", "--format", "summary")[1])
    assert [container["name"] for container in summary["node"]["systemContainers"]] == ["misc", "pods"]


def test_a_node_without_memory_groups_says_so() -> None:
    code, text = run("--host-root", TREES / "none")
    assert code == 0
    assert "no memory cgroup is mounted" in text


@pytest.mark.host
def test_a_node_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kata_node_agent", "report", "--host-root", tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "meminfo" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.host
def test_watching_goes_on_until_it_is_interrupted() -> None:
    # Whoever runs the tests in the background may ignore the signal, and children inherit that.
    command = [
        *("env", "--default-signal=INT"),
        sys.executable,
        "-m",
        "kata_node_agent",
        "report",
        "--watch",
        "--interval",
        "0.2",
        "--format",
        "json",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as watch:
        assert watch.stdout is not None
        lines = [json.loads(watch.stdout.readline()) for _ in range(3)]
        watch.send_signal(signal.SIGINT)
        try:
            _, errors = watch.communicate(timeout=10)
        finally:
            watch.kill()
        assert (watch.returncode, errors) == (0, b"")
    times = [line["unix_seconds"] for line in lines]
    assert times == sorted(set(times))
