"""Who answers which path over HTTP. The status is asked of the event loop, which owns it, from a connection's thread."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.sandbox_report import SandboxReport
    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.http import Answer, Request, Route

T = TypeVar("T")
_TIMEOUT_SECONDS = 2.0


def http_routes(
    config: Callable[[], Config],
    status: Callable[[], agent_pb2.Status],
    node: NodeWatch,
    keeper: AccountKeeper,
    document: Callable[[], Mapping[str, Any]],
    sandboxes: SandboxReport | None,
) -> Callable[[], Mapping[str, Route]]:
    """What gives the table: path → who answers. What a path needs is loaded when somebody asks for it first.

    Args:
        config: gives the configuration in force.
        status: of the agent; called on the event loop.
        node: the node's view; the same.
        keeper: of the account; the same.
        document: of `report`; blocking, raises AgentError.
        sandboxes: those that are followed; ``None`` where none are.
    """
    read = sandboxes.read if sandboxes is not None else None

    def table() -> Mapping[str, Route]:
        return {"/metrics": metrics} | ({"/": page} if config().metrics.page else {})

    def metrics(request: Request) -> Answer:
        return metrics_page()(request)

    def page(request: Request) -> Answer:
        return whole_page()(request)

    @cache
    def metrics_page() -> Route:
        from kata_node_agent.publish.metrics import MetricsPage, StatusCollector

        return MetricsPage(
            StatusCollector(lambda: on_loop(status), document, read, lambda: config().metrics.each_sandbox)
        )

    @cache
    def whole_page() -> Route:
        from kata_node_agent.daemon.page import Page

        return Page(on_loop, status, node, keeper, document, read)

    def on_loop(function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), loop).result(_TIMEOUT_SECONDS)

    loop = asyncio.get_running_loop()
    return table
