"""Says in the log which problems come and go: those that `status` shows, one line each.

Most are said where they arise, with what led to them. Here is the rest, and the end of those whose end nobody else says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from kata_node_agent.daemon.harm import ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from kata_node_agent.daemon.node import Problem

log = logging.getLogger(__name__)

_EVERY_SECONDS = 15.0
# So long a problem has to be away: one that comes and goes is one problem.
OVER_AFTER_SECONDS = 60.0
# Begin and end are said where they arise. Checks are, too: with the verdict.
_SAID = frozenset(
    {
        "LoopStuck",
        "LedgerUnavailable",
        "MemoryPressure",
        "NotRegistered",
        "KubeletAbsent",
        "ResourceTaken",
        "NriNotConnected",
        "ReloadFailed",
        "RestartNeeded",
    }
)
# Their begin is.
_BEGIN_SAID = frozenset(
    {
        "MemoryUnreadable",
        "KubeletConfigurationInvalid",
        "KubeletWouldRefuse",
        "KubeletOverrides",
        "PodFixedTooLow",
        "SandboxesUnreadable",
        "CertificateUnusable",
        "SocketUnusable",
        "SocketPathTooLong",
        "AlreadyRunning",
        "FeatureFileUnusable",
        "HistoryNotKept",
    }
)


class ProblemLog:
    """Remembers which reasons it has seen, and when."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    async def follow(self, problems: Callable[[], Collection[Problem]]) -> None:
        """Looks at what is wrong again and again, until cancelled."""
        while True:
            self.see(problems(), time.monotonic())
            await asyncio.sleep(_EVERY_SECONDS)

    def see(self, problems: Collection[Problem], now: float) -> None:
        """What is wrong now.

        Args:
            problems: all of them.
            now: monotonic seconds.
        """
        for problem in problems:
            reason = problem.reason
            if reason in _SAID or reason not in ORDER:
                continue
            if reason not in self._seen and reason not in _BEGIN_SAID:
                extra = {"reason": reason, "what": problem.message, "remedy": problem.remedy}
                log.warning("problem", extra=extra)
            self._seen[reason] = now
        for reason, seen in list(self._seen.items()):
            if now - seen >= OVER_AFTER_SECONDS:
                del self._seen[reason]
                log.info("problem is over", extra={"reason": reason})
