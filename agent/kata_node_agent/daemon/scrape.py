"""Metrics on their own thread, with the status asked of the event loop, which owns it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.sandbox_report import SandboxReport
    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.metrics import MetricsServer

_TIMEOUT_SECONDS = 2.0


def serve_metrics(
    config: Callable[[], Config],
    status: Callable[[], agent_pb2.Status],
    document: Callable[[], Mapping[str, Any]],
    sandboxes: SandboxReport | None,
) -> MetricsServer | None:
    """A listener where one is configured; the library is loaded only then.

    Raises:
        SocketError: it cannot listen there.
    """
    if not (address := config().metrics.tcp_address):
        return None
    from kata_node_agent.publish.metrics import MetricsServer

    loop = asyncio.get_running_loop()

    async def on_loop() -> agent_pb2.Status:
        return status()

    def ask() -> agent_pb2.Status:
        return asyncio.run_coroutine_threadsafe(on_loop(), loop).result(_TIMEOUT_SECONDS)

    read = sandboxes.read if sandboxes is not None else None
    return MetricsServer(address, ask, document, read, lambda: config().metrics.each_sandbox)
