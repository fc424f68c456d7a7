"""The real containerd asks our plugin: pods are refused before they run, and nothing is left of what was refused."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import pytest

from tests.conformance.runtime import MIB, RealRuntime, TestPlugin
from tests.conformance.runtimes import RUNTIMES, Containerd
from tests.conformance.support import wait_until
from tests.nri.recorded import RECORDINGS, requests_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.containerd

# Of a VM without any limit; see `nri_plugin`.
VM = 256 * MIB


# Where others than the newest containerd have no such thing, or it is not theirs to be tried once more.
newest = pytest.mark.parametrize("runtime", [Containerd()], indirect=True, ids=["containerd"])


@pytest.fixture(scope="module", params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request: pytest.FixtureRequest) -> Iterator[RealRuntime]:
    programs = Path(os.environ["CONFORMANCE_BIN"])
    with (
        tempfile.TemporaryDirectory(prefix="kna-") as folder,
        RealRuntime(Path(folder), programs, request.param) as real,
    ):
        try:
            yield real
        finally:
            print(real.log("runtime")[-3000:], real.log("plugin")[-3000:])


@contextmanager
def plugin_on(runtime: RealRuntime, budget_bytes: int, *, asked_always: bool = True) -> Iterator[TestPlugin]:
    """Our plugin with so much to give; afterwards nothing may be left of any pod.

    Where the runtime could always ask, never more than that was given.
    """
    (runtime.folder / "account.json").unlink(missing_ok=True)
    with TestPlugin(runtime, budget_bytes) as plugin:
        try:
            yield plugin
        finally:
            for sandbox in runtime.sandboxes():
                runtime.remove(sandbox)
        wait_until(lambda: not plugin.state()["claims"], "no admission is left behind")
        assert not asked_always or plugin.state()["most_bytes"] <= budget_bytes


def refused(output: str) -> bool:
    return "kata-node-agent refuses: the VM of default/pod" in output


def test_a_refused_sandbox_is_torn_down_and_crictl_says_why(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 4 * VM) as plugin:
        code, first = runtime.run(runtime.pod_file(limit_bytes=VM, overhead_bytes=64 * MIB))
        assert code == 0, first
        before = plugin.state()["claims"]
        assert [(c["sandbox"], c["vm_bytes"], c["limits_bytes"]) for c in before] == [(first, 2 * VM, VM)]
        assert before[0]["pod_fixed_bytes"] == 64 * MIB
        code, output = runtime.run(runtime.pod_file(limit_bytes=2 * VM))
        assert code == 1
        assert f"needs {3 * VM // MIB}Mi; {2 * VM // MIB}Mi free of the budget; end other pods" in output
        assert runtime.sandboxes() == [first]
        assert plugin.state()["claims"] == before


def test_pods_of_another_handler_pass_whatever_the_account_says(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 0) as plugin:
        pod = runtime.pod_file(limit_bytes=VM)
        code, sandbox = runtime.run(pod, "runc")
        assert code == 0, sandbox
        assert runtime.create(sandbox, pod)[0] == 0
        assert refused(runtime.run(runtime.pod_file())[1])
        plugin.wait_for_decisions({"admit refused": 1})


def test_a_refused_container_never_exists(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 3 * VM) as plugin:
        # The runtime was not told the pod's limits.
        pod = runtime.pod_file()
        code, sandbox = runtime.run(pod)
        assert code == 0, sandbox
        code, output = runtime.create(sandbox, pod, "main", 3 * VM)
        assert code == 1
        assert refused(output)
        assert runtime.containers() == []
        # Not even a cgroup was made: there is the pause container's alone.
        assert len(runtime.groups_of(pod)) == 1
        code, container = runtime.create(sandbox, pod, "main", 2 * VM)
        assert code == 0, container
        runtime.must("start", container)
        assert plugin.committed_bytes == 3 * VM


def test_all_kinds_of_containers_of_a_forecast_pod_only_confirm_it(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 3 * VM) as plugin:
        pod = runtime.pod_file(limit_bytes=2 * VM)
        code, sandbox = runtime.run(pod)
        assert code == 0, sandbox
        assert plugin.committed_bytes == 3 * VM
        assert plugin.state()["confirmed"] == []
        code, init = runtime.create(sandbox, pod, "init", 2 * VM)
        assert code == 0, init
        runtime.must("start", init)
        wait_until(lambda: plugin.state()["requests"].get("StopContainer"), "the init container has exited")
        # A sidecar and the main container; then an ephemeral one, which cannot have a limit.
        for name, limit in (("sidecar", VM), ("main", VM), ("debugger", 0)):
            code, container = runtime.create(sandbox, pod, name, limit)
            assert code == 0, container
            runtime.must("start", container)
        assert plugin.state()["confirmed"] == [sandbox]
        plugin.wait_for_decisions({"admit allowed": 1})


def test_a_resize_beyond_the_budget_is_refused_and_changes_nothing(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 3 * VM) as plugin:
        pod = runtime.pod_file(limit_bytes=VM)
        _, sandbox = runtime.run(pod)
        code, container = runtime.create(sandbox, pod, "main", VM)
        assert code == 0, container
        runtime.must("start", container)
        code, output = runtime.cri("update", "--memory", 3 * VM, container)
        assert code == 1
        assert refused(output)
        assert runtime.limit_of(pod, container) == VM
        runtime.must("update", "--memory", 2 * VM, container)
        assert runtime.limit_of(pod, container) == 2 * VM
        assert plugin.committed_bytes == 3 * VM


@newest
def test_a_resize_of_the_pod_as_a_whole_is_decided(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 3 * VM) as plugin:
        pod = runtime.pod_file(limit_bytes=VM)
        _, sandbox = runtime.run(pod)
        with pytest.raises(grpc.RpcError) as error:
            runtime.resize_pod(sandbox, 3 * VM)
        assert refused(str(error.value.details()))
        runtime.resize_pod(sandbox, 2 * VM)
        assert plugin.committed_bytes == 3 * VM


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer"])
def test_what_a_plugin_after_us_refuses_is_given_back(runtime: RealRuntime, method: str) -> None:
    with plugin_on(runtime, 4 * VM) as plugin:
        runtime.peer("other", "refuse", runtime.nri, method)
        wait_until(lambda: "synchronized" in runtime.log("other"), "the other plugin is there")
        try:
            pod = runtime.pod_file()
            code, output = runtime.run(pod)
            if method == "CreateContainer":
                assert code == 0, output
                code, output = runtime.create(output, pod, "main", VM)
            assert code == 1
            assert "the other plugin says no" in output
        finally:
            runtime.end("other")
        if method == "RunPodSandbox":
            plugin.wait_for_decisions({"admit allowed": 1})
            wait_until(lambda: len(plugin.state()["released"]) == 1, "we are told of its end")
            wait_until(lambda: not plugin.state()["claims"], "what it was given is free again")
        else:
            plugin.wait_for_decisions({"admit allowed": 1, "extend allowed": 1})


def test_fifty_pods_at_once_with_room_for_thirty(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 30 * 2 * VM) as plugin:
        pods = [runtime.pod_file(limit_bytes=VM) for _ in range(50)]

        def whole(pod: Path) -> tuple[int, str]:
            code, sandbox = runtime.run(pod)
            if code == 0:
                # No pod that has begun waits for memory that others hold.
                for name in ("one", "two"):
                    code, container = runtime.create(sandbox, pod, name, VM // 2)
                    assert code == 0, container
                    runtime.must("start", container)
            return code, sandbox

        with ThreadPoolExecutor(50) as pool:
            results = list(pool.map(whole, pods))
        admitted = [text for code, text in results if code == 0]
        assert len(admitted) == 30
        assert all(refused(text) for code, text in results if code)
        assert sorted(runtime.sandboxes()) == sorted(admitted)
        state = plugin.state()
        assert sorted(claim["sandbox"] for claim in state["claims"]) == sorted(admitted)
        assert state["most_bytes"] == 30 * 2 * VM
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(runtime.remove, admitted))


def test_a_plugin_that_does_not_answer_is_passed_by_and_that_is_counted(runtime: RealRuntime) -> None:
    with plugin_on(runtime, VM, asked_always=False) as plugin:
        runtime.signal("plugin", signal.SIGSTOP)
        code, sandbox = runtime.run(runtime.pod_file(limit_bytes=VM))
        # The runtime waits two seconds, then drops us and goes on: it fails open.
        assert code == 0, sandbox
        runtime.signal("plugin", signal.SIGCONT)
        plugin.wait_for_synchronization(2)
        wait_until(lambda: plugin.state()["unseen"] == 1, "it is counted")
        # Over the budget now: it runs, so it counts, and nothing more is admitted.
        assert [claim["sandbox"] for claim in plugin.state()["claims"]] == [sandbox]
        assert refused(runtime.run(runtime.pod_file())[1])
        runtime.remove(sandbox)


@newest
def test_a_pod_can_require_us_and_then_has_no_container_without_us(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 4 * VM, asked_always=False) as plugin:
        needs = runtime.pod_file(annotations={"required-plugins.noderesource.dev": "[kata-node-agent]"})
        other = runtime.pod_file()
        (_, sandbox), (_, free) = runtime.run(needs), runtime.run(other, "runc")
        plugin.end()
        # A runtime notices by the next question that a plugin has gone, and that question passes.
        assert runtime.create(free, other)[0] == 0
        code, output = runtime.create(sandbox, needs)
        assert code == 1
        assert 'required plugin \\"kata-node-agent\\" not present' in output
        plugin.start()
        assert runtime.create(sandbox, needs)[0] == 0


class Load:
    """Pods that come and go on some threads while it is entered."""

    def __init__(self, runtime: RealRuntime) -> None:
        self._runtime = runtime
        self._stop = threading.Event()
        self.admitted = self.refused = 0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def wait_for_more(self) -> None:
        """Until another pod was run."""
        before = self.admitted
        wait_until(lambda: self.admitted > before, "pods come and go")

    def _work(self) -> None:
        while not self._stop.is_set():
            pod = self._runtime.pod_file(limit_bytes=VM)
            code, text = self._runtime.run(pod)
            if code == 0:
                self.admitted += 1
                self._runtime.create(text, pod, "main", VM)
            self.refused += refused(text)
            # As kubelet does, also with what a runtime left that was killed.
            while not self._runtime.forgotten(pod) and not self._stop.is_set():
                time.sleep(0.05)


def test_a_runtime_that_is_restarted_under_load_finds_us_again(runtime: RealRuntime) -> None:
    # A runtime takes pods before it takes plugins in: what passes in that moment is counted.
    with plugin_on(runtime, 5 * VM, asked_always=False) as plugin, Load(runtime) as load:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            load.wait_for_more()
            before = plugin.state()["synchronizations"]
            runtime.end("runtime", number)
            runtime.start()
            plugin.wait_for_synchronization(before + 1)
        load.wait_for_more()
        refused_before = load.refused
        wait_until(lambda: load.refused > refused_before, "the budget holds again")


def test_a_plugin_that_is_killed_under_load_counts_what_went_past_it(runtime: RealRuntime) -> None:
    with plugin_on(runtime, 5 * VM, asked_always=False) as plugin, Load(runtime) as load:
        for _ in range(3):
            plugin.end()
            load.wait_for_more()
            plugin.start()
            load.wait_for_more()
    assert load.admitted


@newest
def test_a_runtime_with_200_pods_is_restarted_and_tells_of_all_of_them(
    runtime: RealRuntime, record_property: Callable[[str, object], None]
) -> None:
    with plugin_on(runtime, 200 * VM) as plugin:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: runtime.run(runtime.pod_file()), range(200)))
        sandboxes = sorted(text for _, text in results)
        assert [code for code, _ in results] == [0] * 200, results
        taken = []
        for number in range(3):
            runtime.end("runtime", signal.SIGKILL)
            runtime.nri.unlink(missing_ok=True)
            runtime.start(wait=False)
            wait_until(runtime.nri.exists, "it listens for plugins", pause_seconds=0.002)
            begun = time.monotonic()
            plugin.wait_for_synchronization(number + 2, pause_seconds=0.002)
            taken.append(time.monotonic() - begun)
            assert sorted(plugin.state()["listed"]) == sandboxes
            runtime.wait_until_it_answers()
        assert plugin.state()["unseen"] == 0
        times = ", ".join(f"{seconds * 1000:.0f}" for seconds in taken)
        record_property("NRI socket of a restarted containerd to synchronized, 200 pods", f"{times} ms")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(runtime.remove, sandboxes))


def test_what_a_runtime_sends_is_what_was_recorded(runtime: RealRuntime) -> None:
    """CONFORMANCE_RECORD names a folder for a new recording."""
    (runtime.folder / "account.json").unlink(missing_ok=True)
    between, recording = runtime.folder / "between.sock", runtime.folder / "recording"
    runtime.peer("recorder", "record", runtime.nri, between, recording)
    wait_until(between.exists, "the recorder listens")
    resizes = "UpdatePodSandbox" in runtime.runtime.asked_about
    with TestPlugin(runtime, 100 * VM, between):
        pod = runtime.pod_file(limit_bytes=2 * VM, overhead_bytes=64 * MIB)
        _, sandbox = runtime.run(pod)
        _, container = runtime.create(sandbox, pod, "main", VM)
        runtime.must("start", container)
        runtime.must("update", "--memory", 2 * VM, container)
        if resizes:
            runtime.resize_pod(sandbox, 3 * VM)
        runtime.remove(sandbox)
    runtime.end("recorder")
    data = recording.read_bytes()
    name = runtime.runtime.name.lower().replace(" ", "-")
    if folder := os.environ.get("CONFORMANCE_RECORD"):
        (Path(folder) / f"{name}.nri").write_bytes(data)
    before = [call.event for call in requests_in(RECORDINGS[name].read_bytes())]
    assert [call.event for call in requests_in(data)] == before
