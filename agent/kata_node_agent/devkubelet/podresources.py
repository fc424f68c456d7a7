"""The pod resources API, v1: List and GetAllocatableResources, which is what the project's client reads.

Shows pods that have not failed, those without devices too, and every healthy device, as the real one does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kata_node_agent.pb import podresources_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from kata_node_agent.devkubelet.state import DeviceManager, Pod


class PodResources:
    """Answers v1.PodResourcesLister."""

    def __init__(
        self, devices: DeviceManager, active: Callable[[], tuple[Pod, ...]], empty_seconds: float
    ) -> None:
        self._devices = devices
        self._active = active
        self._empty_until = time.monotonic() + empty_seconds

    async def List(
        self,
        request: pb.ListPodResourcesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.ListPodResourcesResponse:
        """Serves v1.PodResourcesLister/List; just after a start it may say that there is nothing."""
        if time.monotonic() < self._empty_until:
            return pb.ListPodResourcesResponse()
        return pb.ListPodResourcesResponse(
            pod_resources=[
                pb.PodResources(name=pod.name, namespace=pod.namespace, containers=self._containers(pod))
                for pod in self._active()
            ]
        )

    async def GetAllocatableResources(
        self,
        request: pb.AllocatableResourcesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.AllocatableResourcesResponse:
        """Serves v1.PodResourcesLister/GetAllocatableResources: one entry a device, without NUMA nodes."""
        return pb.AllocatableResourcesResponse(
            devices=[
                pb.ContainerDevices(resource_name=resource, device_ids=[id_])
                for resource in self._devices.resources
                for id_ in self._devices.healthy(resource)
            ]
        )

    def _containers(self, pod: Pod) -> Iterator[pb.ContainerResources]:
        for container in pod.containers:
            yield pb.ContainerResources(
                name=container.name,
                devices=[
                    pb.ContainerDevices(resource_name=holding.resource, device_ids=holding.device_ids)
                    for holding in self._devices.held_by(pod.uid, container.name)
                ],
            )
