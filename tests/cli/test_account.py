"""What `fit`, `ledger` and `status` print of the account."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.cli import fit, ledger, status
from kata_node_agent.errors import ConfigError, SocketError
from kata_node_agent.pb import agent_pb2 as pb
from tests.daemon.support import COMMAND, Node

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


def test_fit_has_the_keys_of_the_contract_and_says_what_limits() -> None:
    answer = pb.FitAnswer(
        count=3,
        limited_by="shared_memory",
        limited_by_message="7Gi free of 12Gi /dev/shm",
        free_bytes=7 * GIB,
        needs_bytes=2 * GIB + 60 * MIB,
        vm_bytes=2 * GIB,
    )
    document = fit.as_json(answer)
    assert document["schema"] == "kata-node-agent/fit/v1"
    assert {name: document[name] for name in ("count", "limited_by", "free_bytes", "needs_bytes")} == {
        "count": 3, "limited_by": "shared_memory", "free_bytes": 7 * GIB, "needs_bytes": 2 * GIB + 60 * MIB,
    }  # fmt: skip
    assert fit.as_text(answer) == (
        "3 more of 2.1Gi each (2Gi and 60Mi beside it)\nlimited by shared_memory: 7Gi free of 12Gi /dev/shm"
    )


def test_fit_says_first_that_a_closed_node_takes_none() -> None:
    text = fit.as_text(pb.FitAnswer(count=3, closed_by="draining: the node is being drained"))
    assert "none now: draining" in text.splitlines()[0]


def test_the_ledger_lists_the_largest_first_and_devices_with_what_they_stand_for() -> None:
    answer = pb.Admissions(
        admissions=[
            pb.Admission(sandbox="a" * 64, pod="default/small", origin="admitted", commitment_bytes=GIB),
            pb.Admission(
                sandbox="b",
                pod_uid="uid-b",
                origin="adopted",
                commitment_bytes=3 * GIB,
                vm_bytes=2 * GIB,
                released=True,
            ),
            pb.Admission(sandbox="c", origin="noted", confirmed=True),
        ],
        devices=[
            pb.HeldDevice(id="kata-000001", pod="default/small"),
            pb.HeldDevice(id="kata-000002", commitment_bytes=2 * GIB),
        ],
    )
    lines = ledger.admissions_text(answer).splitlines()
    assert lines[0].split() == ["SANDBOX", "POD", "ORIGIN", "ADMITTED", "VM", "NOW", "PROMISED", "STATE"]
    assert lines[1].split() == ["b", "uid-b", "adopted", "0", "2Gi", "3Gi", "ending"]
    assert lines[2].split() == ["aaaaaaaaaaaa", "default/small", "admitted", "0", "–", "1Gi", "new"]
    assert lines[3].split()[-1] == "ended"
    assert "with its VM" in lines[4]
    assert lines[5].split() == ["kata-000002", "allocated", "–", "–", "2Gi"]
    assert ledger.admissions_text(pb.Admissions()) == "nothing is promised"


def test_a_decision_is_one_line_with_its_reason() -> None:
    noted = pb.NotedDecision(
        unix_seconds=1e9,
        what="admit",
        sandbox="a",
        pod="default/a",
        decision=pb.Decision(reason="NotEnoughMemory", message="it needs 4Gi; 1Gi free"),
    )
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1e9))
    line = f"{when}  admit    refused      NotEnoughMemory: default/a: it needs 4Gi; 1Gi free"
    assert ledger.decision_line(noted) == line
    noted.decision.allowed = noted.decision.would_refuse = True
    assert "would refuse" in ledger.decision_line(noted)


def test_status_shows_the_term_that_limits_first_and_leaves_out_what_nobody_has() -> None:
    shown = pb.Status(
        account=pb.Account(
            terms=[
                pb.Term(
                    name="allocatable_memory", budget_bytes=20 * GIB, committed_bytes=GIB, free_bytes=19 * GIB
                ),
                pb.Term(name="shared_memory", budget_bytes=4 * GIB, committed_bytes=GIB, free_bytes=3 * GIB),
                pb.Term(name="hugepages"),
            ],
            limited_by="shared_memory",
            free_bytes=3 * GIB,
            committed_bytes=GIB,
            sandboxes=2,
            devices=1,
            draining=True,
            other_pods_bytes=6 * GIB,
            share=1.5,
        )
    )
    lines = [
        line
        for line in status.as_text(shown, time.time()).splitlines()
        if line.startswith("account") or "_memory" in line
    ]
    assert (
        lines[0]
        == "account    1Gi promised to 2 VMs and 1 device, 6Gi claimed by other pods, 3Gi free, draining"
    )
    assert [line.split()[0] for line in lines[1:]] == ["shared_memory", "allocatable_memory"]
    document = status.as_json(shown)
    assert (document["free_bytes"], document["committed_bytes"]) == (3 * GIB, GIB)
    assert isinstance(account := document["account"], dict)
    assert (account["other_pods_bytes"], account["share"]) == (6 * GIB, 1.5)


@pytest.mark.host
def test_mode_and_drain_without_a_word_show_what_is_and_change_nothing(short_dir: Path) -> None:
    node = Node(short_dir)

    def said(*words: str) -> str:
        command = [*COMMAND, *words, "--run-dir", str(node.run_dir)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    with node.agent() as agent:
        agent.wait_for("serving ")
        assert said("mode") == "mode enforce, configured"
        assert said("drain") == "open to new VMs"
        said("mode", "warn")
        said("drain", "on")
        assert said("mode") == "mode warn, set at run time"
        assert json.loads(said("mode", "--format", "json"))["origin"] == "set at run time"
        assert said("drain") == "closed: no new VM is taken"
        assert json.loads(said("drain", "--format", "json"))["draining"] is True


@pytest.mark.parametrize("memory", ["4096", "0"])
def test_fit_refuses_a_vm_that_was_written_without_its_unit(memory: str) -> None:
    with pytest.raises(ConfigError) as refused:
        fit.command.main(["--memory", memory, "--run-dir", "/nonexistent"], standalone_mode=False)
    assert refused.value.message == f"--memory {memory}: no VM boots with so few bytes"
    assert refused.value.hint.startswith("write the unit: ")


def test_fit_takes_a_pod_without_limits_of_a_handler() -> None:
    # It gets as far as the agent, which is not there.
    with pytest.raises(SocketError):
        fit.command.main(
            ["--memory", "0", "--handler", "kata", "--run-dir", "/nonexistent"], standalone_mode=False
        )
