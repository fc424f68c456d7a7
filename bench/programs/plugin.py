"""The least that a device plugin in Python can be: serves, registers, answers Allocate with nothing.

python plugin.py FOLDER DEVICES POLL_SECONDS; with 0 it registers once and does not look for another kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import grpc

from kata_node_agent.pb import deviceplugin_pb2 as pb
from kata_node_agent.pb import deviceplugin_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_glue: Any = deviceplugin_pb2_grpc  # generated, without types
_FOLDER, _DEVICES, _POLL_SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])


class Plugin:
    """The calls that kubelet makes."""

    async def GetDevicePluginOptions(self, request: pb.Empty, context: object) -> pb.DevicePluginOptions:  # noqa: N802
        """None."""
        return pb.DevicePluginOptions()

    async def ListAndWatch(self, _: pb.Empty, context: object) -> AsyncIterator[pb.ListAndWatchResponse]:  # noqa: N802
        """The same list for ever."""
        yield pb.ListAndWatchResponse(
            devices=[pb.Device(ID=f"kata-{index:06d}", health="Healthy") for index in range(_DEVICES)]
        )
        await asyncio.Event().wait()

    async def Allocate(self, request: pb.AllocateRequest, context: object) -> pb.AllocateResponse:  # noqa: N802
        """Nothing."""
        return pb.AllocateResponse()

    GetPreferredAllocation = PreStartContainer = Allocate


def _look() -> tuple[int, int] | None:
    try:
        status = os.stat(f"{_FOLDER}/kubelet.sock")
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


async def _serve(number: int) -> grpc.aio.Server:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    _glue.add_DevicePluginServicer_to_server(Plugin(), server)
    server.add_insecure_port(f"unix:{_FOLDER}/bare-{number}.sock")
    await server.start()
    return server


async def _register(number: int) -> None:
    async with grpc.aio.insecure_channel(f"unix:{_FOLDER}/kubelet.sock") as channel:
        request = pb.RegisterRequest(
            version="v1beta1", endpoint=f"bare-{number}.sock", resource_name="katacontainers.io/sandbox"
        )
        await _glue.RegistrationStub(channel).Register(request)


async def _main() -> None:
    number, known = 0, None
    server: grpc.aio.Server | None = None
    while True:
        seen = _look()
        if seen is not None and seen != known:
            number, old = number + 1, server
            # Refused where we came between bind(2) and listen(2) of kubelet: then again.
            with contextlib.suppress(grpc.aio.AioRpcError):
                server = await _serve(number)
                await _register(number)
                known = seen
            if old is not None:
                await old.stop(0)
        await (asyncio.sleep(_POLL_SECONDS) if _POLL_SECONDS else asyncio.Event().wait())


if __name__ == "__main__":
    asyncio.run(_main())
