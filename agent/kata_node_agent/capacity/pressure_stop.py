"""The node closes itself to new VMs while its memory is under pressure, and opens when that has been over for a while. Pure.

Two signs, either of which is enough: tasks wait for memory (PSI), or little is left above kubelet's eviction threshold. The
thresholds to open are well below those to close, and must hold for a while: a node must not flap.

Sources: the kernel's Documentation/accounting/psi.rst for what the averages mean. Kubelet has no signal of its own for
waiting; systemd-oomd acts at 60 % over 30 s, when it kills. To take no more in, a fifth of the time is enough.
"""

from __future__ import annotations

from kata_node_agent.dataclass import dataclass
from kata_node_agent.quantity import format_bytes

CLOSE_PERCENT = 20.0
OPEN_PERCENT = 5.0
# Of the margin that is kept above the eviction threshold: closed below half of it, opened above all of it.
_CLOSE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Pressure:
    """What was read; ``None`` where it is not known, which is no sign.

    Attributes:
        waiting_percent: share of the last 10 s in which some task waited for memory.
        waiting_percent_minute: of the last 60 s.
        left_bytes: MemAvailable less the eviction threshold; negative below it.
        margin_bytes: what is kept above the threshold.
    """

    waiting_percent: float | None = None
    waiting_percent_minute: float | None = None
    left_bytes: int | None = None
    margin_bytes: int = 0


class PressureStop:
    """Whether the node is closed, and why. Times are `time.monotonic`."""

    def __init__(self) -> None:
        self.why = ""
        self._calm_since: float | None = None

    def take(self, seen: Pressure, now: float, hold_seconds: float) -> str:
        """Takes what was read; returns why the node is closed, empty while it is open."""
        if reason := _closing(seen):
            self.why, self._calm_since = reason, None
        elif self.why:
            if not _calm(seen):
                self._calm_since = None
            elif self._calm_since is None:
                self._calm_since = now
            elif now - self._calm_since >= hold_seconds:
                self.why, self._calm_since = "", None
        return self.why

    def lift(self) -> None:
        """It is switched off."""
        self.why, self._calm_since = "", None


def _closing(seen: Pressure) -> str:
    if seen.waiting_percent is not None and seen.waiting_percent >= CLOSE_PERCENT:
        return f"tasks waited for memory {seen.waiting_percent:.0f} % of the last 10 s"
    if seen.left_bytes is not None and seen.left_bytes < seen.margin_bytes * _CLOSE_SHARE:
        left = format_bytes(max(0, seen.left_bytes))
        return f"{left} of available memory is left above kubelet's eviction threshold"
    return ""


def _calm(seen: Pressure) -> bool:
    waits = [seen.waiting_percent, seen.waiting_percent_minute]
    return all(wait is None or wait < OPEN_PERCENT for wait in waits) and (
        seen.left_bytes is None or seen.left_bytes >= seen.margin_bytes
    )
