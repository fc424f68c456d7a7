"""The node's report when somebody asks the daemon for it. What it needs is loaded then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.pb import agent_pb2


class NodeReport:
    """The report of the node that the daemon looks after."""

    def __init__(self, config: Callable[[], Config], node: NodeWatch) -> None:
        self._config = config
        self._node = node
        self._runtimes: list[int] = []

    def document(self) -> dict[str, Any]:
        """What `report --format json` prints. Blocking.

        Raises:
            AgentError: the node cannot be read.
        """
        from kata_node_agent.report.collect import collect_report

        config, view = self._config(), self._node.view
        known = view.kubelet if view is not None else None
        return collect_report(HostRoot(config.host_root), config, known, self._find_runtimes).to_json()

    def _find_runtimes(self, root: HostRoot) -> list[int]:
        """As they were found the last time: a search for them is a fifth of what a scrape costs."""
        from kata_node_agent.report.use import find_runtimes

        self._runtimes = find_runtimes(root, self._runtimes)
        return self._runtimes

    async def message(self) -> agent_pb2.Node:
        """The same as a message, read off the event loop.

        Raises:
            AgentError: the node cannot be read.
        """

        def read() -> agent_pb2.Node:
            from kata_node_agent.api.node import as_node

            return as_node(self.document())

        return await in_thread(read)
