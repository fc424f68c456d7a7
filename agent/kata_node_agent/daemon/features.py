"""Keeps the features file for NFD: says what is new at once, refreshes what is old, and lets lapse what nobody renews."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.daemon.waiting import wait_for_hint
from kata_node_agent.errors import AgentError
from kata_node_agent.host.root import HostRoot
from kata_node_agent.publish.nfd import FeatureFile, Outcome
from kata_node_agent.publish.nfd.text import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.alive import NodeWatch

log = logging.getLogger(__name__)


class FeaturePublisher:
    """Publishes the features of the view in force.

    Attributes:
        problem: why the file could not be written; ``None`` when all is well, or NFD is not installed.
    """

    def __init__(self, config: Callable[[], Config], node: NodeWatch) -> None:
        self._config = config
        self._node = node
        self._now = asyncio.Event()
        self.problem: Problem | None = None

    def publish_soon(self) -> None:
        """There may be something new to say."""
        self._now.set()

    async def run(self) -> None:
        """Publishes until cancelled. NFD's folder may come later; the file outlives us until its expiry."""
        while True:
            nfd, view = self._config().nfd, self._node.view
            # A view that nobody renews any more must lapse at NFD too.
            if nfd.publish and view is not None and self._node.fresh:
                file = FeatureFile(HostRoot(self._config().host_root).resolve(nfd.features_dir) / FILE_NAME)
                self._tell(await in_thread(_publish, file, view.features, nfd.expiry_seconds))
            await wait_for_hint(self._now, nfd.expiry_seconds / 6)

    def _tell(self, problem: Problem | None) -> None:
        if problem is not None and problem != self.problem:
            log.warning("features not published", extra={"why": problem.message, "remedy": problem.remedy})
        self.problem = problem


def _publish(file: FeatureFile, body: str, lifetime_seconds: int) -> Problem | None:
    try:
        outcome = file.publish(body, lifetime_seconds=lifetime_seconds)
    except AgentError as error:
        return Problem(error.reason, error.message, error.hint)
    if outcome is Outcome.WRITTEN:
        log.debug("features published", extra={"path": str(file.path)})
    return None
