"""Writes to the store, and keeps what could not be written until it can."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from kata_node_agent.errors import LedgerError
from kata_node_agent.ledger.codec import PROBE, encode_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kata_node_agent.ledger.change import Note
    from kata_node_agent.ledger.recover import Body
    from kata_node_agent.ledger.store import Store

log = logging.getLogger(__name__)

# Lines of the history that could not be written are worth less than memory.
_MAX_NOTES = 100
# So many are written with the next entry, whoever waits for that.
_MANY_NOTES = 50
_PROBE_BYTES = 16384


class Writer:
    """The store, with what waits for it.

    Attributes:
        problem: why nothing can be written; ``None`` while it can.
        set_aside: why an older file was set aside when it was opened; empty where none was.
        was_open: whether it was opened; from then on a write mends what can be mended.
    """

    def __init__(self, store: Store, wall: Callable[[], float]) -> None:
        self.problem: LedgerError | None = None
        self.set_aside = ""
        self.was_open = False
        self._store = store
        self._wall = wall
        self._entries: dict[str, Body | None] = {}
        self._notes: list[Body] = []

    def open(self) -> Mapping[str, Body]:
        """Opens the store; returns what it holds.

        Raises:
            LedgerError: it cannot be had.
        """
        try:
            opened = self._store.open()
        except LedgerError as error:
            self._failed(error)
            raise
        self.problem, self.set_aside, self.was_open = None, opened.set_aside, True
        if opened.problem is not None:
            self._failed(opened.problem)
        else:
            # A file that cannot grow is to be known before something is to be promised.
            with contextlib.suppress(LedgerError):
                self._probe()
        if opened.set_aside:
            log.warning("set the ledger aside, what runs is looked for anew", extra={"why": opened.set_aside})
        return opened.entries

    def close(self) -> None:
        """Gives it back, with what waits in it."""
        self.flush()
        self.was_open = False
        self._store.close()

    def waits(self, key: str) -> bool:
        """Whether something newer than what the store holds is to be written."""
        return key in self._entries

    def write(self, entries: Mapping[str, Body | None], notes: Iterable[Note] = ()) -> None:
        """Writes these, and before them what waits: entries always, lines of the history with others or when there are many.

        Raises:
            LedgerError: nothing of these was written, and they are not kept.
        """
        if not self.was_open and self.problem is not None:
            # Why it could not be opened is what is to be said.
            raise LedgerError(self.problem.message, hint=self.problem.hint)
        bodies = [encode_note(note, self._wall()) for note in notes]
        if bodies or len(self._notes) >= _MANY_NOTES:
            bodies = [*self._notes, *bodies]
        self._call(lambda: self._store.write({**self._entries, **entries}, bodies))
        self._entries = {}
        if bodies:
            self._notes = []

    def keep(self, entries: Mapping[str, Body | None], notes: Iterable[Note] = ()) -> None:
        """For the next time."""
        self._entries |= entries
        bodies = [encode_note(note, self._wall()) for note in notes]
        self._notes = [*self._notes, *bodies][-_MAX_NOTES:]

    def take(self, entries: Mapping[str, Body | None], notes: Iterable[Note] = ()) -> None:
        """Writes these, now or the next time."""
        notes = tuple(notes)
        try:
            self.write(entries, notes)
        except LedgerError:
            self.keep(entries, notes)

    def flush(self) -> None:
        """Writes what waits, or sees whether the file is in its place; `problem` says whether that worked."""
        if not self.was_open:
            return
        with contextlib.suppress(LedgerError):
            if self.problem is not None:
                self._probe()
            elif self._entries or self._notes:
                self._call(lambda: self._store.write(self._entries, self._notes))
                self._entries, self._notes = {}, []
            else:
                self._call(self._store.check)

    def _probe(self) -> None:
        """A write that finds room within the file proves nothing: this one needs as much as some admissions do."""
        self.write({PROBE: {"room": "x" * _PROBE_BYTES}})
        self.write({PROBE: None})

    def notes(self, limit: int) -> list[Body]:
        """The history, newest last.

        Raises:
            LedgerError: it cannot be read.
        """
        self.flush()
        return self._store.notes(limit)

    def verify(self) -> list[str]:
        """What is wrong with the store; empty when all is well."""
        waiting = [f"{len(self._entries)} changes are not written yet"] if self._entries else []
        return [*self._store.verify(), *waiting]

    def _call(self, function: Callable[[], None]) -> None:
        """Calls the store, and says how it stands when that has changed."""
        before = self._store.mended
        try:
            function()
        except LedgerError as error:
            self._failed(error)
            raise
        if self._store.mended != before:
            log.warning(
                "the ledger's file was gone or another one: written anew",
                extra={"path": str(self._store.path)},
            )
        if self.problem is not None:
            log.info("the ledger can be written again")
        self.problem = None

    def _failed(self, error: LedgerError) -> None:
        if self.problem is None:
            log.error("the ledger cannot be written", extra={"why": error.message, "remedy": error.hint})
        self.problem = error
