"""A real QEMU is given memory by QMP: how long until the account has it, and until kubelet has fewer devices.

The guest does not run: what counts is the memory that QEMU maps. Without QEMU, or not as root, nothing is measured.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import grpc

from bench.model import Row, Samples, spread
from bench.plugins import TIMEOUT_SECONDS, agent, kubelet_in
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from kata_node_agent.sockets import unix_target
from tests.sandboxes.vms import MIB, Machine, missing, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from bench.model import Scale
    from bench.plugins import StampedKubelet
    from tests.sandboxes.vms import RunningVm

# One more VM costs as much as is plugged: each time kubelet has one device less. The overhead is more than QEMU's own.
_STEP, _OVERHEAD = 256 * MIB, 192 * MIB
_DIMMS_A_VM = 40
_SEEN_SECONDS, _DEVICES_SECONDS = 1.0, 2.0
# What the looks' own clocks are: a sample begins anywhere between two of them.
_JITTER_SECONDS = 1.0
# What other programs touch shall not be what limits.
_SETTINGS = """
[accounting]
share = 0.6
margin = "0"
rise_seconds = 0
pressure_stop = false
"""


async def measure(scale: Scale, folder: Path) -> list[Row]:
    """Two rows."""
    why = missing()
    if why:
        return [_cannot(name, why) for name in ("seen", "devices")]
    vms = folder / "vms"
    vms.mkdir()
    machine = Machine(vms)
    try:
        async with kubelet_in(folder) as kubelet:
            child = agent(
                folder,
                100_000,
                everything=True,
                more=_SETTINGS,
                vm_memory=str(_STEP - _OVERHEAD),
                overhead=str(_OVERHEAD),
            )
            try:
                await _registered(kubelet)
                seen, changed = await _plug(scale.count(40, 8), folder, machine, kubelet)
            except TimeoutError as error:
                raise RuntimeError(f"{error}:\n{child.last_words()}") from error
            finally:
                await child.stop()
    finally:
        machine.close()
    return [
        _row("seen", "the account has it", seen, _SEEN_SECONDS),
        _row("devices", "fewer devices at kubelet", changed, _DEVICES_SECONDS),
    ]


async def _registered(kubelet: StampedKubelet) -> None:
    await kubelet.log.wait(lambda: kubelet.counts().allocatable > 0, TIMEOUT_SECONDS, "devices")


async def _plug(
    count: int, folder: Path, machine: Machine, kubelet: StampedKubelet
) -> tuple[list[float], list[float]]:
    seen: list[float] = []
    changed: list[float] = []
    vm: RunningVm | None = None
    async with grpc.aio.insecure_channel(unix_target(folder / "run" / "agent.sock")) as channel:
        stub: Any = agent_pb2_grpc.NodeAgentStub(channel)
        for number in range(count):
            if vm is None or number % _DIMMS_A_VM == 0:
                if vm is not None:
                    await asyncio.to_thread(machine.kill, vm)
                vm = await _start(machine, stub)
            await asyncio.sleep(random.uniform(0, _JITTER_SECONDS))
            devices, size = kubelet.counts().allocatable, await _size(stub, vm)
            begin = time.monotonic()
            await asyncio.to_thread(vm.hotplug, f"mem{number}", _STEP, "ram")
            watch = asyncio.create_task(_until_larger(stub, vm, size))
            await kubelet.log.wait(
                lambda devices=devices: kubelet.counts().allocatable < devices,  # type: ignore[misc]
                TIMEOUT_SECONDS,
                "fewer devices",
            )
            changed.append(time.monotonic() - begin)
            seen.append(await watch - begin)
    return seen, changed


async def _start(machine: Machine, stub: Any) -> RunningVm:
    most = 1024 + _DIMMS_A_VM * _STEP // MIB
    vm = await asyncio.to_thread(
        machine.start, memory=f"512M,slots={_DIMMS_A_VM + 4},maxmem={most}M", more=["-S"]
    )
    await asyncio.to_thread(wait_for, (vm.folder / "qmp.sock").exists, "no QEMU", TIMEOUT_SECONDS)
    await _until_larger(stub, vm, 0)
    return vm


async def _size(stub: Any, vm: RunningVm) -> int:
    listed = await stub.ListAdmissions(pb.ListAdmissionsRequest())
    return next((one.vm_bytes for one in listed.admissions if one.sandbox == vm.id), 0)


async def _until_larger(stub: Any, vm: RunningVm, size: int) -> float:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while await _size(stub, vm) <= size:
            await asyncio.sleep(0.01)
    return time.monotonic()


def _row(name: str, until: str, seconds: list[float], figure: float) -> Row:
    found = Samples.of(seconds)
    return Row(
        id=f"hotplug-{name}",
        what=f"hotplug by QMP → {until}",
        measured=spread(found, "s"),
        beside="QEMU's own answer is in it",
        ratio=None,
        figure=f"≤ {figure:.0f} s",
        reached=found.p99 <= figure,
        values={"seconds": found.to_json()},
    )


def _cannot(name: str, why: str) -> Row:
    return Row(f"hotplug-{name}", "hotplug by QMP", "–", why, None, "–", None)
