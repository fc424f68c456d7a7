"""The real kubelet, by its own log: its socket → registered; agent start → allocatable; a change of health → allocatable.

Needs the programs that `make conformance-tools` builds, named by CONFORMANCE_BIN; without them it measures nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench.model import Row, Samples, median, number, ratio_of, spread
from bench.processes import program, running
from bench.registration import load
from kata_node_agent.pb import podresources_pb2, podresources_pb2_grpc
from tests.conformance.support import RESOURCE, RealNode, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from bench.model import Scale

_DEVICES = 10
_POLL_SECONDS = 0.001
_DOWN_SECONDS = 0.05
_FIGURES_MS = {"idle": 20.0, "under load": 100.0}
# Soon after that kubelet admits its pods again, and kills those whose resource is not there.
_TOO_LATE_MS = 1000.0
_TIMEOUT_SECONDS = 30.0
# Kubelet answers 100 calls a second, whoever asks.
_ASK_SECONDS = 0.015
# Kubelet's words at -v=2: before it wipes its folder and makes the socket; when Register is called; when it has answered
# for itself; when it has taken the list.
_BEGINS = '"Starting device plugin registration server"'
_CALLED = '"Got registration request from device plugin with resource"'
_CONNECTED = '"Connected to new client"'
_TAKEN = '"Processed device updates for resource"'


class _Node(RealNode):
    """A real node whose kubelet says when it did what."""

    def _spawn(self, name: str, command: list[Any], *, join: bool = False) -> subprocess.Popen[bytes]:
        return super()._spawn(name, [*command, *(["-v=2"] if name == "kubelet" else [])], join=join)

    def restart(self) -> _Restart:
        """Kills kubelet, starts it again, and waits until it has a plugin's list."""
        log = self.folder / "kubelet.log"
        self.stop_kubelet()
        read = log.stat().st_size
        time.sleep(random.uniform(0, _DOWN_SECONDS))
        self.start_kubelet()
        times: dict[str, float] = {}

        def complete() -> bool:
            times.update(_times(log.read_bytes()[read:].decode(errors="replace")))
            return _TAKEN in times

        wait_until(complete, "the plugin's list is taken", _TIMEOUT_SECONDS)
        return _Restart(*((times[what] - times[_BEGINS]) * 1e3 for what in (_CALLED, _CONNECTED, _TAKEN)))


@dataclass(frozen=True, slots=True)
class _Restart:
    """Milliseconds since kubelet began to make its socket."""

    called_ms: float
    registered_ms: float
    allocatable_ms: float


