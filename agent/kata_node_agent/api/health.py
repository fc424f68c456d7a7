"""grpc.health.v1, answered from the state of this moment rather than from what was last set.

Messages and registration are grpcio-health-checking's. Its servicer is not used: it has no List, and it writes to a
watcher while holding the lock that setting a status needs, so that one client that does not read would stop the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

# A status that depends on time (the last own probe) changes without an event.
_WATCH_INTERVAL_SECONDS = 1.0
Context = grpc.aio.ServicerContext[Any, Any]


class HealthService:
    """Check, Watch and List over a function that says for each service whether it serves."""

    def __init__(self, serving: Callable[[], Mapping[str, bool]]) -> None:
        self._serving = serving
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends every Watch, so that the server need not cut them off."""
        self._closing.set()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse | None:
        serving = self._serving().get(service)
        return None if serving is None else _response(serving)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """One service; NOT_FOUND for a name that we do not have."""
        status = self._status(request.service)
        if status is None:
            await _not_found(context, request.service, self._serving())
        return status

    async def List(
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        """All services."""
        return health_pb2.HealthListResponse(
            statuses={name: _response(serving) for name, serving in self._serving().items()}
        )

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and at each change; SERVICE_UNKNOWN for a name that we do not have, as the protocol wants."""
        last: health_pb2.HealthCheckResponse | None = None
        while not self._closing.is_set():
            status = self._status(request.service) or health_pb2.HealthCheckResponse(
                status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            )
            if status != last:
                yield status
                last = status
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_INTERVAL_SECONDS):
                    await self._closing.wait()


def _response(serving: bool) -> health_pb2.HealthCheckResponse:
    answer = health_pb2.HealthCheckResponse
    return answer(status=answer.SERVING if serving else answer.NOT_SERVING)


async def _not_found(context: Context, service: str, known: Mapping[str, bool]) -> NoReturn:
    names = ", ".join(repr(name) for name in known)
    await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:64]!r}; there are {names}")
    raise AssertionError("abort always raises")
