"""`kata-node-agent support-bundle`: whole, without secrets, and there also when little else is."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from kata_node_agent.cli import archive, support_bundle
from kata_node_agent.cli.group import cli
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.errors import HostError
from tests.daemon.support import COMMAND, Node
from tests.report.kata_node import KataNode

if TYPE_CHECKING:
    from pathlib import Path

OF_THE_AGENT = {"status.json", "ledger.json", "decisions.json", "verification.json"}
OF_THE_NODE = {"snapshot.json", "verdict.json", "config.toml", "report.json", "sandboxes.json"}


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A journalctl that says one line; gives how it was called."""
    calls: list[list[str]] = []

    def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, b"serving mode=enforce\n", b"")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def bundle(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit code, content by file name, what was said."""
    target = tmp_path / "bundle.tar.gz"
    done = CliRunner().invoke(cli, ["support-bundle", "--output", str(target), *arguments])
    return done.exit_code, read(target.read_bytes()), done.stderr


def read(packed: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        files = {entry.name.partition("/")[2]: opened.extractfile(entry) for entry in opened}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def without_agent(tmp_path: Path) -> list[str]:
    (tmp_path / "node").mkdir()
    node = KataNode(tmp_path / "node")
    node.sandbox(1)
    (tmp_path / "run").mkdir()
    return ["--host-root", str(node.folder), "--run-dir", str(tmp_path / "run")]


def test_without_an_agent_the_rest_is_there_and_what_is_missing_is_said(
    tmp_path: Path, journal: list[list[str]]
) -> None:
    code, texts, said = bundle(tmp_path, *without_agent(tmp_path))
    assert code == 1
    assert set(texts) == {"about.json", "log.txt", *OF_THE_NODE}
    about = json.loads(texts["about.json"])
    assert about["schema"] == "kata-node-agent/support-bundle/v1"
    assert set(about["parts"]) == set(texts) - {"about.json"}
    assert set(about["missing"]) == {"ledger.sql", *OF_THE_AGENT}
    assert all(f"missing {name}: " in said for name in about["missing"])
    assert "no agent is running here" in about["missing"]["status.json"]
    assert json.loads(texts["sandboxes.json"])["sandboxes"][0]["pod"] == "default/web-1"
    assert "from: default" in texts["config.toml"]


def test_the_log_is_that_of_the_unit_on_the_host_that_is_looked_at(
    tmp_path: Path, journal: list[list[str]]
) -> None:
    _, texts, _ = bundle(tmp_path, *without_agent(tmp_path))
    assert texts["log.txt"] == "serving mode=enforce\n"
    (arguments,) = journal
    assert arguments[arguments.index("--root") + 1].startswith(str(tmp_path / "node"))
    assert "--no-hostname" in arguments


def test_the_verdict_is_that_of_the_snapshot_beside_it(tmp_path: Path, journal: list[list[str]]) -> None:
    _, texts, _ = bundle(tmp_path, *without_agent(tmp_path))
    (tmp_path / "s.json").write_text(texts["snapshot.json"])
    judged = CliRunner().invoke(cli, ["check", "--snapshot", str(tmp_path / "s.json"), "--format", "json"])
    assert json.loads(judged.output) == json.loads(texts["verdict.json"])


def test_a_configuration_that_is_broken_is_said_and_the_rest_written(
    tmp_path: Path, journal: list[list[str]]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[device_plugin]\nmax_slot = 1\n")
    code, texts, said = bundle(tmp_path, "--config", str(config), *without_agent(tmp_path))
    assert code == 1
    assert (
        "did you mean device_plugin.max_slots?" in json.loads(texts["about.json"])["missing"]["configuration"]
    )
    assert "unknown key device_plugin.max_slot" in said
    assert set(texts) >= OF_THE_NODE
    assert texts["written/00-c.toml"] == f"# {config}\n[device_plugin]\nmax_slot = 1\n"
    assert "as it is written" in json.loads(texts["about.json"])["parts"]["written/00-c.toml"]


def test_a_journal_without_a_word_of_the_agent_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(arguments, 0, b"-- No entries --\n", b"")

    monkeypatch.setattr(subprocess, "run", run)
    _, texts, _ = bundle(tmp_path, *without_agent(tmp_path))
    assert "log.txt" not in texts
    assert "no entry of kata-node-agent.service" in json.loads(texts["about.json"])["missing"]["log.txt"]


@pytest.mark.parametrize("broken", ["", 'password = "s3cr3t-key"\n'])
def test_no_secret_is_in_it(
    tmp_path: Path, journal: list[list[str]], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t-of-kubelet")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-of-aws")
    config = tmp_path / "c.toml"
    config.write_text(
        f'# password: s3cr3t-comment\n{broken}mode = "warn" # s3cr3t\n[kubelet]\nconfigz_url = "http://127.0.0.1:1/configz"\nconfigz_token_file = "{token}"\n'
    )
    _, texts, _ = bundle(tmp_path, "--config", str(config), *without_agent(tmp_path))
    if not broken:
        assert str(token) in texts["config.toml"]
    assert str(token) in texts["written/00-c.toml"]
    assert not [name for name, text in texts.items() if "s3cr3t" in text]


def test_of_a_ledger_that_nobody_answers_for_the_file_is_there(
    tmp_path: Path, journal: list[list[str]]
) -> None:
    arguments = without_agent(tmp_path)
    connection = sqlite3.connect(tmp_path / "run" / "ledger.db")
    connection.execute("CREATE TABLE entry (key TEXT, body TEXT)")
    connection.execute("INSERT INTO entry VALUES ('sandbox/a', '{}')")
    connection.commit()
    # As one that is locked by an agent that hangs.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    _, texts, _ = bundle(tmp_path, *arguments)
    connection.close()
    assert "sandbox/a" in texts["ledger.sql"]


@pytest.mark.parametrize("content", [b"", b"no database" * 999])
def test_a_ledger_that_is_damaged_is_said(tmp_path: Path, journal: list[list[str]], content: bytes) -> None:
    arguments = without_agent(tmp_path)
    (tmp_path / "run" / "ledger.db").write_bytes(content)
    code, texts, _ = bundle(tmp_path, *arguments)
    assert code == 1
    assert "ledger.db: " in json.loads(texts["about.json"])["missing"]["ledger.sql"]


def test_a_part_that_fails_by_a_fault_of_ours_is_named_and_the_rest_written(
    tmp_path: Path, journal: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> str:
        raise ZeroDivisionError("of ours")

    monkeypatch.setitem(support_bundle._PARTS, "report.json", ("report", broken))
    _, texts, _ = bundle(tmp_path, *without_agent(tmp_path))
    about = json.loads(texts["about.json"])
    assert about["missing"]["report.json"] == "internal error: ZeroDivisionError: of ours"
    assert "verdict.json" in texts


def test_the_file_is_for_its_owner_alone_and_never_replaces_another(
    tmp_path: Path, journal: list[list[str]]
) -> None:
    arguments = without_agent(tmp_path)
    bundle(tmp_path, *arguments)
    target = tmp_path / "bundle.tar.gz"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    before = target.read_bytes()
    again = CliRunner().invoke(cli, ["support-bundle", "--output", str(target), *arguments])
    assert isinstance(again.exception, HostError)
    assert "it is there already" in str(again.exception)
    assert target.read_bytes() == before


@pytest.mark.host
def test_of_a_file_that_cannot_be_written_whole_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdopen

    def full(descriptor: int, mode: str) -> Any:
        os.close(descriptor)
        return real(os.open("/dev/full", os.O_WRONLY), mode)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(HostError, match="No space left on device"):
        archive.write_new(str(tmp_path / "b.tar.gz"), b"x" * 100_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.host
def test_of_a_running_agent_all_is_there(short_dir: Path, tmp_path: Path) -> None:
    node = Node(short_dir)

    async def main() -> subprocess.CompletedProcess[bytes]:
        async with DevKubelet(node.plugins):
            with node.agent() as agent:
                await asyncio.to_thread(agent.wait_for, "registered ")
                command = [*COMMAND, "support-bundle", "--output", "-", "--config", str(node.config)]
                command += ["--host-root", str(node.root), "--run-dir", str(node.run_dir)]
                return await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60)

    done = asyncio.run(main())
    texts = read(done.stdout)
    # No journal of this agent: it is no unit here.
    assert set(texts) >= {"about.json", *OF_THE_NODE, *OF_THE_AGENT}, done.stderr
    assert json.loads(texts["status.json"])["kubelet"]["registered"]
    assert json.loads(texts["verification.json"])["problems"] == []
    assert b"wrote standard output" in done.stderr