def _times(log: str) -> dict[str, float]:
    """When each of the messages was first said, in seconds since 1970; klog's lines begin `I1124 15:04:05.678901`."""
    found: dict[str, float] = {}
    for line in log.splitlines():
        for what in (_BEGINS, _CALLED, _CONNECTED, _TAKEN):
            if what in line and what not in found and (what == _BEGINS or RESOURCE in line):
                year = time.localtime().tm_year
                found[what] = (
                    datetime.strptime(f"{year}{line[1:21]}", "%Y%m%d %H:%M:%S.%f").astimezone().timestamp()
                )
    return found


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Four rows; none without the programs."""
    programs = os.environ.get("CONFORMANCE_BIN")
    if not programs:
        return []
    with _Node(folder, Path(programs)) as node:
        node.agent_settings = f"[device_plugin]\nmax_slots = {_DEVICES}\n"
        node.start_kubelet()
        _until(node, 0)
        rows = await _registration(scale, node)
        return [*rows, await _start(scale, node), await _health(scale, node)]


@contextlib.contextmanager
def _agent(node: _Node) -> Iterator[None]:
    node.start_agent()
    try:
        _until(node, _DEVICES)
        yield
    finally:
        node.stop_agent()
        _until(node, 0)


@contextlib.contextmanager
def _bare(node: _Node) -> Iterator[None]:
    with running(program("plugin", node.plugins, _DEVICES, _POLL_SECONDS), node.folder / "bare.log"):
        _until(node, _DEVICES)
        yield
    _until(node, 0)


_PLUGINS: tuple[Callable[[_Node], contextlib.AbstractContextManager[None]], ...] = (_agent, _bare)


async def _registration(scale: Scale, node: _Node) -> list[Row]:
    """Two rows: idle, and under load."""
    restarts = scale.count(50, 10)
    rows = []
    for state in _FIGURES_MS:
        taken = []
        for plugin in _PLUGINS:
            with plugin(node), contextlib.ExitStack() as noise:
                if state == "under load":
                    noise.enter_context(load([node.plugins], node.folder))
                taken.append(await _restart(node, restarts))
        rows.append(_row(state, *taken))
    return rows


async def _restart(node: _Node, restarts: int) -> list[_Restart]:
    seen = []
    for _ in range(restarts):
        seen.append(node.restart())
        await asyncio.sleep(0.1)
    return seen


def _row(state: str, ours: list[_Restart], theirs: list[_Restart]) -> Row:
    called, floor = (Samples.of([one.called_ms for one in side]) for side in (ours, theirs))
    registered = Samples.of([one.registered_ms for one in ours])
    allocatable = Samples.of([one.allocatable_ms for one in ours])
    return Row(
        id="kubelet-" + state.replace(" ", "-"),
        what=f"real kubelet begins its socket → Register called, {state}",
        measured=f"{spread(called, 'ms')}; answered {number(registered.p50)} / {number(registered.p99)} ms",
        beside=f"bare plugin, polls each ms: {spread(floor, 'ms')}",
        ratio=ratio_of(called.p50, floor.p50),
        figure=f"p99 ≤ {_FIGURES_MS[state]:.0f} ms; all shown in 1 s",
        reached=called.p99 <= _FIGURES_MS[state] and allocatable.values[-1] <= _TOO_LATE_MS,
        values={
            "ours_ms": called.to_json(),
            "ours_registered_ms": registered.to_json(),
            "ours_allocatable_ms": allocatable.to_json(),
            "floor_ms": floor.to_json(),
        },
    )


async def _start(scale: Scale, node: _Node) -> Row:
    taken: list[list[float]] = [[], []]
    for _ in range(scale.count(15, 5)):
        for plugin, times in zip(_PLUGINS, taken, strict=True):
            began = time.monotonic()
            with plugin(node):
                times.append((time.monotonic() - began) * 1e3)
            await asyncio.sleep(0)
    ours, floor = map(Samples.of, taken)
    return Row(
        id="kubelet-start",
        what="process start → devices allocatable at the real kubelet",
        measured=median(ours, "ms"),
        beside=f"bare Python + grpcio: {median(floor, 'ms')}",
        ratio=ratio_of(ours.p50, floor.p50),
        figure="–",
        reached=None,
        values={"ours_ms": ours.to_json(), "floor_ms": floor.to_json()},
    )


async def _health(scale: Scale, node: _Node) -> Row:
    gone: list[float] = []
    back: list[float] = []

    def show_kvm() -> None:
        node.kvm.symlink_to("/dev/kvm")

    with _agent(node):
        for _ in range(scale.count(15, 4)):
            for times, change, count in (
                (gone, node.kvm.unlink, 0),
                (back, show_kvm, _DEVICES),
            ):
                began = time.monotonic()
                change()
                _until(node, count)
                times.append((time.monotonic() - began) * 1e3)
                await asyncio.sleep(0)
    both = Samples.of(gone + back)
    return Row(
        id="kubelet-health",
        what="/dev/kvm goes or comes back → devices changed at the real kubelet",
        measured=spread(both, "ms"),
        beside="800 ms of it are waited, so that a device made anew does not flap",
        ratio=None,
        figure="≤ 2 s",
        reached=both.p99 <= 2000,
        values={"gone_ms": Samples.of(gone).to_json(), "back_ms": Samples.of(back).to_json()},
    )


def _until(node: RealNode, count: int) -> None:
    """Waits until kubelet would allocate so many devices."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with grpc.insecure_channel(f"unix:{node.folder}/root/pod-resources/kubelet.sock") as channel:
        stub = podresources_pb2_grpc.PodResourcesListerStub(channel)
        while time.monotonic() < deadline:
            with contextlib.suppress(grpc.RpcError):
                request = podresources_pb2.AllocatableResourcesRequest()
                answer = stub.GetAllocatableResources(request, timeout=2)
                if sum(part.resource_name == RESOURCE for part in answer.devices) == count:
                    return
            time.sleep(_ASK_SECONDS)
    raise RuntimeError(f"kubelet does not show {count} devices:\n{node.log('kubelet')}")
