"""Pods: admission as kubelet does it, one at a time, and what happens to them over a restart.

The order is kubelet's: devices first, container by container (so an allocation is not yet a running pod),
then the node's resources as a whole, overhead included. A refused pod stays, as Failed, until it is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.devkubelet import events, texts
from kata_node_agent.devkubelet.state import Container, Holding, Pod, choose
from kata_node_agent.devkubelet.texts import KubeletRefusalError
from kata_node_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.devkubelet.events import EventLog
    from kata_node_agent.devkubelet.registration import Registration
    from kata_node_agent.devkubelet.state import DeviceManager

REFUSED_BY_PLUGIN = "UnexpectedAdmissionError"


class PodError(AgentError):
    """What was asked about a pod makes no sense."""

    reason = "PodInvalid"


class Pods:
    """The pods of one life of kubelet."""

    def __init__(
        self,
        devices: DeviceManager,
        registration: Registration,
        log: EventLog,
        pods: tuple[Pod, ...],
        *,
        pre_start_retry_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        self._devices = devices
        self._registration = registration
        self._log = log
        self._pods = {pod.full_name: pod for pod in pods}
        self._pre_start_retry_seconds = pre_start_retry_seconds
        self._on_change = on_change
        # Kubelet admits one pod after the other; Allocate has no deadline: a slow plugin holds up the next.
        self._admission = asyncio.Lock()
        self._starting: dict[str, asyncio.Task[None]] = {}

    @property
    def all(self) -> tuple[Pod, ...]:
        """All pods, failed ones too, in the order they came."""
        return tuple(self._pods.values())

    @property
    def active(self) -> tuple[Pod, ...]:
        """Pods that have not failed."""
        return tuple(pod for pod in self._pods.values() if pod.phase != "Failed")

    async def admit(
        self, namespace: str, name: str, containers: Mapping[str, int], *, resource: str, overhead: int = 0
    ) -> Pod:
        """Admits a pod, or lets it fail; the pod's phase, reason and message say which.

        Raises:
            PodError: a pod of that name is here, or the numbers make no sense.
        """
        if not containers or overhead < 0 or any(count < 0 for count in containers.values()):
            raise PodError(f"pod {namespace}/{name}: needs at least one container, and no negative number")
        if "/" in namespace + name:
            raise PodError(f"pod {namespace}/{name}: neither namespace nor name may have a slash")
        pod = Pod(
            namespace,
            name,
            str(uuid.uuid4()),
            resource,
            tuple(Container(*item) for item in containers.items()),
            overhead,
            phase="Pending",
        )
        async with self._admission:
            if pod.full_name in self._pods:
                raise PodError(
                    f"pod {pod.full_name} is already here",
                    reason="PodExists",
                    hint=f"delete it first: kata-node-agent devkubelet delete {name} "
                    f"--namespace {namespace}, with the same --dir",
                )
            self._pods[pod.full_name] = pod
            try:
                await self._allocate(pod)
            except KubeletRefusalError as error:
                return self._fail(pod, REFUSED_BY_PLUGIN, texts.allocate_failed(str(error)))
            except BaseException:
                # Kubelet dies in the middle: it never knew the pod.
                del self._pods[pod.full_name]
                self._devices.release(pod.uid)
                raise
            if refusal := self._misfit(pod):
                return self._fail(pod, f"OutOf{resource}", refusal)
            return await self._start(pod)

    def delete(self, namespace: str, name: str) -> Pod:
        """Forgets a pod; its devices are free.

        Raises:
            PodError: there is no such pod.
        """
        pod = self._pods.pop(f"{namespace}/{name}", None)
        if pod is None:
            raise PodError(
                f"pod {namespace}/{name} is not here",
                reason="PodNotFound",
                hint="kata-node-agent devkubelet pods shows those that are, with the same --dir",
            )
        if task := self._starting.pop(pod.full_name, None):
            task.cancel()
        released = self._devices.release(pod.uid)
        self._log.record(events.PodDeleted(pod.full_name, _ids(released)))
        self._on_change()
        return pod

    def device_ids(self, pod: Pod) -> tuple[str, ...]:
        """What all containers of a pod hold."""
        return _ids(self._devices.held_by(pod.uid))

    def readmit(self) -> None:
        """What a restarted kubelet does with the pods that run.

        Containers that hold devices go on: nothing is allocated again. A pod that counts the resource as
        overhead must fit into what the node shows at this moment, or it is killed.
        """
        for pod in self.active:
            if pod.overhead and (refusal := self._misfit(pod)):
                self._fail(pod, f"OutOf{pod.resource}", refusal)

    async def close(self) -> None:
        """Stops retrying to start containers."""
        tasks = list(self._starting.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _allocate(self, pod: Pod) -> None:
        for container in pod.containers:
            if not container.count:
                continue
            available = self._devices.available(pod.resource, container.count)
            plugin = self._registration.endpoint(pod.resource)
            preferred = await plugin.preferred(available, container.count)
            ids = choose(available, preferred, container.count)
            await plugin.allocate(ids)
            self._devices.hold(Holding(pod.uid, container.name, pod.resource, ids))

    def _misfit(self, pod: Pod) -> str:
        """Why the node as a whole has no room for a pod; empty when it has."""
        counts = self._devices.counts(pod.resource)
        capacity = counts.allocatable
        if self._devices.held_by(pod.uid):
            # For a pod with devices, what is allocated counts as there, healthy or not.
            capacity = max(capacity, counts.in_use)
        used = sum(
            other.requested
            for other in self.active
            if other.resource == pod.resource and other.uid != pod.uid
        )
        if pod.requested and pod.requested > capacity - used:
            return texts.out_of(pod.resource, pod.requested, used, capacity)
        return ""

    def _fail(self, pod: Pod, reason: str, message: str) -> Pod:
        self._devices.release(pod.uid)
        failed = replace(pod, phase="Failed", reason=reason, message=message)
        self._pods[pod.full_name] = failed
        self._log.record(events.PodRefused(pod.full_name, reason, message))
        self._on_change()
        return failed

    async def _start(self, pod: Pod) -> Pod:
        """Creates the containers; one that cannot be created yet is tried again later."""
        if not await self._pre_start(pod):
            self._starting[pod.full_name] = asyncio.create_task(
                self._retry_start(pod), name=f"start {pod.full_name}"
            )
        return self._pods[pod.full_name]

    async def _retry_start(self, pod: Pod) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(self._pre_start_retry_seconds)
                if await self._pre_start(pod):
                    self._starting.pop(pod.full_name, None)
                    return

    async def _pre_start(self, pod: Pod) -> bool:
        try:
            for holding in self._devices.held_by(pod.uid):
                await self._registration.endpoint(pod.resource).pre_start(holding.device_ids)
        except KubeletRefusalError as error:
            reason = "CreateContainerConfigError"
            self._pods[pod.full_name] = replace(pod, reason=reason, message=str(error))
            self._log.record(events.PodWaits(pod.full_name, reason, str(error)))
            started = False
        else:
            self._pods[pod.full_name] = replace(pod, phase="Running")
            self._log.record(events.PodAdmitted(pod.full_name, self.device_ids(pod)))
            started = True
        self._on_change()
        return started


def _ids(holdings: list[Holding]) -> tuple[str, ...]:
    return tuple(id_ for holding in holdings for id_ in holding.device_ids)
