from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kata_node_agent.cli import check as check_module
from kata_node_agent.cli.check import policy
from kata_node_agent.cli.group import cli
from kata_node_agent.config import load
from kata_node_agent.errors import AgentError, ConfigError
from kata_node_agent.host.snapshot import write_snapshot
from tests.eligibility.cases import cpu, good_node

TREES = Path(__file__).parents[1] / "trees"


def run(*arguments: str, data: bytes | None = None, **environment: str) -> Result:
    return CliRunner().invoke(
        cli, ["check", *arguments], input=data, env=environment, standalone_mode=False, catch_exceptions=True
    )


def code(*arguments: str, data: bytes | None = None) -> Any:
    return run(*arguments, data=data).return_value


def snapshot_of(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "node.json"
    path.write_text(write_snapshot(good_node(**changes)))
    return str(path)


def test_exit_codes(tmp_path: Path) -> None:
    assert code("--snapshot", snapshot_of(tmp_path)) == 0
    assert code("--snapshot", snapshot_of(tmp_path, cpus=(cpu(ecx=0),))) == 1
    assert code("--snapshot", snapshot_of(tmp_path, kvm=None)) == 2


def test_the_first_line_counts_the_warnings(tmp_path: Path) -> None:
    path = snapshot_of(tmp_path, sysctls={"vm.overcommit_memory": 2, "vm.panic_on_oom": 1})
    document = json.loads(run("--snapshot", path, "--format", "json").output)
    warnings = [check["id"] for check in document["checks"] if check["status"] == "warn"]
    assert len(warnings) > 1
    first = run("--snapshot", path).output.splitlines()[0]
    assert first.endswith(f"by profile openshift; {len(warnings)} warnings")


def test_text_says_first_what_stands_in_the_way(tmp_path: Path) -> None:
    text = run("--snapshot", snapshot_of(tmp_path, cpus=(cpu(ecx=0),))).output
    lines = text.split("\n")
    assert lines[0] == "not eligible: Kata VMs on this node, by profile openshift"
    assert lines[2] == "Fails, and is required:"
    assert "remedy: " in text
    assert text.index("cpu.virtualization") < text.index("Holds:")
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    name = snapshot_of(tmp_path)
    runner = CliRunner()
    assert (
        "\x1b[" in runner.invoke(cli, ["check", "--snapshot", name], color=True, standalone_mode=False).output
    )
    without = runner.invoke(
        cli, ["check", "--snapshot", name], color=True, env={"NO_COLOR": "1"}, standalone_mode=False
    )
    assert "\x1b[" not in without.output


def test_hostile_text_of_a_host_does_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(b'ID=x\nPRETTY_NAME="\x1b[2J\x07evil\xff"\n')
    output = run("--host-root", str(tmp_path)).output
    assert "evil" in output
    assert "\x1b" not in output
    assert "\x07" not in output


def test_npd_is_one_line_with_the_reason_first(tmp_path: Path) -> None:
    name = snapshot_of(tmp_path, cpus=(cpu(ecx=0),))
    result = run("--snapshot", name, "--format", "npd")
    assert result.output.count("\n") == 1
    assert result.output.startswith("VirtualizationMissing: ")
    assert result.return_value == 1
    assert (
        run("--snapshot", snapshot_of(tmp_path), "--format", "npd").output == "eligible (profile openshift)\n"
    )


def test_a_tree_and_its_snapshot_are_judged_alike(tmp_path: Path) -> None:
    record = tmp_path / "node.json"
    tree = str(TREES / "rhcos-4.12-intel")
    first = run("--host-root", tree, "--format", "json", "--record", str(record))
    again = run("--snapshot", str(record), "--format", "json")
    piped = run("--snapshot", "-", "--format", "json", data=record.read_bytes())
    assert first.output == again.output == piped.output
    assert json.loads(first.output)["verdict"] == "unknown"


def test_the_root_may_come_from_the_environment() -> None:
    result = run("--format", "json", KATA_NODE_AGENT_HOST_ROOT=str(TREES / "s390x-lpar"))
    assert json.loads(result.output)["checks"][0]["evidence"] == {"arch": "s390x"}


def test_an_environment_with_a_root_does_not_hinder_a_snapshot(tmp_path: Path) -> None:
    name = snapshot_of(tmp_path)
    assert run("--snapshot", name, KATA_NODE_AGENT_HOST_ROOT=str(TREES / "s390x-lpar")).return_value == 0


def test_waive_and_require(tmp_path: Path) -> None:
    name = snapshot_of(tmp_path, cpus=(cpu(ecx=1 << 19),))
    assert code("--snapshot", name) == 1
    assert code("--snapshot", name, "--waive", "cpu.virtualization") == 0
    assert code("--snapshot", name, "--profile", "upstream") == 0
    assert code("--snapshot", name, "--profile", "upstream", "--require", "cpu.virtualization") == 1


def test_explain_prints_the_page() -> None:
    result = run("--explain", "cpu.firmware")
    assert result.return_value == 0
    assert "VirtualizationDisabledByFirmware" in result.output
    assert "Required by profile openshift" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "opnshift"], "no profile 'opnshift'"),
        (["--waive", "cpu.sse"], "no check 'cpu.sse'"),
        (["--explain", "kvm.opn"], "no check 'kvm.opn'"),
        (["--snapshot", "/nowhere/node.json"], "No such file"),
        (["--snapshot", "-"], "no JSON"),
        (["--snapshot", "a\0b"], "null"),
    ],
)
def test_errors_that_a_person_can_act_on(arguments: list[str], words: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, AgentError)
    assert words in error.message
    assert error.hint


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host-root", "/nowhere"],
        ["--format", "yaml"],
        ["--host-root", "/", "--snapshot", "x"],
        ["--nonsense"],
    ],
)
def test_bad_usage(arguments: list[str]) -> None:
    error = run(*arguments).exception
    assert error is not None
    assert type(error).__module__.startswith("click")


