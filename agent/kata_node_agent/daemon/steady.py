"""A verdict must hold for a moment before it counts: a device node that is made anew must not make a node flap. Pure."""

from __future__ import annotations

# Long enough for a device node to be removed and made again; short enough for kubelet to hear within two seconds.
HOLD_SECONDS = 0.8


class Steady:
    """The verdict in force, and the one that may follow it. Times are `time.monotonic`."""

    def __init__(self) -> None:
        self.value: str | None = None
        self._next: str | None = None
        self._since = 0.0

    @property
    def waiting(self) -> bool:
        """Whether another verdict was seen that does not count yet: look again soon."""
        return self._next is not None

    def see(self, value: str, now: float) -> bool:
        """Takes what was seen; returns whether it counts. The first one does at once."""
        if self.value is None or value == self.value:
            self.value, self._next = value, None
            return True
        if value != self._next:
            self._next, self._since = value, now
        if now - self._since < HOLD_SECONDS:
            return False
        self.value, self._next = value, None
        return True
