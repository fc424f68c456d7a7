"""The sandboxes that are followed, with what they become and what threatens them: for the API, metrics and history alike.

What it needs is loaded when somebody asks.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kata_node_agent.capacity.free import Commitment
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.sandboxes import SandboxWatch
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings
    from kata_node_agent.report.sandboxes import Overview, SandboxObserver, SandboxView


class SandboxReport:
    """Says of what was last seen all that there is to say. The only one of the daemon, as it remembers what it has read."""

    def __init__(
        self,
        config: Callable[[], Config],
        node: NodeWatch,
        watch: SandboxWatch,
        commitment: Callable[[str], Commitment | None] = lambda _: None,
    ) -> None:
        """Reads nothing yet.

        Args:
            config: gives the configuration in force.
            node: the node's view.
            watch: follows the VMs.
            commitment: of a sandbox, as the account has it; ``None`` where it has none. Called on any thread.
        """
        self._config = config
        self._node = node
        self._watch = watch
        self._commitment = commitment
        # The API, a scrape and the history may ask at the same time, each on a thread of its own.
        self._lock = threading.Lock()
        self._observer: SandboxObserver | None = None
        self._made_for: tuple[Config, KubeletSettings | None] | None = None

    @property
    def any(self) -> bool:
        """Whether a VM runs; for nobody else anything is loaded."""
        return bool(self._watch.sandboxes)

    def overview(self) -> Overview:
        """All sandboxes as they were last seen. Blocking.

        Raises:
            AgentError: the node cannot be read.
        """
        with self._lock:
            config, view = self._config(), self._node.view
            known = view.kubelet if view is not None else None
            if self._observer is None or self._made_for != (config, known):
                from kata_node_agent.report.sandboxes import SandboxObserver

                self._observer = SandboxObserver(HostRoot(config.host_root), config, known)
                self._made_for = config, known
            seen = self._observer.view(self._watch.sandboxes, self._watch.unbelieved, self._watch.blind)
        return replace(seen, views=tuple(map(self._promised, seen.views)))

    def _promised(self, view: SandboxView) -> SandboxView:
        # Who was admitted for more than its VM comes to has that in the account.
        promised = self._commitment(view.sandbox.id)
        return view if promised is None else replace(view, commitment_bytes=promised.need.total_bytes)

    def read(self) -> dict[str, Any]:
        """What `sandboxes --format json` prints. Blocking.

        Raises:
            AgentError: the node cannot be read.
        """
        return self.overview().document()

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
    config: Callable[[], Config], node: NodeWatch, keeper: AccountKeeper
) -> SandboxReport | None:
    """The report of what is followed; ``None`` where nothing is."""
    watch, book = keeper.sandboxes, keeper.account.book
    return SandboxReport(config, node, watch, book.commitment) if watch.follows else None
