"""Who answers which path over HTTP. The status is asked of the event loop, which owns it, from a connection's thread."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.sandbox_report import SandboxReport
    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.http import Route

_TIMEOUT_SECONDS = 2.0


def http_routes(
    config: Callable[[], Config],
    status: Callable[[], agent_pb2.Status],
    document: Callable[[], Mapping[str, Any]],
    sandboxes: SandboxReport | None,
) -> Callable[[], Mapping[str, Route]]:
    """What gives the table: path → who answers. The table is made, and what it needs is loaded, when somebody asks first.

    Args:
        config: gives the configuration in force.
        status: of the agent; called on the event loop.
        document: of `report`; blocking, raises AgentError.
        sandboxes: those that are followed; ``None`` where none are.
    """

    @cache
    def table() -> Mapping[str, Route]:
        from kata_node_agent.publish.metrics import MetricsPage, StatusCollector

        read = sandboxes.read if sandboxes is not None else None
        collector = StatusCollector(ask, document, read, lambda: config().metrics.each_sandbox)
        return {"/metrics": MetricsPage(collector)}

    async def on_loop() -> agent_pb2.Status:
        return status()

    def ask() -> agent_pb2.Status:
        return asyncio.run_coroutine_threadsafe(on_loop(), loop).result(_TIMEOUT_SECONDS)

    loop = asyncio.get_running_loop()
    return table
