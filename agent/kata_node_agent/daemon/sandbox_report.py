"""The sandboxes that are followed, as a document with their risks. What it needs is loaded when somebody asks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.sandboxes import SandboxWatch
    from kata_node_agent.report.sandboxes import SandboxObserver


class SandboxReport:
    """Makes the document of what was last seen."""

    def __init__(self, config: Callable[[], Config], node: NodeWatch, watch: SandboxWatch) -> None:
        self._config = config
        self._node = node
        self._watch = watch
        # The API and a scrape may ask at the same time, each on a thread of its own.
        self._lock = threading.Lock()
        self._observer: SandboxObserver | None = None
        self._made_for: Config | None = None

    def read(self) -> dict[str, Any]:
        """What `sandboxes --format json` prints. Blocking.

        Raises:
            AgentError: the node cannot be read.
        """
        with self._lock:
            config, view = self._config(), self._node.view
            if self._observer is None or config != self._made_for:
                from kata_node_agent.report.sandboxes import SandboxObserver

                known = view.kubelet if view is not None else None
                self._observer = SandboxObserver(HostRoot(config.host_root), config, known)
                self._made_for = config
            return self._observer.view(self._watch.sandboxes, self._watch.unbelieved).document()

    async def document(self) -> dict[str, Any]:
        """The same, off the event loop.

        Raises:
            AgentError: the node cannot be read.
        """
        return await in_thread(self.read)

    def changes(self) -> AsyncIterator[None]:
        """Goes on at once, and after each sweep that found something new."""
        return self._watch.changes()


def sandbox_report(
    config: Callable[[], Config], node: NodeWatch, watch: SandboxWatch
) -> SandboxReport | None:
    """The report of what is followed; ``None`` where nothing is."""
    return SandboxReport(config, node, watch) if watch.follows else None
