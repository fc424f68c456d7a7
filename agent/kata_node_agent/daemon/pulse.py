"""Whether each loop of the agent makes progress: what systemd's watchdog is fed by, and health says.

A loop that turns says when it will have turned again at the latest. One that does not is stuck: in a read that does not come
back, or by a fault of ours. Waiting is progress: a loop that waits for kubelet turns all the same.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from kata_node_agent.daemon.node import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

# No loop waits for longer than 15 s without a turn, and each read and call in one has a limit that is below this.
_WITHIN_SECONDS = 60.0


class Pulse:
    """One loop's. A loop that has not begun, or is switched off, is not waited for."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self._beat_at = self._due_at = math.inf

    def beat(self, within_seconds: float = _WITHIN_SECONDS) -> None:
        """It has turned, and will again within so many seconds."""
        self._beat_at = self._clock()
        self._due_at = self._beat_at + within_seconds

    @property
    def silent_seconds(self) -> float:
        """For how long it has not turned, when it should have; else 0."""
        now = self._clock()
        return now - self._beat_at if now > self._due_at else 0.0


class Pulses:
    """Those of all loops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: monotonic seconds."""
        self._clock = clock
        self._pulses: list[Pulse] = []
        self._said: tuple[str, ...] = ()

    def pulse(self, name: str) -> Pulse:
        """A new one."""
        self._pulses.append(Pulse(name, self._clock))
        return self._pulses[-1]

    @property
    def all_beat(self) -> bool:
        """Whether none is stuck."""
        return not any(pulse.silent_seconds for pulse in self._pulses)

    @property
    def problem(self) -> Problem | None:
        """Which loop is stuck, for `status`."""
        stuck = [pulse for pulse in self._pulses if pulse.silent_seconds]
        if not stuck:
            return None
        text = ", ".join(f"{pulse.name} (for {pulse.silent_seconds:.0f} s)" for pulse in stuck)
        remedy = "systemd starts the agent anew; the kernel's log tells of tasks that are blocked"
        return Problem("LoopStuck", f"no progress: {text}", remedy)

    def check(self) -> bool:
        """`all_beat`, and says in the log what has changed."""
        stuck = tuple(pulse.name for pulse in self._pulses if pulse.silent_seconds)
        if stuck != self._said:
            self._said = stuck
            if stuck:
                log.error("no progress", extra={"loops": ", ".join(stuck)})
            else:
                log.info("all loops make progress again")
        return not stuck
