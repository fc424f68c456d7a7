"""Asks kubelet's pod resources API about our devices. Kubelet may be away, slow, or limit our rate."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.devices import indices_of
from kata_node_agent.pb import podresources_pb2, podresources_pb2_grpc
from kata_node_agent.sockets import FRESH_CONNECTION, unix_target
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_TIMEOUT_SECONDS = 2.0
# A node of 500 pods with many devices; kubelet itself sends no more than this.
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


async def held_devices(
    socket: Path, resource: str, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> dict[int, str]:
    """The indices of our devices that kubelet names for some pod, and that pod's ``namespace/name``.

    Raises:
        HostError: no answer; the message has kubelet's words.
    """
    async with _asking(socket) as stub:
        request = podresources_pb2.ListPodResourcesRequest()
        answer = await stub.List(request, timeout=timeout_seconds)
        _check(socket, answer)
    return {
        index: printable(f"{pod.namespace}/{pod.name}")
        for pod in answer.pod_resources
        for container in pod.containers
        for devices in container.devices
        if devices.resource_name == resource
        for index in indices_of(devices.device_ids)
    }


async def allocatable_devices(
    socket: Path, resource: str, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> frozenset[str]:
    """The ids that kubelet would allocate for a resource, whoever's they are; those that pods hold are among them.

    Raises:
        HostError: no answer, also where kubelet has no such call; the message has kubelet's words.
    """
    async with _asking(socket) as stub:
        request = podresources_pb2.AllocatableResourcesRequest()
        answer = await stub.GetAllocatableResources(request, timeout=timeout_seconds)
        _check(socket, answer)
    return frozenset(
        name for devices in answer.devices if devices.resource_name == resource for name in devices.device_ids
    )


@asynccontextmanager
async def _asking(socket: Path) -> AsyncIterator[Any]:
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), *FRESH_CONNECTION]
    async with grpc.aio.insecure_channel(unix_target(socket), options=options) as channel:
        try:
            yield podresources_pb2_grpc.PodResourcesListerStub(channel)
        except grpc.aio.AioRpcError as error:
            raise HostError(
                f"{socket}: {error.code().name}: {error.details()}", reason="PodResourcesUnavailable"
            ) from error


def _check(socket: Path, answer: object) -> None:
    if answer is None:
        # What grpc.aio gives for an answer that it cannot parse.
        raise HostError(f"{socket}: the answer cannot be read", reason="PodResourcesUnavailable")
