"""Keeps the history that advice is made of: a sample a minute, into a file of fixed size in `state_dir`."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.errors import AgentError, HostError, describe_os_error
from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.overhead import OverheadHistory
    from kata_node_agent.series import Series

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 60.0
# The start belongs to registration.
_FIRST_AFTER_SECONDS = 5.0


class Recorder:
    """Writes one sample a minute.

    Attributes:
        problem: why the history is not kept; ``None`` while it is.
    """

    def __init__(
        self, config: Callable[[], Config], node: NodeWatch, overhead: OverheadHistory | None = None
    ) -> None:
        self._config = config
        self._node = node
        self._overhead = overhead
        self._series: Series | None = None
        self.problem: Problem | None = None

    async def run(self) -> None:
        """Records until cancelled."""
        await asyncio.sleep(_FIRST_AFTER_SECONDS)
        while True:
            before = self.problem
            try:
                await in_thread(self.record)
            except AgentError as error:
                remedy = f"{error.hint}; advice will be made of less than what was" if error.hint else ""
                self.problem = Problem("HistoryNotKept", error.message, remedy)
            else:
                self.problem = None
            if self.problem is not None and self.problem != before:
                log.warning("history not kept", extra={"why": self.problem.message})
            await asyncio.sleep(INTERVAL_SECONDS)

    def record(self) -> None:
        """One sample, now. Blocking.

        Raises:
            AgentError: the node cannot be read, or the history not be written.
        """
        from kata_node_agent.report.history import FIGURES, HISTORY_NAME, sample
        from kata_node_agent.series import Series

        config, view = self._config(), self._node.view
        try:
            config.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            hint = "make the folder, or name another in state_dir"
            raise HostError(f"{config.state_dir}: {describe_os_error(error)}", hint=hint) from error
        if self._series is None:
            self._series = Series(config.state_dir / HISTORY_NAME, FIGURES)
        known = view.kubelet if view is not None else None
        self._series.add(time.time(), sample(HostRoot(config.host_root), config.kubelet, known))
        if self._overhead is not None:
            self._overhead.record()
