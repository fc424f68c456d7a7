"""What a rule gives: what is to change in the book, and what the history is to keep of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.ledger.book import Admission, Book
    from kata_node_agent.ledger.gate import Decision


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the history: what was done, to which sandbox, and with which numbers."""

    what: str
    sandbox: str
    pod: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Change:
    """What is to change in the book, and what the history is to keep."""

    put: tuple[Admission, ...] = ()
    drop: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def apply(self, book: Book) -> None:
        """Puts it in force."""
        for admission in self.put:
            book.put(admission)
        for sandbox in self.drop:
            book.drop(sandbox)
