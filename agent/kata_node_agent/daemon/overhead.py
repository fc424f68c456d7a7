"""Keeps for each handler what its sandboxes cost beside their limits, over time. Without sandboxes nothing is loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.report.overhead import OverheadSampler
    from kata_node_agent.report.sandboxes import Overview
    from kata_node_agent.series import Series


class Seen(Protocol):
    """The sandboxes as somebody else follows them."""

    @property
    def any(self) -> bool:
        """Whether there is one."""

    def overview(self) -> Overview:
        """All of them. Blocking; raises AgentError."""


class OverheadHistory:
    """Writes one sample of each handler when it is told to. Not for several threads at once."""

    def __init__(self, config: Callable[[], Config], seen: Seen | None) -> None:
        """Touches nothing.

        Args:
            config: ours.
            seen: the sandboxes; ``None`` where nothing is followed.
        """
        self._config = config
        self._seen = seen
        self._made_for: Config | None = None
        self._sampler: OverheadSampler | None = None
        self._series: dict[str, Series] = {}

    def record(self) -> None:
        """One sample, now. Blocking. The folder must be there.

        Raises:
            AgentError: the node cannot be read, or a history not be written.
        """
        if self._seen is None or not self._seen.any:
            return
        from kata_node_agent.report.overhead import FIGURES, OverheadSampler, history_name
        from kata_node_agent.series import Series

        config = self._config()
        if self._sampler is None or config != self._made_for:
            self._sampler = OverheadSampler(HostRoot(config.host_root))
            self._made_for, self._series = config, {}
        figures = self._sampler.sample(self._seen.overview(), time.monotonic())
        for handler, values in figures.items():
            if (name := history_name(handler)) is None:
                continue
            if handler not in self._series:
                self._series[handler] = Series(config.state_dir / name, FIGURES)
            self._series[handler].add(time.time(), values)
