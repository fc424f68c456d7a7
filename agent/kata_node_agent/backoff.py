"""Growing pauses between tries, so that who is called again is not called at once by all of a node."""

from __future__ import annotations

import os


class Backoff:
    """Pauses with jitter, each twice the one before, up to a last one. Seconds."""

    def __init__(self, first_seconds: float = 0.01, last_seconds: float = 5.0) -> None:
        self._first = self._next = first_seconds
        self._last = last_seconds

    def reset(self) -> None:
        """Begins again with the shortest pause."""
        self._next = self._first

    def pause(self) -> float:
        """The next pause in seconds."""
        pause = self._next * (0.5 + os.urandom(1)[0] / 510)
        self._next = min(self._next * 2, self._last)
        return pause
