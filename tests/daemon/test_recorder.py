"""The history that the daemon keeps, and the report that it gives."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.daemon.alive import NodeWatch
from kata_node_agent.daemon.history import History
from kata_node_agent.daemon.recorder import Recorder
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.errors import HostError
from kata_node_agent.pb import agent_pb2, agent_pb2_grpc
from kata_node_agent.report.history import HISTORY_NAME
from kata_node_agent.series import read_observed
from tests.daemon.support import COMMAND, Node

TREE = Path(__file__).parents[1] / "trees-cgroups" / "v2"


def recorder(config: Config) -> Recorder:
    return Recorder(lambda: config, NodeWatch(lambda: config, History(), lambda: None))


def test_a_sample_is_kept_with_all_figures(tmp_path: Path) -> None:
    config = Config(host_root=TREE, state_dir=tmp_path / "state")
    recorder(config).record()
    found = {seen.name: seen.max for seen in read_observed(tmp_path / "state" / HISTORY_NAME, time.time())}
    assert found["outside_pods"] == 3000 << 20
    assert set(found) == {
        "outside_pods",
        "system_working_set",
        "system_rss",
        "pods_working_set",
        "kata_overhead",
    }


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="state_dir"):
        recorder(Config(host_root=TREE, state_dir=tmp_path / "file" / "state")).record()


def test_trouble_is_a_problem_and_goes_away_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kata_node_agent.daemon.recorder._FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("kata_node_agent.daemon.recorder.INTERVAL_SECONDS", 0.01)
    place = tmp_path / "state"
    place.write_text("in the way")
    keeper = recorder(Config(host_root=TREE, state_dir=place))

    async def until(problem: bool) -> None:
        async with asyncio.timeout(10):
            while (keeper.problem is not None) != problem:
                await asyncio.sleep(0.01)

    async def main() -> None:
        running = asyncio.create_task(keeper.run())
        await until(problem=True)
        assert keeper.problem is not None
        assert keeper.problem.reason == "HistoryNotKept"
        assert "state_dir" in keeper.problem.remedy
        place.unlink()
        await until(problem=False)
        assert (place / HISTORY_NAME).exists()
        running.cancel()

    asyncio.run(main())


def report(node: Node) -> subprocess.CompletedProcess[str]:
    state = node.folder / "state"
    command = [*COMMAND, "report", "--format", "json", "--host-root", str(node.root)]
    command += ["--state-dir", str(state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.host
def test_a_killed_agent_finds_its_history_again_and_the_api_tells_what_report_tells(short_dir: Path) -> None:
    node = Node(short_dir)

    async def main() -> None:
        kubelet = DevKubelet(node.plugins)
        await kubelet.start()
        history = node.folder / "state" / HISTORY_NAME
        with node.agent() as agent:
            await kubelet.wait_for_registrations(1, timeout_seconds=15)
            async with asyncio.timeout(20):
                while not history.exists() or not read_observed(history, time.time()):
                    await asyncio.sleep(0.1)
            async with grpc.aio.insecure_channel(f"unix:{node.run_dir}/agent.sock") as channel:
                answer = await agent_pb2_grpc.NodeAgentStub(channel).GetNode(agent_pb2.GetNodeRequest())
            done = await asyncio.to_thread(report, node)
            document = json.loads(done.stdout)
            assert answer.capacity.memory_bytes == document["capacity"]["memory_bytes"]
            assert answer.allocatable.memory_bytes == document["allocatable"]["memory_bytes"]
            assert [seen.name for seen in answer.observed] == [seen["name"] for seen in document["observed"]]
            assert answer.observed
            await asyncio.to_thread(agent.end, signal.SIGKILL)
        before = read_observed(history, time.time())
        with node.agent():
            await kubelet.wait_for_registrations(2, timeout_seconds=15)
        assert read_observed(history, time.time())[0].records >= before[0].records
        await kubelet.crash()

    asyncio.run(main())
