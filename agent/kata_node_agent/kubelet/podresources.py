"""Asks kubelet's pod resources API which of our devices pods hold. Kubelet may be away, slow, or limit our rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.devices import indices_of
from kata_node_agent.pb import podresources_pb2, podresources_pb2_grpc
from kata_node_agent.sockets import FRESH_CONNECTION, unix_target

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_SECONDS = 2.0
# A node of 500 pods with many devices; kubelet itself sends no more than this.
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


async def held_devices(socket: Path, resource: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> set[int]:
    """The indices of our devices that kubelet names for some pod.

    Raises:
        HostError: no answer; the message has kubelet's words.
    """
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), *FRESH_CONNECTION]
    async with grpc.aio.insecure_channel(unix_target(socket), options=options) as channel:
        stub = podresources_pb2_grpc.PodResourcesListerStub(channel)
        try:
            answer = await stub.List(podresources_pb2.ListPodResourcesRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise HostError(
                f"{socket}: {error.code().name}: {error.details()}", reason="PodResourcesUnavailable"
            ) from error
    if answer is None:
        # What grpc.aio gives for an answer that it cannot parse.
        raise HostError(
            f"{socket}: the answer is no ListPodResourcesResponse", reason="PodResourcesUnavailable"
        )
    return indices_of(
        [
            name
            for pod in answer.pod_resources
            for container in pod.containers
            for devices in container.devices
            if devices.resource_name == resource
            for name in devices.device_ids
        ]
    )
