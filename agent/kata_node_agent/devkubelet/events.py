"""What happened, in order: typed events that tests read and that people see as one line each.

The log only remembers and wakes who waits; it decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Any, TypeVar

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

# A development kubelet may run for days under a flapping plugin.
MAX_EVENTS = 10_000


@dataclass(frozen=True)
class Event:
    """Something that happened; ``unix_seconds`` says when."""

    unix_seconds: float = field(default_factory=time.time, kw_only=True)

    @property
    def kind(self) -> str:
        """The event's name."""
        return type(self).__name__

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"event": self.kind, **asdict(self)}

    def line(self) -> str:
        """One line for people, with local time."""
        clock = time.strftime("%H:%M:%S", time.localtime(self.unix_seconds))
        words = [f"{name}={_word(value)}" for name, value in asdict(self).items() if name != "unix_seconds"]
        return " ".join([f"{clock}.{int(self.unix_seconds % 1 * 1000):03d}", _spaced(self.kind), *words])


@dataclass(frozen=True)
class Started(Event):
    """Kubelet has started: sockets in the directory are deleted, kubelet.sock is there."""

    directory: str
    deleted_sockets: tuple[str, ...]


@dataclass(frozen=True)
class Stopped(Event):
    """Kubelet is gone; its socket files are still there."""

    how: str


@dataclass(frozen=True)
class CheckpointUnreadable(Event):
    """The checkpoint could not be read; kubelet goes on without it, as the real one does."""

    message: str


@dataclass(frozen=True)
class CheckpointUnwritable(Event):
    """The checkpoint could not be written; a restart will not know what has happened since the last one."""

    message: str


@dataclass(frozen=True)
class Registered(Event):
    """Register was answered with success."""

    resource: str
    endpoint: str


@dataclass(frozen=True)
class RegistrationRefused(Event):
    """Register was answered with an error."""

    resource: str
    endpoint: str
    message: str


@dataclass(frozen=True)
class TakenOver(Event):
    """A second plugin has registered a resource whose first plugin is still connected."""

    resource: str
    endpoint: str
    previous: str


@dataclass(frozen=True)
class DevicesChanged(Event):
    """What the node would show of a resource, after a plugin's message or the end of one."""

    resource: str
    capacity: int
    allocatable: int
    in_use: int


@dataclass(frozen=True)
class StreamLost(Event):
    """A plugin's ListAndWatch stream ended: all devices of the resource are unhealthy."""

    resource: str
    endpoint: str
    message: str


@dataclass(frozen=True)
class ResourceDropped(Event):
    """No plugin came back within the grace: the node shows the resource no more."""

    resource: str


@dataclass(frozen=True)
class PodAdmitted(Event):
    """A pod runs, with these devices."""

    pod: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True)
class PodRefused(Event):
    """A pod has failed at admission, or a running one when kubelet admitted it again after a restart."""

    pod: str
    reason: str
    message: str


@dataclass(frozen=True)
class PodWaits(Event):
    """A pod's container cannot be created yet (PreStartContainer failed); it is retried."""

    pod: str
    reason: str
    message: str


@dataclass(frozen=True)
class PodDeleted(Event):
    """A pod is gone and its devices are free."""

    pod: str
    device_ids: tuple[str, ...]


E_ = TypeVar("E_", bound=Event)


class EventLog:
    """All events so far; one task or several may wait for the next."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._waiting: set[asyncio.Future[None]] = set()

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Calls ``listener`` with every further event; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def record(self, event: Event) -> None:
        """Adds an event and wakes who waits."""
        self.events.append(event)
        if len(self.events) > MAX_EVENTS:
            del self.events[: MAX_EVENTS // 2]
        for listener in tuple(self._listeners):
            listener(event)
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def of(self, kind: type[E_]) -> list[E_]:
        """The events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        """Waits until a condition holds; it is looked at after every event.

        Raises:
            TimeoutError: it did not, with the last events in the message.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    future = asyncio.get_running_loop().create_future()
                    self._waiting.add(future)
                    await future
        except TimeoutError:
            last = "\n  ".join(event.line() for event in self.events[-10:]) or "nothing happened"
            raise TimeoutError(f"no {what} within {timeout_seconds} s; last events:\n  {last}") from None


def _spaced(name: str) -> str:
    """``StreamLost`` → ``stream-lost``."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def _word(value: object) -> str:
    """A value in a key=value line: quoted when it has a space, lists with commas and not endless."""
    if isinstance(value, tuple):
        shown = ",".join(str(item) for item in value[:8])
        return (f"{shown},…({len(value)})" if len(value) > 8 else shown) or "-"
    # Foreign texts: no value may forge a line, or move the cursor.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    if text and not set(text) & set(' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'