def test_a_fault_of_ours_is_not_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_module, "_read", lambda _name: 1 / 0)
    assert code("--snapshot", "x") == 2


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kata_node_agent", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.host
@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--snapshot", "/nowhere"], 2), (["--profile", "x"], 2), (["--nonsense"], 2), (["--help"], 0)],
)
def test_exit_codes_of_the_command(arguments: list[str], status: int) -> None:
    done = command("check", *arguments)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.kvm
def test_this_machine_runs_guests() -> None:
    done = command("check", "--format", "json", "--profile", "upstream")
    checks = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["kvm.run-guest"]["status"] == "pass"
    assert checks["kvm.run-guest"]["evidence"]["exit_reason"]
    assert checks["kvm.run-guest"]["evidence"]["microseconds"] < 1_000_000
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.kvm
def test_live_and_recorded_verdicts_are_the_same_bytes(tmp_path: Path) -> None:
    record = str(tmp_path / "node.json")
    live = command("check", "--format", "json", "--record", record)
    assert command("check", "--format", "json", "--snapshot", record).stdout == live.stdout


# The interpreter's own files need not be readable to that user: everything is imported before.
AS_NOBODY = """
import json, os, tomllib
from kata_node_agent.eligibility import evaluate, pages_cpu, pages_host, pages_kvm
from kata_node_agent.host import native
from kata_node_agent.host.facts import collect
from kata_node_agent.host.root import HostRoot
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps(evaluate(collect(HostRoot()), profile="upstream").to_json()))
"""


@pytest.mark.kvm
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_learns_what_can_be_learnt() -> None:
    if Path("/dev/kvm").stat().st_mode & 0o006:
        pytest.skip("everybody may open /dev/kvm here")
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    verdict = json.loads(done.stdout)
    checks = {check["id"]: check for check in verdict["checks"]}
    assert (checks["kvm.open"]["status"], checks["kvm.open"]["reason"]) == ("unknown", "KvmPermissionDenied")
    assert checks["kvm.device"]["status"] == "pass"
    assert checks["cpu.consistency"]["status"] in {"pass", "skip"}
    assert verdict["verdict"] == "unknown"


def test_judges_by_the_configuration_and_options_overrule_it(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[eligibility]\nprofile = "upstream"\nrequire = ["os"]\n')
    by_config = policy(load(config, environ={}).config.eligibility, None, (), ())
    assert by_config == {"profile": "upstream", "require": ("os",), "waive": ()}
    assert policy(load(config, environ={}).config.eligibility, "openshift", (), ("os",)) == {
        "profile": "openshift",
        "require": (),
        "waive": ("os",),
    }


def test_a_name_in_the_configuration_that_is_no_check_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[eligibility]\nwaive = ["cpu.sse5"]\n')
    with pytest.raises(ConfigError, match=r"cpu\.sse5"):
        policy(load(config, environ={}).config.eligibility, None, (), ())
