"""The DevicePlugin service (v1beta1) as kubelet calls it. Kubelet shows our words to the pod's owner: worth reading."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from kata_node_agent.capacity.devices import device_index
from kata_node_agent.config.schema import Mode
from kata_node_agent.pb import deviceplugin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from kata_node_agent.kubelet.devices import DeviceTable, Holdings
    from kata_node_agent.ledger.gate import Decision

    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

_SHOWN = 64
_END_SECONDS = 0.5


class _RefusedError(Exception):
    """Why a call is refused: a gRPC status and a line for people; whether a look at the VMs may change it."""

    def __init__(self, code: grpc.StatusCode, text: str, *, stale: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.stale = stale


def _shown(name: str) -> str:
    """A foreign text, safe and short enough for a message and the log."""
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "…")


class DevicePluginService:
    """Answers kubelet from the device table.

    One instance serves one listener, so that the streams it counts are those of the kubelet that this listener was
    registered with.
    """

    def __init__(
        self,
        table: DeviceTable,
        holdings: Holdings,
        mode: Callable[[], Mode],
        on_allocated: Callable[[], None],
        admit: Callable[[Collection[int]], Decision] | None = None,
        look_again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """See the class.

        Args:
            table: what is shown to kubelet.
            holdings: is told what is allocated.
            mode: in force.
            on_allocated: called after each allocation.
            admit: asked before it: health that changes under way cannot prevent every allocation that does not fit.
            look_again: which VMs run, before a pod fails for good for a VM that has just ended.
        """
        self._admit = admit
        self._look_again = look_again
        self._table = table
        self._holdings = holdings
        self._mode = mode
        self._on_allocated = on_allocated
        self._closing = asyncio.Event()
        self.streams = 0
        self.had_stream = False
        self.streams_changed = asyncio.Event()

    def close(self) -> None:
        """Ends every ListAndWatch stream, as a plugin that stops in good order does."""
        self._closing.set()

    async def end_streams(self) -> None:
        """Ends every stream and waits for that, but not for a peer that does not read."""
        self.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                while self.streams:
                    await self.streams_changed.wait()

    async def GetDevicePluginOptions(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:
        """We offer preferred allocation, and need no PreStartContainer."""
        return pb.DevicePluginOptions(get_preferred_allocation_available=True)

    async def ListAndWatch(
        self, request: pb.Empty, context: Context
    ) -> AsyncIterator[pb.ListAndWatchResponse]:
        """The whole list at once, then the whole list at every change."""
        self._count_stream(+1)
        closing = asyncio.create_task(self._closing.wait())
        changed: asyncio.Task[int] | None = None
        try:
            while not self._closing.is_set():
                generation = self._table.generation
                yield self._table.message()
                changed = asyncio.create_task(self._table.wait_beyond(generation))
                await asyncio.wait({changed, closing}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            # Also when kubelet drops the stream while we wait: an idle table would never end the task.
            closing.cancel()
            if changed is not None:
                changed.cancel()
            self._count_stream(-1)

    def _count_stream(self, by: int) -> None:
        self.streams += by
        self.had_stream = True
        self.streams_changed.set()
        self.streams_changed = asyncio.Event()

    async def Allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        """All or nothing: one answer for every container, or a refusal that says which id and why."""
        containers = [list(part.devices_ids) for part in request.container_requests]
        try:
            try:
                indices = self._check_allocation(containers)
            except _RefusedError as refusal:
                if not refusal.stale or self._look_again is None:
                    raise
                await self._look_again()
                indices = self._check_allocation(containers)
        except _RefusedError as refusal:
            log.warning("refused an allocation", extra={"code": refusal.code.name, "why": refusal.text})
            await _abort(context, refusal)
        self._holdings.allocated(indices, time.monotonic())
        self._on_allocated()
        return pb.AllocateResponse(
            container_responses=[pb.ContainerAllocateResponse() for _ in request.container_requests]
        )

    def _check_allocation(self, containers: Sequence[Sequence[str]]) -> set[int]:
        """The indices asked for.

        Raises:
            _RefusedError: no, unknown, repeated or unhealthy ids.
        """
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        if not containers:
            raise _RefusedError(invalid, "no container in the request")
        indices: set[int] = set()
        for names in containers:
            if not names:
                raise _RefusedError(invalid, "no device ids for a container")
            for name in names:
                index = device_index(name)
                if index is None or index not in self._table.listed:
                    raise _RefusedError(grpc.StatusCode.NOT_FOUND, f"unknown device {_shown(name)}")
                if index in indices:
                    raise _RefusedError(invalid, f"device {name} is asked for twice")
                indices.add(index)
        if not indices <= self._table.healthy:
            text = f"no room for another Kata VM on this node: {self._table.plan.limit.message}"
            if self._mode() is Mode.ENFORCE:
                raise _RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            if self._mode() is Mode.WARN:
                log.warning("would refuse an allocation", extra={"why": text})
        if self._admit is not None and not (decision := self._admit(indices)).allowed:
            # Kubelet gives devices of a pod to the next one as soon as that has ended, and may be quicker than our look.
            stale = bool(self._holdings.among(indices))
            raise _RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, decision.message, stale=stale)
        if held := self._holdings.among(indices):
            # Some kubelets gave one id to several pods (kubernetes #137534); refusing would fail a pod for their fault.
            log.warning("kubelet allocated devices that are in use", extra={"devices": len(held)})
        return indices

    async def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        """The lowest numbers, so that what is in use stays together at the low end of the list."""
        try:
            chosen = [
                _prefer(part.available_deviceIDs, part.must_include_deviceIDs, part.allocation_size)
                for part in request.container_requests
            ]
        except _RefusedError as refusal:
            await _abort(context, refusal)
        return pb.PreferredAllocationResponse(
            container_responses=[pb.ContainerPreferredAllocationResponse(deviceIDs=names) for names in chosen]
        )

    async def PreStartContainer(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        """Nothing to prepare; kubelet does not call this, as our options say."""
        return pb.PreStartContainerResponse()


def _prefer(available: Sequence[str], must: Sequence[str], size: int) -> list[str]:
    """``size`` ids: all of ``must``, then the lowest of ``available``."""
    chosen = list(dict.fromkeys(must))
    others = sorted(set(available).difference(chosen))
    if size < len(chosen) or size > len(chosen) + len(others):
        text = f"cannot prefer {size} devices: {len(chosen)} must be included, {len(others)} others are available"
        raise _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
    return chosen + others[: size - len(chosen)]


async def _abort(context: Context, refusal: _RefusedError) -> NoReturn:
    await context.abort(refusal.code, refusal.text)
    raise AssertionError("abort always raises")
