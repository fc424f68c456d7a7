"""What changed, newest last, in a bounded list: for `status --history`."""

from __future__ import annotations

import time
from collections import deque

from kata_node_agent.dataclass import dataclass

_KEPT = 100


@dataclass(frozen=True, slots=True)
class Change:
    """One change: when (seconds since 1970), of what, and how it is now."""

    unix_seconds: float
    what: str
    message: str


class History:
    """The last changes, and how many there were of each kind since the start."""

    def __init__(self) -> None:
        self.changes: deque[Change] = deque(maxlen=_KEPT)
        self.counts: dict[str, int] = {}

    def record(self, what: str, message: str) -> None:
        """Notes a change that happened now."""
        self.changes.append(Change(time.time(), what, message))
        self.counts[what] = self.counts.get(what, 0) + 1
