"""grpc.health.v1, answered from the state of this moment rather than from what was last set.

Messages and registration are grpcio-health-checking's. Its servicer is not used: it has no List, and it writes to a
watcher while holding the lock that setting a status needs, so that one client that does not read would stop the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2

# A status that depends on time (the last own probe) changes without an event.
_WATCH_INTERVAL_SECONDS = 1.0
_Response = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]


class HealthService:
    """Check, Watch and List over a function that says for each service whether it serves."""

    def __init__(self, serving: Callable[[], Mapping[str, bool]]) -> None:
        self._serving = serving

    def _status(self, service: str) -> _Response | None:
        serving = self._serving().get(service)
        if serving is None:
            return None
        return _Response(status=_Response.SERVING if serving else _Response.NOT_SERVING)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> _Response:  # noqa: N802
        """One service; NOT_FOUND for a name that we do not have."""
        status = self._status(request.service)
        if status is None:
            await _not_found(context, request.service, self._serving())
        return status

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:  # noqa: N802
        """All services."""
        return health_pb2.HealthListResponse(statuses={name: self._status(name) for name in self._serving()})

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[_Response]:  # noqa: N802
        """The status now and at each change; SERVICE_UNKNOWN for a name that we do not have, as the protocol wants."""
        last: _Response | None = None
        while True:
            status = self._status(request.service) or _Response(status=_Response.SERVICE_UNKNOWN)
            if status != last:
                yield status
                last = status
            await asyncio.sleep(_WATCH_INTERVAL_SECONDS)


async def _not_found(context: Context, service: str, known: Mapping[str, bool]) -> NoReturn:
    names = ", ".join(repr(name) for name in known)
    await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:64]!r}; there are {names}")
    raise AssertionError("abort always raises")
