"""Keeps for each handler what its sandboxes cost beside their limits, over time. Without sandboxes nothing is loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kata_node_agent.host.root import HostRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.report.overhead import OverheadSampler
    from kata_node_agent.report.sandboxes import SandboxObserver
    from kata_node_agent.sandboxes.model import Sandbox
    from kata_node_agent.series import Series


class OverheadHistory:
    """Writes one sample of each handler when it is told to. Not for several threads at once."""

    def __init__(self, config: Callable[[], Config], sandboxes: Callable[[], tuple[Sandbox, ...]]) -> None:
        """Touches nothing.

        Args:
            config: ours.
            sandboxes: as somebody else has last seen them.
        """
        self._config = config
        self._sandboxes = sandboxes
        self._made_for: Config | None = None
        self._observer: SandboxObserver | None = None
        self._sampler: OverheadSampler | None = None
        self._series: dict[str, Series] = {}

    def record(self) -> None:
        """One sample, now. Blocking. The folder must be there.

        Raises:
            HostError: a history cannot be written.
        """
        sandboxes = self._sandboxes()
        if not sandboxes:
            return
        from kata_node_agent.report.overhead import FIGURES, OverheadSampler, history_name
        from kata_node_agent.report.sandboxes import SandboxObserver
        from kata_node_agent.series import Series

        config = self._config()
        if self._observer is None or self._sampler is None or config != self._made_for:
            root = HostRoot(config.host_root)
            self._observer, self._sampler = SandboxObserver(root, config), OverheadSampler(root)
            self._made_for, self._series = config, {}
        figures = self._sampler.sample(self._observer.view(sandboxes), time.monotonic())
        for handler, values in figures.items():
            if (name := history_name(handler)) is None:
                continue
            if handler not in self._series:
                self._series[handler] = Series(config.state_dir / name, FIGURES)
            self._series[handler].add(time.time(), values)
